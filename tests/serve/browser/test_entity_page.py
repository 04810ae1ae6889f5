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
    expect(chosen).to_contain_text("picture's choice")
    expect(chosen).to_contain_text("chosen")
    expect(page.locator("tr", has_text="None of these")).to_be_visible()


def test_why_shows_every_term_with_its_meaning(page):
    page.goto("/?view=why&row=0")
    page.get_by_text("What the numbers mean").click()
    heads = page.locator("thead th").all_inner_texts()
    assert heads[:3] == ["Candidate", "Prior", "Context"]
    assert heads[-1] == "Score"
    expect(page.get_by_text("standard deviations")).to_be_visible()


def test_text_in_the_picture_is_framed(page):
    page.goto("/?view=why&row=0")
    expect(page.locator(".framed img")).to_have_js_property("complete", True)
    box = page.locator(".text-box").bounding_box()
    picture = page.locator(".framed img").bounding_box()
    assert box["width"] == pytest.approx(picture["width"] / 2, abs=1)
    assert box["height"] == pytest.approx(picture["height"] / 2, abs=1)


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
