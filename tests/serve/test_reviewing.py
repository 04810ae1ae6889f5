"""REST: corrections. Several people at once, a killed server, the token, and what is refused."""

import json
import signal
import subprocess
import sys
import urllib.request

import pytest

from openmofi.config import AuditSettings
from openmofi.corrections.answers import answers_path, read_answers
from openmofi.review.audit import audit
from orchard import client_of, code_of, together, wait_until, write_orchard


@pytest.fixture
def orchard(tmp_path, nano_dir):
    return write_orchard(tmp_path, nano_dir)


@pytest.fixture
def client(orchard):
    with client_of(orchard.index) as client:
        yield client


def _i2e(orchard):
    return orchard.selection.parents[1]


def _question(client):
    return client.get("/api/review/questions?k=1").json()["questions"][0]


def _say(client, **answer):
    return client.post("/api/review/answers", json=answer)


def _preview(client):
    client.post("/api/review/preview").raise_for_status()
    wait_until(lambda: client.get("/api/review/preview").json()["state"] != "running", 60)
    return client.get("/api/review/preview").json()


def test_a_question_is_answered_previewed_applied_and_taken_back(client, orchard):
    question = _question(client)
    place = question["place"]
    assert client.get(question["thumbnail"]).headers["content-type"] == "image/webp"
    stored = _say(client, kind="not-shown", place=place, by="Ann")
    assert stored.status_code == 201, stored.text
    assert _question(client)["place"] != place
    [row] = read_answers(answers_path(_i2e(orchard))).rows
    assert (row.id, row.by, row.name) == (stored.json()["id"], "Ann", question["name"])
    assert row.evidence["label"] == question["candidates"][0]["id"]
    found = _preview(client)
    assert found["state"] == "ready", found
    assert found["preview"]["removed"] >= 1
    gone = found["preview"]["gallery"][0]
    assert client.get(gone["thumbnail"]).status_code == 200
    assert client.post("/api/review/apply").json()["can_revert"]
    listed = client.get("/api/review/answers").json()
    assert (listed["total"], listed["pending"]) == (1, 0)
    assert listed["answers"][0]["applied"]
    reasons = {step["reason"]: step["count"] for step in client.get("/api/data").json()["funnel"]}
    assert reasons["corrected"] == 1
    assert client.post("/api/review/revert", json={"by": "Ann"}).json() == {"undone": 1}
    assert client.get("/api/review/answers").json()["total"] == 0
    assert "corrected" not in {s["reason"] for s in client.get("/api/data").json()["funnel"]}


def test_why_says_what_people_say(client):
    place = _question(client)["place"]
    _say(client, kind="is", place=place, entity="lime", by="Ann")
    _say(client, kind="never", name="Apple", entity="plum")
    shown = [client.get(f"/api/images/{row}/provenance").json() for row in range(24)]
    [mine] = [why for why in shown if why["place"] == {k: place[k] for k in ("file", "row")}]
    said = [text for mention in mine["mentions"] for text in mention["said"]]
    assert "it is Lime (Ann)" in said
    assert "the name never means Plum" in str(shown)


def test_people_answer_at_once_and_nothing_is_lost(client, orchard):
    questions = client.get("/api/review/questions?k=2").json()["questions"]

    def answer(number):
        place = questions[number % len(questions)]["place"]
        told = {"kind": "not-shown", "place": place, "by": f"p{number}"}
        return [_say(client, **told).json()["id"] for _ in range(10)]

    given = [one for ids in together(6, answer) for one in ids]
    assert len(set(given)) == 60
    assert read_answers(answers_path(_i2e(orchard))).by_id.keys() == set(given)


@pytest.mark.slow
def test_a_killed_server_loses_no_answer_that_it_acknowledged(orchard):
    line = [sys.executable, "-m", "openmofi", "serve", str(orchard.index), "--port", "0"]
    server = subprocess.Popen(line, stderr=subprocess.PIPE, text=True)
    address = server.stderr.readline().split(" at ")[1].split()[0].rstrip("/")

    def ask(path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(address + path, data=data)
        request.add_header("content-type", "application/json")
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    place = ask("/api/review/questions?k=1")["questions"][0]["place"]
    body = {"kind": "not-shown", "place": place}
    given = {ask("/api/review/answers", body)["id"] for _ in range(25)}
    server.send_signal(signal.SIGKILL)
    server.wait()
    server.stderr.close()
    assert given == read_answers(answers_path(_i2e(orchard))).by_id.keys()


def test_corrections_need_the_token(orchard):
    with client_of(orchard.index, token="secret") as client:
        assert _say(client, kind="never", name="a", entity="red").status_code == 401
        assert client.get("/api/review/answers").status_code == 401
        client.headers["authorization"] = "Bearer secret"
        assert _say(client, kind="never", name="a", entity="red").status_code == 201


def test_a_page_of_another_site_cannot_correct(client):
    origin = {"origin": "http://evil.example"}
    answer = client.post("/api/review/undo", json={"ids": ["0" * 32]}, headers=origin)
    assert code_of(answer) == "foreign_origin"


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        ({"kind": "is", "entity": "banana"}, "no_such_entity"),
        ({"kind": "is"}, "entity_needed"),
        ({"kind": "not-shown", "start": 3}, "no_such_name"),
        ({"kind": "not-shown", "row": 99}, "no_such_pair"),
        ({"kind": "not-shown", "file": 9}, "no_such_pair"),
        ({"kind": "perhaps"}, "invalid_request"),
        ({"kind": "not-shown", "by": "x" * 501}, "invalid_request"),
    ],
)
def test_mistakes_are_refused_and_nothing_is_stored(client, orchard, answer, code):
    place = _question(client)["place"] | {
        name: answer.pop(name) for name in ("file", "row", "start") if name in answer
    }
    assert code_of(_say(client, place=place, **answer)) == code
    assert not answers_path(_i2e(orchard)).exists()


def test_nothing_is_applied_that_was_not_shown(client):
    assert code_of(client.post("/api/review/preview")) == "no_answers"
    assert code_of(client.post("/api/review/apply")) == "no_preview"
    assert code_of(client.post("/api/review/revert", json={})) == "nothing_applied"
    assert code_of(client.post("/api/review/undo", json={"ids": ["0" * 32]})) == "no_such_answer"
    place = _question(client)["place"]
    _say(client, kind="not-shown", place=place)
    assert _preview(client)["state"] == "ready"
    _say(client, kind="wrong", place=place, entity="red")  # now it is of other answers
    assert client.get("/api/review/preview").json()["state"] == "none"
    assert code_of(client.post("/api/review/apply")) == "no_preview"


def test_results_say_what_is_corrected_audited_and_doubtful(client, orchard):
    def marks():
        hits = client.post("/api/search", json={"k": 100}).json()["hits"]
        return {hit["id"]: hit["marks"] for hit in hits}

    before = marks()
    place = _question(client)["place"]
    key = _say(client, kind="not-shown", place=place).json()["key"]
    settings = AuditSettings(checks=3, by="Ann")
    audit(orchard.selection, settings=settings, ask=lambda draw, audited: "yes")
    after = marks()
    assert {k for k in after if "corrected" in after[k]} == {key}
    assert sum("audited" in found for found in after.values()) == 3
    doubtful = {k for k in before if "doubtful" in before[k]}
    hits = client.post("/api/search", json={"k": 100}).json()["hits"]
    low = {hit["id"] for hit in hits if min(e["score"] for e in hit["entities"]) < 0.9}
    assert doubtful == low
