"""Searching in a browser: words, entities, images, filters, and the address that holds it all."""

import re

import pytest

import fruit
from orchard import IMAGES

expect = pytest.importorskip("playwright.sync_api").expect

_FILES = """([kind, files]) => {
  const data = new DataTransfer();
  for (const bytes of files) data.items.add(new File([new Uint8Array(bytes)], "a.jpg"));
  const about = {bubbles: true, cancelable: true};
  document.body.dispatchEvent(kind === "drop"
    ? new DragEvent("drop", {...about, dataTransfer: data})
    : new ClipboardEvent("paste", {...about, clipboardData: data}));
}"""


def _give(page, kind, *images):
    page.evaluate(_FILES, [kind, [list(image) for image in images]])


def _rows(page):
    expect(page.locator(".tile[data-row]").first).to_be_visible()
    expect(page.locator("[aria-busy=true]")).to_have_count(0)
    return [tile.get_attribute("data-row") for tile in page.locator(".tile[data-row]").all()]


def _chips(page):
    return page.locator(".chip")


def test_it_opens_on_images_of_every_entity(page):
    page.goto("/")
    expect(page.get_by_role("heading", level=1)).to_have_text(f"{IMAGES} images of 3 entities")
    expect(page.locator(".tile")).to_have_count(IMAGES)
    first = page.locator(".tile .names").all_inner_texts()[:3]
    assert set(first) == {"Red Apple", "Green Apple", "Lime"}


def test_words_become_a_term_and_results_have_scores(page):
    page.goto("/")
    expect(page.get_by_role("combobox")).to_be_visible()
    page.keyboard.press("/")
    page.keyboard.type("a red apple")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(r"\?q=a\+red\+apple$"))
    expect(_chips(page)).to_have_count(1)
    expect(page.locator(".tile .score").first).to_have_text(re.compile(r"^-?\d\.\d{3}$"))
    expect(page).to_have_title("a red apple · OpenMOFI")


def test_an_entity_is_found_by_another_name_with_the_keyboard_alone(page):
    page.goto("/")
    page.get_by_role("combobox").press_sequentially("pom")
    option = page.get_by_role("option")
    expect(option).to_contain_text("Red Apple “pomme”")
    page.keyboard.press("ArrowDown")
    expect(option).to_have_attribute("aria-selected", "true")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(r"\?entity=red$"))
    expect(_chips(page)).to_contain_text("Red Apple")


def test_escape_closes_the_suggestions_and_keeps_the_words(page):
    page.goto("/")
    box = page.get_by_role("combobox")
    box.press_sequentially("li")
    expect(page.get_by_role("listbox")).to_be_visible()
    box.press("Escape")
    expect(page.get_by_role("listbox")).to_be_hidden()
    expect(box).to_have_value("li")


@pytest.mark.parametrize("kind", ["drop", "paste"])
def test_an_image_is_searched_with_and_tagged(page, kind):
    page.goto("/")
    _give(page, kind, fruit.photo("lime", 2, side=64))
    expect(page).to_have_url(re.compile(r"\?upload=[0-9a-f]{32}$"))
    expect(page.locator(".tile").first).to_have_attribute("data-row", "2")
    expect(page.get_by_role("heading", name="What is this?")).to_be_visible()
    expect(page.locator(".tag").first).to_be_visible()


def test_several_images_become_several_terms(troubled):
    troubled.goto("/?view=data")  # one of its images is missing
    _give(troubled, "drop", fruit.photo("lime", 2, side=64), fruit.photo("red", 0, side=64))
    expect(_chips(troubled)).to_have_count(2)
    expect(troubled.locator(".chip img")).to_have_count(2)
    expect(troubled.get_by_role("heading", name="What is this?")).to_be_hidden()


def test_a_file_that_is_no_image_is_refused_in_words(troubled):
    troubled.goto("/")
    _give(troubled, "drop", b"not an image")
    expect(troubled.get_by_role("alert")).to_contain_text("a.jpg: ")
    expect(_chips(troubled)).to_have_count(0)


def test_a_facet_filters_and_its_chip_takes_it_away(page):
    page.goto("/")
    page.locator(".facet a", has_text="Lime").click()
    expect(page).to_have_url(re.compile(r"\?only=lime$"))
    expect(page.get_by_role("heading", level=1)).to_have_text("8 images")
    assert len(_rows(page)) == 8
    page.get_by_role("button", name="Remove only Lime").click()
    expect(page.locator(".tile")).to_have_count(IMAGES)


def test_a_facet_excludes_with_alt_or_its_button(page):
    page.goto("/")
    page.locator(".facet a", has_text="Lime").click(modifiers=["Alt"])
    expect(page.get_by_role("heading", level=1)).to_have_text("16 images")
    page.locator(".facet", has_text="Red Apple").hover()
    page.get_by_role("button", name="Not Red Apple").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("8 images")
    assert page.url.endswith("?not=lime&not=red")


def test_a_term_turns_negative_and_changes_weight(page):
    page.goto("/?like=0&entity=lime")
    page.get_by_role("button", name="Away from Lime").click()
    expect(page).to_have_url(re.compile(r"like=0&entity=-1\*lime$"))
    expect(page.locator(".chip.negative")).to_contain_text("Lime")
    page.get_by_label("Weight of Lime").fill("0.5")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(r"entity=-0\.5\*lime$"))


def test_an_answer_that_comes_while_a_weight_is_typed_takes_nothing_away(page):
    answers = []
    page.goto("/?like=0&entity=lime")
    page.route("**/api/search*", lambda route: answers.append(route))
    page.get_by_role("button", name="Away from Lime").click()
    expect(page).to_have_url(re.compile(r"entity=-1\*lime$"))
    page.get_by_label(re.compile("^Weight of .*lime", re.IGNORECASE)).focus()
    page.keyboard.press("ControlOrMeta+a")
    page.keyboard.type("0.")
    _until(page, lambda: answers)
    answers.pop().continue_()
    expect(page.locator("[aria-busy=true]")).to_have_count(0)
    page.keyboard.type("5")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(r"entity=-0\.5\*lime$"))


def test_similar_images_are_one_key_away(page):
    page.goto("/")
    page.locator(".tile .image").first.focus()
    page.keyboard.press("ArrowRight")
    row = page.locator(".tile.active").get_attribute("data-row")
    page.keyboard.press("s")
    expect(page).to_have_url(re.compile(rf"\?like={row}$"))
    expect(page.locator(".tile").first).to_have_attribute("data-row", row)
    expect(page.locator(".tile .image").first).to_be_focused()
    page.keyboard.press("w")
    expect(page).to_have_url(re.compile(rf"\?view=why&row={row}$"))


def test_the_arrow_keys_walk_the_grid_by_rows(page):
    page.goto("/")
    tiles = page.locator(".tile .image")
    tiles.first.focus()
    page.keyboard.press("ArrowDown")
    below = page.evaluate("document.activeElement.getBoundingClientRect().top")
    assert below > tiles.first.bounding_box()["y"]
    page.keyboard.press("ArrowUp")
    expect(tiles.first).to_be_focused()
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(r"view=why&row=\d+$"))


def test_the_least_similarity_and_other_bounds_are_sliders(page):
    page.goto("/?like=0")
    page.get_by_label("Similarity at least").fill("0.99")
    expect(page).to_have_url(re.compile(r"min=0\.99$"))
    page.get_by_text("More filters").click()
    page.get_by_label("Text area at most").fill("0.05")
    expect(page).to_have_url(re.compile(r"text_area=0\.05&min=0\.99$"))
    _rows(page)
    assert all(float(s) >= 0.99 for s in page.locator(".tile .score").all_inner_texts())


def test_a_slider_back_at_its_end_is_no_bound(page):
    page.goto("/?like=0&min=0.5")
    expect(page.get_by_role("heading", level=1)).to_contain_text("at least 0.50 similar")
    page.get_by_label("Similarity at least").fill("0")
    expect(page).to_have_url(re.compile(r"\?like=0$"))
    expect(page.locator(".slider output").first).to_have_text("any")


def test_the_least_similarity_goes_with_the_last_term(page):
    page.goto("/?like=0&min=0.5")
    _rows(page)
    page.locator(".chip.term .remove").click()
    expect(_chips(page)).to_have_count(0)
    expect(page.get_by_role("combobox")).to_be_focused()
    assert page.url.endswith("/")


def test_a_reload_and_the_back_button_show_the_same(page):
    page.goto("/?like=3&only=green&not=lime")
    before = _rows(page)
    page.reload()
    assert _rows(page) == before
    page.locator(".chip", has_text="not").get_by_role("button").click()
    expect(_chips(page)).to_have_count(2)
    page.go_back()
    expect(_chips(page)).to_have_count(3)
    assert _rows(page) == before


def test_more_results_come_by_themselves_and_stay_after_a_reload(page):
    page.route("**/static/parts/results.js", _page_of(10))
    page.set_viewport_size({"width": 1280, "height": 300})
    asked = []
    page.on("request", lambda r: "/api/search" in r.url and asked.append(r.post_data_json))
    page.goto("/")
    for last in (9, 19):  # of each page
        page.locator(".tile[data-row]").nth(last).scroll_into_view_if_needed()
    expect(page.locator(".tile[data-row]")).to_have_count(IMAGES)
    assert [(each["offset"], each["k"]) for each in asked] == [(0, 10), (10, 10), (20, 10)]
    page.reload()
    expect(page.locator(".tile[data-row]")).to_have_count(IMAGES)
    assert (asked[3]["offset"], asked[3]["k"]) == (0, IMAGES)


def test_a_page_of_an_old_search_is_not_appended_to_a_new_one(page):
    page.route("**/static/parts/results.js", _page_of(8))
    page.set_viewport_size({"width": 1280, "height": 3000})
    held = []
    page.route("**/api/search", lambda r: _hold(r, held))
    page.goto("/")
    expect(page.locator(".tile[data-row]")).to_have_count(8)
    _until(page, lambda: held)  # page 2 is asked for
    page.locator(".facet a", has_text="Lime").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("8 images")
    held[0].continue_()
    page.wait_for_timeout(300)
    assert len(held) == 1
    assert len(_rows(page)) == 8
    assert page.url.endswith("?only=lime")


def _until(page, happened):
    """Waits for what a page does by itself; a loaded machine takes its time."""
    for _ in range(100):
        if happened():
            return
        page.wait_for_timeout(100)
    raise AssertionError("nothing in ten seconds")


def _hold(route, held):
    """Keeps the requests for later pages."""
    if route.request.post_data_json["offset"]:
        held.append(route)
    else:
        route.continue_()


def test_a_page_that_failed_can_be_asked_for_again(troubled):
    troubled.route("**/static/parts/results.js", _page_of(8))
    held = []
    troubled.route("**/api/search", lambda r: _hold(r, held))
    troubled.set_viewport_size({"width": 1280, "height": 3000})
    troubled.goto("/")
    expect(troubled.locator(".tile[data-row]")).to_have_count(8)
    _until(troubled, lambda: held)
    held.pop().fulfill(status=503, json={"error": {"code": "busy", "message": "Too busy."}})
    expect(troubled.get_by_role("alert")).to_contain_text("Too busy.")
    expect(troubled).to_have_title("Search · OpenMOFI")
    troubled.unroute("**/api/search")
    troubled.get_by_role("button", name="Try again").click()
    expect(troubled.locator(".tile[data-row]")).to_have_count(IMAGES)
    expect(troubled.get_by_role("alert")).to_have_count(0)


def test_grey_boxes_never_replace_results(page):
    held = []
    page.route("**/api/search", lambda r: held.append(r) if not held else r.continue_())
    page.goto("/")
    expect(page.locator(".skeleton.tile")).to_have_count(18)
    page.get_by_role("combobox").fill("red")
    page.get_by_role("combobox").press("Enter")
    expect(page.locator(".tile[data-row]")).to_have_count(IMAGES)
    page.wait_for_timeout(400)
    expect(page.locator(".skeleton")).to_have_count(0)


@pytest.mark.parametrize(("typed", "kept"), [("0.123", "0.123"), ("99", "10"), ("-2", "0")])
def test_a_weight_is_any_number_within_its_bounds(page, typed, kept):
    page.goto("/?entity=lime")
    page.get_by_label("Weight of Lime").fill(typed)
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(rf"entity={re.escape(kept)}\*lime$"))


def test_a_weight_typed_while_an_answer_is_awaited_is_kept(page):
    held = []
    page.route("**/api/search", lambda r: held.append(r))
    page.goto("/?entity=lime")
    box = page.locator(".chip input")
    box.press("ControlOrMeta+a")
    box.press_sequentially("0.5")
    _until(page, lambda: held)
    held[0].continue_()
    expect(page.locator(".tile[data-row]").first).to_be_visible()
    expect(box).to_have_value("0.5")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(r"entity=0\.5\*lime$"))
    _until(page, lambda: len(held) == 2)
    with page.expect_response("**/api/search"):  # one that failed would be complained of
        held[1].continue_()


def _page_of(size):
    """Serves the module with smaller pages, as the orchard has few images."""

    def answer(route):
        text = route.fetch().text().replace("PAGE = 60", f"PAGE = {size}")
        route.fulfill(body=text, content_type="text/javascript")

    return answer


def test_no_result_says_so(page):
    page.goto("/?only=lime&not=lime")
    expect(page.get_by_role("heading", name="No image passes")).to_be_visible()
    page.get_by_role("link", name="Remove the filters").click()
    expect(page.locator(".tile")).to_have_count(IMAGES)


def test_the_first_results_need_one_request(page):
    asked = []
    page.on("request", lambda r: asked.append(r.url) if "/api/" in r.url else None)
    page.goto("/?like=3")
    expect(page.locator(".tile").first).to_be_visible()
    paths = [url.split("/api/")[1] for url in asked if "thumbnail" not in url]
    assert sorted(paths) == ["info", "search"]


def test_back_returns_to_where_the_page_was_scrolled(page):
    page.set_viewport_size({"width": 900, "height": 500})
    page.goto("/")
    expect(page.locator(".tile[data-row]")).to_have_count(IMAGES)
    page.mouse.wheel(0, 400)
    page.wait_for_timeout(300)  # the place is noted when scrolling ends
    page.locator(".tile .names a:visible").last.click()
    expect(page.locator(".entity-head")).to_be_visible()
    assert page.evaluate("scrollY") == 0
    page.go_back()
    expect(page.locator(".tile[data-row]")).to_have_count(IMAGES)
    page.wait_for_function("scrollY > 300")
