"""What the catalogue lacks, on the page: proposals by key, a better name, undo, export."""

import pytest

from openmofi.review.missing.decisions import holding_decisions
from orchard import write_orchard
from proposed import write_proposed

playwright = pytest.importorskip("playwright.sync_api")
expect = playwright.expect


@pytest.fixture
def own(tmp_path, nano_dir, serving, browser):
    """A page on an orchard with proposals that nobody else sees."""
    from chromium import open_page

    orchard = write_orchard(tmp_path, nano_dir)
    folder = write_proposed(orchard)
    with serving(orchard) as address:
        for page in open_page(browser, address, refusals=False):
            yield page, folder


def test_proposals_are_decided_by_key_and_exported(own):
    page, folder = own
    page.goto("/?view=review")
    page.get_by_role("link", name="Missing").click()
    heading = page.locator(".missing-card h2")
    expect(heading).to_have_text("durian")
    expect(page.locator(".change-gallery img")).to_have_count(2)
    name = page.get_by_label("Name", exact=True)
    name.fill("Durian fruit")
    page.get_by_label("What it looks like").fill("a spiky fruit")
    page.keyboard.press("Escape")
    name.press("a")  # typed, not a decision
    expect(heading).to_have_text("durian")
    name.fill("Durian fruit")
    page.get_by_role("button", name="Accept").click()
    expect(heading).to_have_text("fig")
    expect(page.locator(".missing-card")).to_contain_text("another name of it?")
    page.keyboard.press("r")
    expect(page.locator(".state h2")).to_have_text("Nothing left to propose")
    holds = holding_decisions(folder)
    assert {one.proposal: one.kind for one in holds.values()} == {
        "new:durian": "accept",
        "new:fig": "reject",
    }
    assert holds["new:durian"].name == "Durian fruit"
    assert holds["new:durian"].description == "a spiky fruit"
    with page.expect_download() as download:
        page.get_by_role("link", name="Rows to build").click()
    text = download.value.path().read_text()
    assert "new:durian,Durian fruit,king of fruit,a spiky fruit,22" in text


def test_a_slip_is_taken_back_and_a_proposal_skipped(own):
    page, folder = own
    page.goto("/?view=review&tab=missing")
    heading = page.locator(".missing-card h2")
    expect(heading).to_have_text("durian")
    page.keyboard.press("r")
    expect(heading).to_have_text("fig")
    page.locator(".notice").get_by_role("button", name="Undo").click()
    expect(heading).to_have_text("durian")
    assert holding_decisions(folder) == {}
    page.keyboard.press("s")
    expect(heading).to_have_text("fig")
    expect(page.locator(".missing-summary")).to_contain_text("1 skipped")


def test_without_proposals_the_page_says_how_to_make_them(own):
    page, folder = own
    (folder / "proposals.json").unlink()
    page.goto("/?view=review&tab=missing")
    expect(page.locator(".state")).to_contain_text("openmofi review missing")
