"""The page on which labels are checked, in a real browser and without a server."""

import json

import pytest
from audited import write_selection

from chromium import chromium
from openmofi.config import AuditSettings
from openmofi.review.audit import audit

EVIL = "</script><script>alert(1)</script>"


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


@pytest.mark.slow
def test_keys_answer_and_the_download_is_taken(browser, tmp_path):
    selection = write_selection(tmp_path)
    settings = AuditSettings(checks=4, by="anna")
    audit(selection, settings=settings, page=tmp_path / "check.html")
    page = browser.new_page()
    troubles = []
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.goto(f"file://{tmp_path}/check.html")
    assert page.evaluate("document.querySelector('#image').naturalWidth") > 0
    for key in "ynbyu":
        page.keyboard.press(key)
    page.reload()  # answers stay in the browser
    assert page.inner_text("#count") == "Label 4 of 4"
    page.keyboard.press("n")
    assert page.is_visible("#done")
    with page.expect_download() as download:
        page.click("#save")
    download.value.save_as(tmp_path / "answers.jsonl")
    page.close()
    assert troubles == []
    lines = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    assert [line["answer"] for line in lines[1:]] == ["yes", "yes", "unsure", "no"]
    [whole, *_] = audit(selection, settings=settings, answers=tmp_path / "answers.jsonl").bounds
    assert (whole.right, whole.unsure, whole.wrong) == (2, 1, 1)


def test_captions_cannot_run_scripts(tmp_path):
    selection = write_selection(tmp_path, caption=EVIL)
    audit(selection, settings=AuditSettings(checks=3), page=tmp_path / "check.html")
    assert EVIL not in (tmp_path / "check.html").read_text()
