"""REST: a search that says that nothing in the index looks like the query."""

import pytest

from orchard import client_of, code_of, write_calibration, write_orchard


@pytest.fixture(scope="module")
def orchard(tmp_path_factory, nano_dir):
    return write_orchard(tmp_path_factory.mktemp("orchard"), nano_dir)


@pytest.fixture(scope="module")
def client(orchard):
    write_calibration(orchard.index)
    with client_of(orchard.index) as client:
        yield client


def _search(client, *terms, **question):
    answer = client.post("/api/search", json={"terms": [*terms], **question})
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_a_text_finds_nothing_and_the_nearest_are_there(client):
    answer = _search(client, {"text": "a steam engine"}, k=4)
    assert (answer["found"], answer["p_value"], len(answer["hits"])) == (False, 1.0, 4)
    assert answer["presence"].startswith("100% of queries for absent things look as present")


def test_an_uploaded_copy_is_found(client, orchard):
    data = (orchard.images / "005.jpg").read_bytes()
    headers = {"content-type": "image/jpeg"}
    upload = client.post("/api/uploads", content=data, headers=headers).json()
    assert _search(client, {"upload": upload["id"]})["found"] is True


def test_a_labelled_entity_is_there(client):
    answer = _search(client, {"entity": "red"})
    assert (answer["found"], answer["p_value"]) == (True, None)


def test_an_entity_of_the_knowledge_base_alone_is_searched_by_its_text(client):
    answer = _search(client, {"entity": "Plum"})
    assert answer["found"] is False
    assert answer["hits"]
    assert answer["terms"][0]["label"] == "Plum"
    refused = client.post("/api/search", json={"terms": [{"entity": "durian"}]})
    assert (refused.status_code, code_of(refused)) == (404, "no_such_entity")


def test_of_mixes_and_at_browsing_nobody_can_tell(client):
    for terms in ([], [{"text": "red"}, {"text": "green", "weight": -1}], [{"row": 1}]):
        assert _search(client, *terms)["found"] is None
    assert _search(client, {"text": "red"}, min_score=0.1)["found"] is None


def test_the_rate_may_be_asked_for(client):
    for rate in (0, 1, "half"):
        question = {"terms": [{"text": "red"}], "absent_rate": rate}
        assert client.post("/api/search", json=question).status_code == 422
    assert _search(client, {"text": "red"}, absent_rate=0.99)["found"] is False
    assert _search(client, {"text": "red"}, absent_rate=0.001)["found"] is None
