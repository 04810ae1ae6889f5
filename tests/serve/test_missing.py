"""REST: what the catalogue lacks. Proposals, decisions, the rows to build, and what is refused."""

import csv
import io

import pytest

from openmofi.review.missing import missing_folder
from openmofi.review.missing.decisions import holding_decisions
from orchard import client_of, code_of, together, write_orchard
from proposed import write_proposed


@pytest.fixture
def orchard(tmp_path, nano_dir):
    return write_orchard(tmp_path, nano_dir)


@pytest.fixture
def folder(orchard):
    return write_proposed(orchard)


@pytest.fixture
def client(orchard, folder):
    with client_of(orchard.index) as client:
        yield client


def _decide(client, **given):
    return client.post("/api/review/missing", json=given)


def test_proposals_come_with_images_and_what_is_like_them(client):
    found = client.get("/api/review/missing").json()
    assert (found["total"], found["accepted"], found["rejected"]) == (2, 0, 0)
    first = found["proposals"][0]
    assert (first["id"], first["aliases"]) == ("new:durian", ["king of fruit"])
    assert first["nearest"][0]["label"] == "Lime"
    assert first["meanings"] == [{"id": "plum", "label": "Plum"}]
    assert len(first["examples"]) == 2  # one lies in a labels file that is gone
    shown = client.get(first["examples"][0]["thumbnail"])
    assert shown.headers["content-type"] == "image/webp"


def test_a_proposal_is_accepted_undone_and_exported(client, folder):
    given = {"kind": "accept", "proposal": "new:durian", "name": "Durian", "by": "Ann"}
    stored = _decide(client, **given, description="a spiky fruit")
    assert stored.status_code == 201, stored.text
    assert holding_decisions(folder)["new:durian"].by == "Ann"
    left = client.get("/api/review/missing?undecided=true").json()
    assert [one["id"] for one in left["proposals"]] == ["new:fig"]
    assert client.get("/api/review/missing").json()["proposals"][0]["decision"]["name"] == "Durian"
    answer = client.get("/api/review/missing.csv")
    assert "new.csv" in answer.headers["content-disposition"]
    [row] = csv.DictReader(io.StringIO(answer.text))
    assert (row["name"], row["aliases"]) == ("Durian", "king of fruit")
    undone = client.post("/api/review/missing/undo", json={"ids": [stored.json()["id"]]})
    assert undone.json() == {"undone": 1}
    assert client.get("/api/review/missing.csv").text.count("\n") == 1


@pytest.mark.parametrize(
    ("given", "status", "code"),
    [
        ({"kind": "accept", "proposal": "new:kiwi"}, 404, "no_such_proposal"),
        ({"kind": "maybe", "proposal": "new:fig"}, 422, "invalid_request"),
        ({"kind": "accept", "proposal": "new:fig", "aliases": ["a|b"]}, 422, "invalid_request"),
        ({"kind": "accept", "proposal": "new:fig", "path": "/etc"}, 422, "invalid_request"),
        ({"kind": "accept", "proposal": "new:fig", "name": "!!"}, 400, "bad_request"),
    ],
)
def test_what_cannot_be_decided_is_refused(client, folder, given, status, code):
    answer = _decide(client, **given)
    assert (answer.status_code, code_of(answer)) == (status, code), answer.text
    assert holding_decisions(folder) == {}


def test_what_was_not_decided_cannot_be_undone(client):
    answer = client.post("/api/review/missing/undo", json={"ids": ["new:fig"]})
    assert (answer.status_code, code_of(answer)) == (404, "no_such_decision")


def test_without_proposals_the_page_is_told_how_to_make_them(orchard):
    with client_of(orchard.index) as client:
        for path in ("/api/review/missing", "/api/review/missing.csv"):
            answer = client.get(path)
            assert (answer.status_code, code_of(answer)) == (404, "no_proposals")
        assert _decide(client, kind="accept", proposal="x").status_code == 404


def test_people_decide_at_once_and_nothing_is_lost(client, folder):
    def decide(number):
        given = {"kind": "reject", "proposal": "new:fig", "by": f"p{number}"}
        return [_decide(client, **given).json()["id"] for _ in range(5)]

    ids = [one for some in together(6, decide) for one in some]
    assert len(set(ids)) == 30
    assert len((folder / "decisions.jsonl").read_text().splitlines()) == 30


def test_decisions_need_the_token(orchard, folder):
    with client_of(orchard.index, token="secret") as client:
        assert _decide(client, kind="accept", proposal="new:fig").status_code == 401
        assert client.get("/api/review/missing.csv").status_code == 401


def test_damaged_proposals_are_one_sentence(client, folder):
    (folder / "proposals.json").write_text("[{")
    answer = client.get("/api/review/missing")
    assert answer.status_code == 400
    assert "is damaged" in answer.json()["error"]["message"]


def test_they_are_looked_for_beside_the_labels(orchard, folder):
    assert folder == missing_folder(orchard.selection.parents[1], "default")
