"""Accessible by axe-core's rules, in light and dark; on a phone; by the keyboard."""

from pathlib import Path

import pytest

expect = pytest.importorskip("playwright.sync_api").expect

_AXE = Path(__file__).with_name("axe.min.js").read_text()
_VIEWS = {
    "browse": "/",
    "search": "/?q=red&entity=-0.5*lime&only=red&not=green",
    "nothing": "/?only=lime&not=lime",
    "entity": "/?view=entity&id=red",
    "why": "/?view=why&row=0",
    "refused": "/?view=why&refused=1",
    "map": "/?view=map&lasso=0.1,0.1;0.9,0.1;0.5,0.9&class=1",
    "data": "/?view=data&reason=picture_disagrees",
    "evaluation": "/?view=evaluation",
    "near": "/?view=map&at=0.5,0.5,2.2",
    "review": "/?view=review",
    "changes": "/?view=review&tab=changes",
    "answers": "/?view=review&tab=answers",
    "missing": "/?view=entity&id=none",
}
_everywhere = pytest.mark.parametrize("view", _VIEWS)


def _open(browser, site, view, **given):
    """Opens a view, at rest; a context of its own may bypass the policy that forbids axe."""
    page = browser.new_context(base_url=site, bypass_csp=True, **given).new_page()
    page.goto(_VIEWS[view])
    page.wait_for_selector("h1:not(:empty)")
    page.wait_for_function("!document.querySelector('[aria-busy=true], .skeleton')")
    return page


@_everywhere
def test_axe_finds_nothing(browser, site, view):
    page = _open(browser, site, view, color_scheme="light", reduced_motion="reduce")
    page.evaluate(_AXE)
    found = page.evaluate("axe.run()")["violations"]
    page.emulate_media(color_scheme="dark")
    found += page.evaluate("axe.run()")["violations"]
    page.context.close()
    assert [(v["id"], v["nodes"][0]["html"]) for v in found] == []


@_everywhere
def test_nothing_is_wider_than_a_phone(browser, site, view):
    page = _open(browser, site, view, viewport={"width": 390, "height": 844}, is_mobile=True)
    width = page.evaluate("document.documentElement.scrollWidth")
    page.context.close()
    assert width == 390


def test_axe_accepts_suggestions_and_the_list_of_keys(browser, site):
    page = _open(browser, site, "browse", reduced_motion="reduce")
    page.evaluate(_AXE)
    page.get_by_role("combobox").press_sequentially("app")
    expect(page.get_by_role("option").first).to_be_visible()
    found = page.evaluate("axe.run()")["violations"]
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Keyboard shortcuts").click()
    found += page.evaluate("axe.run()")["violations"]
    page.context.close()
    assert found == []


def test_question_mark_shows_the_keys_and_escape_closes_them(page):
    page.goto("/")
    page.locator(".tile .image").first.focus()
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()


def test_the_chosen_theme_stays(page):
    page.emulate_media(color_scheme="light")
    page.goto("/")
    page.get_by_role("button", name="Light or dark").click()
    page.reload()
    assert page.evaluate("getComputedStyle(document.documentElement).colorScheme") == "dark"


def test_a_report_is_dark_where_the_page_is(troubled):
    page = troubled
    page.emulate_media(color_scheme="light")
    page.goto("/?view=evaluation")
    scheme = "document.querySelector('iframe').style.colorScheme"
    expect(page.locator("iframe")).to_be_visible()
    assert page.evaluate(scheme) == "light"
    page.get_by_role("button", name="Light or dark").click()
    assert page.evaluate(scheme) == "dark"


def test_a_new_view_takes_the_focus(page):
    page.goto("/")
    page.get_by_role("link", name="Map").click()
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    expect(page.locator("main")).to_be_focused()


@pytest.mark.parametrize(
    ("view", "place"),
    [("/", ".facet a"), ("/?like=0", ".chip .sign"), ("/?view=map", ".facet-link")],
)
def test_the_focus_stays_where_the_keyboard_changed_something(page, view, place):
    page.goto(view)
    page.locator(place).first.focus()
    key = page.locator(place).first.get_attribute("data-key")
    page.keyboard.press("Enter")
    page.wait_for_url(lambda url: not url.endswith(view))
    expect(page.locator("[aria-busy=true]")).to_have_count(0)
    expect(page.locator(f"{place}[data-key='{key}']")).to_be_focused()
