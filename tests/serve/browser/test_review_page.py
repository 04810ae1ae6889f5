"""The review: questions by mouse and keyboard, what changes, apply and take back."""

import re

import pytest

from openmofi.corrections.answers import answers_path, read_answers
from orchard import write_orchard

playwright = pytest.importorskip("playwright.sync_api")
expect = playwright.expect


@pytest.fixture
def own(tmp_path, nano_dir, serving, browser):
    """A page on an orchard whose answers nobody else sees."""
    from chromium import open_page

    orchard = write_orchard(tmp_path, nano_dir)
    with serving(orchard) as address:
        for page in open_page(browser, address, refusals=False):
            yield page, answers_path(orchard.selection.parents[1])


def test_questions_are_answered_by_mouse_and_by_key(own):
    page, path = own
    page.goto("/?view=review")
    page.get_by_label("Your name").fill("Ann")
    page.get_by_label("Your name").blur()
    heading = page.locator(".question h2")
    expect(heading).to_contain_text("Is this")
    image = page.locator(".question-image img")
    first = image.get_attribute("src")
    page.get_by_role("button", name="Not shown").click()
    expect(image).not_to_have_attribute("src", first)
    expect(page.locator(".notice")).to_contain_text("is not shown")
    second = image.get_attribute("src")
    page.keyboard.press("y")
    expect(page.locator(".question-text")).to_contain_text("2 answers in this visit")
    rows = read_answers(path).rows
    assert [(row.kind, row.by) for row in rows] == [("not-shown", "Ann"), ("right", "Ann")]
    assert first != second


def test_a_slip_is_taken_back_at_once(own):
    page, path = own
    page.goto("/?view=review")
    page.locator(".question").wait_for()
    page.keyboard.press("n")
    page.locator(".notice").get_by_role("button", name="Undo").click()
    expect(page.locator(".notice").last).to_contain_text("taken back")
    assert [row.kind for row in read_answers(path).rows] == ["wrong", "undo"]


def test_what_changes_is_seen_before_it_does(own):
    page, _ = own
    page.goto("/?view=review")
    page.get_by_role("button", name="Not shown").click()
    expect(page.locator(".notice")).to_contain_text("not shown")
    page.get_by_role("link", name="What changes").click()
    expect(page).to_have_url(re.compile("tab=changes"))
    page.get_by_role("button", name="What would change?").click()
    expect(page.locator(".change-head h2")).to_contain_text("change", timeout=60_000)
    expect(page.locator(".change-gallery img").first).to_be_visible()
    page.get_by_role("button", name="Apply").click()
    expect(page.get_by_role("button", name="Take the last change back")).to_be_visible()
    page.get_by_role("link", name="Answers", exact=True).click()
    expect(page.locator(".answer")).to_contain_text("applied")
    page.go_back()
    page.get_by_role("button", name="Take the last change back").click()
    expect(page.locator(".notice", has_text="former selection is back")).to_be_visible()


def test_why_takes_a_correction(own):
    page, path = own
    page.goto("/?view=why&row=1")
    group = page.get_by_role("group", name="What is right about apple?")
    group.get_by_role("button", name="Not shown").click()
    expect(page.locator(".answers [role=status]")).to_contain_text("Noted")
    page.reload()
    expect(page.locator(".said")).to_contain_text("it is not shown")
    page.get_by_label("It is something else").select_option(index=1)
    expect(page.locator(".answers [role=status]")).to_contain_text("Noted")
    assert [row.kind for row in read_answers(path).rows] == ["not-shown", "is"]


def test_an_entity_takes_a_rule_about_a_name(own):
    page, path = own
    page.goto("/?view=entity&id=red")
    page.get_by_role("button", name="Never Red Apple").first.click()
    expect(page.locator(".notice")).to_contain_text("never means Red Apple")
    [row] = read_answers(path).rows
    assert (row.kind, row.name, row.entity) == ("never", "apple", "red")


def test_an_entity_that_the_name_does_not_bear_is_found_by_its_name(own):
    page, path = own
    page.goto("/?view=review")
    field = page.get_by_label("It is another entity")
    field.fill("lim")
    expect(page.locator("datalist option")).to_have_attribute("value", "lime")
    field.fill("lime")
    field.press("Enter")
    expect(page.locator(".notice")).to_contain_text("It is lime.")
    page.get_by_label("It is another entity").fill("banana")
    page.get_by_role("button", name="It is this").click()
    expect(page.locator(".notice.bad")).to_contain_text("no such entity")
    assert [(row.kind, row.entity) for row in read_answers(path).rows] == [("is", "lime")]
