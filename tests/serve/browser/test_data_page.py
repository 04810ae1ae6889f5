"""The dataset's funnel, and the reports; one of the refused has no image, which is not a fault."""

import re

import pytest

expect = pytest.importorskip("playwright.sync_api").expect


def test_the_funnel_counts_every_pair(page):
    page.goto("/?view=data&reason=picture_disagrees")
    expect(page.locator(".numbers")).to_contain_text("pairs read26")
    counts = page.locator(".funnel .count").all_inner_texts()
    assert sum(int(text.split()[0]) for text in counts) == 26


def test_a_reason_shows_what_it_refused_and_leads_to_why(troubled):
    troubled.goto("/?view=data")
    troubled.locator(".funnel a", has_text="Picture disagrees").click()
    expect(troubled).to_have_url(re.compile(r"reason=picture_disagrees$"))
    refused = troubled.locator(".refused-list li")
    expect(refused).to_have_count(1)
    refused.get_by_role("link").click()
    expect(troubled.locator(".verdict")).to_have_text("Refused as picture disagrees")
    expect(troubled.locator("tr.chosen")).to_contain_text("None of these")


def test_the_most_frequent_reason_is_shown_without_being_asked(troubled):
    troubled.goto("/?view=data")
    expect(troubled.locator(".refused-list li")).to_have_count(1)
    expect(troubled.locator(".funnel [aria-current]")).to_have_count(1)


def test_refused_without_an_image_still_shows_the_caption(troubled):
    troubled.goto("/?view=data&reason=no_mention")
    expect(troubled.locator(".refused-list")).to_contain_text("nothing of note")


def test_a_report_fills_the_view_and_runs_nothing(troubled):
    troubled.goto("/?view=evaluation")
    frame = troubled.locator("iframe")
    expect(frame.content_frame.get_by_role("heading")).to_have_text("Scores")
    assert frame.get_attribute("sandbox") == ""
    assert frame.bounding_box()["height"] > 600
    expect(troubled.get_by_role("link", name="Fruit-test")).to_have_attribute(
        "aria-current", "page"
    )
