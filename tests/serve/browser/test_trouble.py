"""What the page says when something is missing or broken."""

import pytest

from orchard import IMAGES

expect = pytest.importorskip("playwright.sync_api").expect


def _refuse(page, path, status, code="broken", message="It broke."):
    body = {"error": {"code": code, "message": message}}
    page.route(path, lambda route: route.fulfill(status=status, json=body))


def test_an_error_has_the_servers_sentence_and_can_be_tried_again(troubled):
    _refuse(troubled, "**/api/search", 500)
    troubled.goto("/")
    expect(troubled.get_by_role("alert")).to_contain_text("It broke.")
    troubled.unroute("**/api/search")
    troubled.get_by_role("button", name="Try again").click()
    expect(troubled.locator(".tile[data-row]")).to_have_count(IMAGES)


@pytest.mark.parametrize("view", ["", "view=entity&id=red", "view=why&row=0", "view=map"])
def test_no_answer_is_said(troubled, view):
    troubled.route("**/api/**", lambda route: route.abort())
    troubled.goto(f"/?{view}")
    expect(troubled.get_by_role("alert")).to_contain_text("The server does not answer")


@pytest.mark.parametrize(
    "view", ["view=entity&id=Q1", "view=why&row=999", "view=why&refused=99", "view=data&reason=x"]
)
def test_what_is_not_there_is_said(troubled, view):
    troubled.goto(f"/?{view}")
    expect(troubled.locator(".state p, .samples p").first).to_be_visible()
    expect(troubled.get_by_role("heading", level=1)).to_have_count(1)


def test_an_unknown_view_is_said(page):
    page.goto("/?view=nowhere")
    expect(page.get_by_text("There is no view named “nowhere”.")).to_be_visible()


def test_an_image_that_the_server_forgot_is_to_be_dropped_again(troubled):
    troubled.goto(f"/?upload={'0' * 32}&entity=lime")
    expect(troubled.get_by_role("heading", level=1)).to_have_text("This image is gone")
    troubled.get_by_role("link", name="Search without it").click()
    expect(troubled.locator(".tile[data-row]")).to_have_count(IMAGES)
    expect(troubled.locator(".chip")).to_have_count(1)


def test_a_token_is_asked_for_and_kept(browser, orchard, serving):
    with serving(orchard, token="plum jam") as address:
        page = browser.new_page()
        page.goto(address)
        page.get_by_label("Token").fill("jam")
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("alert")).to_contain_text("not the server's token")
        page.get_by_label("Token").fill("plum jam")
        page.get_by_role("button", name="Sign in").click()
        expect(page.locator(".tile[data-row]")).to_have_count(IMAGES)
        page.close()


def test_what_comes_late_does_not_replace_what_was_asked_later(troubled):
    held = []
    troubled.goto("/?like=0")
    expect(troubled.locator(".tile[data-row]")).to_have_count(IMAGES)
    troubled.route("**/api/search", lambda route: held.append(route), times=1)
    troubled.locator(".facet a", has_text="Lime").click()
    troubled.locator(".facet a", has_text="Green Apple").click()
    expect(troubled.get_by_role("heading", level=1)).to_have_text("16 images")
    [first] = held
    first.continue_()
    troubled.wait_for_timeout(200)
    expect(troubled.get_by_role("heading", level=1)).to_have_text("16 images")
    expect(troubled.locator(".chip").last).to_contain_text("Green Apple")


def test_a_view_that_cannot_be_loaded_is_asked_for_again(troubled):
    troubled.goto("/")
    troubled.route("**/views/data.js", lambda route: route.abort(), times=1)
    troubled.get_by_role("link", name="Data").click()
    expect(troubled.get_by_role("alert")).to_contain_text("The server does not answer")
    troubled.get_by_role("button", name="Try again").click()
    expect(troubled.get_by_role("heading", name="Where the pairs went")).to_be_visible()


def test_an_image_that_is_not_there_leaves_its_caption(troubled):
    troubled.route("**/thumbnail*", lambda route: route.fulfill(status=404))
    troubled.goto("/")
    expect(troubled.locator(".tile .missing")).to_have_count(IMAGES)
    expect(troubled.locator(".tile .missing").first).to_contain_text("apple")
