"""A search in a browser that finds nothing: it says so, and offers the nearest as such."""

import re
from pathlib import Path

import pytest

from chromium import open_page
from orchard import IMAGES, write_calibration, write_orchard

expect = pytest.importorskip("playwright.sync_api").expect

_AXE = Path(__file__).with_name("axe.min.js").read_text()


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory, nano_dir, serving):
    orchard = write_orchard(tmp_path_factory.mktemp("calibrated"), nano_dir)
    write_calibration(orchard.index)
    with serving(orchard) as address:
        yield address


@pytest.fixture
def page(browser, calibrated):
    yield from open_page(browser, calibrated, refusals=True)


def test_it_says_that_nothing_looks_like_the_words(page):
    page.goto("/?q=a+steam+engine")
    heading = page.get_by_role("heading", level=1)
    expect(heading).to_have_text("Nothing here looks like “a steam engine”")
    expect(page.locator(".results .state")).to_contain_text("look as present as this one")
    expect(page.locator(".tile[data-row]")).to_have_count(0)
    expect(page.locator(".results > .unseen[role=status]")).to_contain_text("Nothing here looks")


def test_the_nearest_are_shown_on_request_and_the_address_holds_that(page):
    page.goto("/?q=a+steam+engine")
    link = page.get_by_role("link", name="Show the nearest all the same")
    link.focus()
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(r"\?q=a\+steam\+engine&nearest=1$"))
    expect(page.locator(".tile[data-row]")).to_have_count(IMAGES)
    expect(page.get_by_role("heading", level=1)).to_contain_text("Nothing here looks like")
    expect(page.locator(".results-head")).to_contain_text("only the nearest")
    page.reload()
    expect(page.locator(".tile[data-row]")).to_have_count(IMAGES)
    page.go_back()
    expect(page.locator(".tile[data-row]")).to_have_count(0)


def test_another_search_forgets_that_the_nearest_were_asked_for(page):
    page.goto("/?q=a+steam+engine&nearest=1")
    expect(page.locator(".tile[data-row]").first).to_be_visible()
    box = page.get_by_role("combobox")
    box.press_sequentially("at night")
    box.press("Enter")
    expect(page).to_have_url(re.compile(r"\?q=a\+steam\+engine&q=at\+night$"))
    expect(page.locator(".tile[data-row]")).to_have_count(IMAGES)  # of a mix nobody can tell


@pytest.mark.parametrize("address", ["/?q=" + "steamengine" * 20, "/?q=steam&nearest=1"])
def test_it_is_accessible_and_fits_on_a_phone(browser, calibrated, address):
    screen = {"viewport": {"width": 390, "height": 844}, "is_mobile": True}
    context = browser.new_context(base_url=calibrated, bypass_csp=True, **screen)
    page = context.new_page()
    page.emulate_media(reduced_motion="reduce")
    page.goto(address)
    page.wait_for_selector("h1:not(:empty)")
    page.wait_for_function("!document.querySelector('[aria-busy=true], .skeleton')")
    page.evaluate(_AXE)
    found = page.evaluate("axe.run()")["violations"]
    page.emulate_media(color_scheme="dark")
    found += page.evaluate("axe.run()")["violations"]
    width = page.evaluate("document.documentElement.scrollWidth")
    context.close()
    assert [(v["id"], v["nodes"][0]["html"]) for v in found] == []
    assert width == 390
