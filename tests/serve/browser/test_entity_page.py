"""An entity's page, and why an image has its labels."""

import re

import pytest

expect = pytest.importorskip("playwright.sync_api").expect


def test_an_entity_shows_its_names_types_and_images(page):
    page.goto("/?view=entity&id=red")
    expect(page.get_by_role("heading", level=1)).to_have_text("Red Apple")
    expect(page).to_have_title("Red Apple · OpenMOFI")
    expect(page.locator(".tile[data-row]")).to_have_count(8)
    expect(page.locator(".entity-head")).to_contain_text("a round red fruit")
    expect(page.get_by_text("pomme")).to_be_attached()


def test_an_entity_names_those_it_shares_a_name_with(page):
    page.goto("/?view=entity&id=red")
    shared = page.locator(".shared")
    expect(shared).to_contain_text("“apple”")
    shared.get_by_role("link", name="Green Apple").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Green Apple")
    page.go_back()
    expect(page.get_by_role("heading", level=1)).to_have_text("Red Apple")


def test_only_wikidata_ids_link_to_wikidata(page):
    page.goto("/?view=entity&id=lime")
    expect(page.get_by_role("heading", level=1)).to_have_text("Lime")
    expect(page.get_by_role("link", name="Wikidata")).to_have_count(0)


def test_an_entity_leads_to_a_search_with_it(page):
    page.goto("/?view=entity&id=lime")
    page.get_by_role("link", name="Search with it").click()
    expect(page).to_have_url(re.compile(r"\?entity=lime$"))
    expect(page.locator(".chip")).to_contain_text("Lime")


def test_why_marks_the_mention_and_names_the_choices(page):
    page.goto("/?view=why&row=1")
    expect(page.locator("mark")).to_have_text("apple")
    expect(page.locator(".verdict")).to_have_text("Kept with its labels")
    chosen = page.locator("tr.chosen")
    expect(chosen).to_contain_text("Green Apple")
    expect(chosen).to_contain_text("image's choice")
    expect(chosen).to_contain_text("chosen")
    expect(page.locator("tr", has_text="None of these")).to_be_visible()


def test_why_shows_every_term_with_its_meaning(page):
    page.goto("/?view=why&row=0")
    page.get_by_text("What the numbers mean").click()
    heads = page.locator("thead th").all_inner_texts()
    assert heads[:3] == ["Candidate", "Prior", "Context"]
    assert heads[-1] == "Score"
    expect(page.get_by_text("standard deviations")).to_be_visible()


def test_text_in_the_image_is_framed(page):
    page.goto("/?view=why&row=0")
    expect(page.locator(".framed img")).to_have_js_property("complete", True)
    box = page.locator(".text-box").bounding_box()
    image = page.locator(".framed img").bounding_box()
    assert box["width"] == pytest.approx(image["width"] / 2, abs=1)
    assert box["height"] == pytest.approx(image["height"] / 2, abs=1)


def test_mentions_are_cut_by_code_points(page):
    def with_emblem(route):
        answer = route.fetch().json()
        first = answer["mentions"][0]
        answer["caption"] = "🍏 " + answer["caption"]
        first["start"], first["end"] = first["start"] + 2, first["end"] + 2
        route.fulfill(json=answer)

    page.route("**/api/images/0/provenance", with_emblem)
    page.goto("/?view=why&row=0")
    expect(page.locator("mark")).to_have_text("apple")


def test_an_image_can_be_tagged_by_the_model(page):
    page.goto("/?view=why&row=0")
    page.get_by_role("button", name="What does the model see?").click()
    expect(page.locator(".tag").first).to_be_visible()


def test_a_tag_has_its_score_drawn_its_probability_written_and_the_abstention_said(page):
    tag = {"id": "red", "label": "Red Apple", "description": "", "score": 0.25}
    evidence = {"class_score": None, "text_score": None, "prior": None, "nearest": []}
    tags = [{**tag, "probability": p, "evidence": evidence} for p in (0.75, None)]
    answer = {"tags": tags, "abstains": True, "reason": "It may be none."}
    page.route("**/api/tag", lambda route: route.fulfill(json=answer))
    page.goto("/?view=why&row=0")
    page.get_by_role("button", name="What does the model see?").click()
    expect(page.locator(".abstains")).to_contain_text("It may be none.")
    shares = page.locator(".tag .bar").evaluate_all(
        "bars => bars.map((bar) => bar.style.getPropertyValue('--share'))"
    )
    assert shares == ["0.25", "0.25"]
    assert page.locator(".tag .number").all_inner_texts() == [
        "score 0.250 · 75% sure",
        "score 0.250",
    ]


def test_an_image_that_is_gone_leaves_its_caption_and_reasons(troubled):
    troubled.route("**/api/images/0/file", lambda route: route.fulfill(status=404))
    troubled.goto("/?view=why&row=0")
    expect(troubled.get_by_text("The image is gone.")).to_be_visible()
    expect(troubled.locator("p.caption")).to_contain_text("apple")
    expect(troubled.locator("tr.chosen")).to_be_visible()


def _changed(page, path, change):
    def answer(route):
        found = route.fetch().json()
        change(found)
        route.fulfill(json=found)

    page.route(path, answer)


def test_only_addresses_of_the_web_are_links(page):
    _changed(page, "**/api/images/0", lambda image: image.update(url="javascript:alert(1)"))
    page.goto("/?view=why&row=0")
    expect(page.get_by_text("javascript:alert(1)")).to_be_visible()
    expect(page.locator("a[href^=javascript]")).to_have_count(0)


def test_candidates_are_sorted_by_their_score(page):
    def reverse(answer):
        candidates = answer["mentions"][0]["candidates"]
        candidates.sort(key=lambda one: one["score"] or one["text_score"] or 0)

    _changed(page, "**/api/images/0/provenance", reverse)
    page.goto("/?view=why&row=0")
    rows = page.locator(".mention").first.locator("tbody tr:not(.nil)")
    scores = [float(row.split()[-1]) for row in rows.all_inner_texts()]
    assert scores == sorted(scores, reverse=True)


def test_taken_for_lists_confusions(page):
    other = {"id": "lime", "label": "Lime", "share": 0.3, "images": 8, "thumbnail": None}
    _changed(page, "**/api/entities/red", lambda entity: entity.update(confused=[other]))
    page.goto("/?view=entity&id=red")
    panel = page.locator(".panel", has=page.get_by_role("heading", name="Taken for"))
    expect(panel.locator("li")).to_have_text(["Lime30%"])


def test_none_of_these_is_the_images_choice_where_no_candidate_is_near_enough(page):
    def lift(answer):
        answer["weights"] = {**(answer["weights"] or {}), "nil_z": 99.0}
        mention = answer["mentions"][0]
        mention["picture_choice"] = mention["nil"]["score"] = None
        mention["candidates"][0]["clip_z"] = 1.0

    _changed(page, "**/api/images/0/provenance", lift)
    page.goto("/?view=why&row=0")
    expect(page.locator("tr.nil").first).to_contain_text("image's choice")
