"""REST: searching, uploads, entities, as a client sees them."""

import pytest

import fruit
from openmofi.search import Index
from orchard import IMAGES, client_of, code_of, write_orchard

JPEG = {"content-type": "image/jpeg"}


@pytest.fixture(scope="module")
def orchard(tmp_path_factory, nano_dir):
    return write_orchard(tmp_path_factory.mktemp("orchard"), nano_dir)


@pytest.fixture(scope="module")
def client(orchard):
    with client_of(orchard.index, reports=[orchard.report]) as client:
        yield client


def _search(client, *terms, **question):
    answer = client.post("/api/search", json={"terms": [*terms], **question})
    assert answer.status_code == 200, answer.text
    return answer.json()


def _upload(client, data):
    answer = client.post("/api/uploads", content=data, headers=JPEG)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_the_server_tells_what_it_can_do(client):
    info = client.get("/api/info").json()
    assert (info["images"], info["entities"], info["generation"]) == (IMAGES, 3, 2)
    assert all(info["has"].values())
    assert client.get("/healthz").json() == {"status": "ok"}


def test_without_terms_it_browses_all_and_counts_all(client):
    found = _search(client, k=5)
    assert (found["plan"], found["total"], len(found["hits"])) == ("browse", IMAGES, 5)
    assert found["facets"]["of"] == IMAGES
    counts = {entity["id"]: entity["count"] for entity in found["facets"]["entities"]}
    assert counts == {"red": 8, "green": 8, "lime": 8}
    assert {t["id"]: t["count"] for t in found["facets"]["types"]} == {"apple": 16, "citrus": 8}


def test_a_hit_names_what_it_shows_and_where_its_images_are(client):
    [hit] = _search(client, {"row": 4}, k=1)["hits"]
    assert (hit["row"], hit["id"], hit["source"]) == (4, "004", "shop0.example")
    [entity] = hit["entities"]
    assert (entity["id"], entity["label"]) == ("green", "Green Apple")
    assert entity["score"] > 0.9
    for address in (hit["thumbnail"], hit["image"]):
        assert client.get(address).status_code == 200


def test_pages_follow_one_another(client):
    whole = [hit["row"] for hit in _search(client, {"row": 0}, k=20)["hits"]]
    second = [hit["row"] for hit in _search(client, {"row": 0}, k=10, offset=10)["hits"]]
    assert second == whole[10:]


def test_an_uploaded_image_finds_its_twin(client, orchard):
    upload = _upload(client, (orchard.images / "005.jpg").read_bytes())
    assert (upload["width"], upload["height"]) == (64, 64)
    found = _search(client, {"upload": upload["id"]}, k=1)
    assert found["hits"][0]["row"] == 5
    assert found["hits"][0]["score"] == pytest.approx(1, abs=1e-3)
    [term] = found["terms"]
    assert client.get(term["thumbnail"]).headers["content-type"] == "image/webp"


def test_a_negative_term_turns_the_order_round(client):
    near = _search(client, {"row": 0}, k=IMAGES)["hits"]
    far = _search(client, {"row": 0, "weight": -1.0}, k=IMAGES)["hits"]
    assert far[0]["row"] != 0
    assert far[-1]["row"] == near[0]["row"] == 0


def test_terms_of_all_kinds_mix(client, orchard):
    upload = _upload(client, fruit.photo("lime", 7))
    terms = {"text": "a lime"}, {"upload": upload["id"]}, {"row": 2}, {"entity": "Lime"}
    found = _search(client, *terms)
    assert [term["kind"] for term in found["terms"]] == ["text", "upload", "row", "entity"]
    assert found["terms"][3]["label"] == "Lime"


@pytest.mark.parametrize(
    ("condition", "rows"),
    [
        ({"entities": ["red"]}, 8),
        ({"not_entities": ["red"]}, 16),
        ({"types": ["citrus"]}, 8),
        ({"sources": ["shop1.example"]}, 12),
        ({"max_text_area": 0.05}, 6),
        ({"min_label_score": 1.0}, 0),
        ({"entities": ["red"], "sources": ["shop1.example"]}, 4),
        ({"lasso": [[0, 0], [1, 0], [1, 1], [0, 1]]}, IMAGES),
    ],
)
def test_filters_say_how_many_rows_pass(client, condition, rows):
    found = _search(client, {"row": 1}, filter=condition, k=100)
    assert found["total"] == len(found["hits"]) == rows


def test_a_least_score_leaves_out_what_is_far(client):
    scores = [hit["score"] for hit in _search(client, {"row": 0}, k=IMAGES)["hits"]]
    least = (scores[3] + scores[4]) / 2
    assert len(_search(client, {"row": 0}, min_score=least)["hits"]) == 4


@pytest.mark.parametrize(
    ("term", "code"),
    [
        ({"row": 10_000}, "no_such_image"),
        ({"entity": "durian"}, "no_such_entity"),
        ({"upload": "0" * 32}, "upload_gone"),
    ],
)
def test_what_is_not_there_is_named(client, term, code):
    answer = client.post("/api/search", json={"terms": [term]})
    assert (answer.status_code, code_of(answer)) == (404, code)


def test_terms_that_cancel_out_are_a_bad_request(client):
    answer = client.post("/api/search", json={"terms": [{"row": 1}, {"row": 1, "weight": -1}]})
    assert (answer.status_code, code_of(answer)) == (400, "bad_request")


def test_an_error_that_nobody_foresaw_is_the_upload_s_own(client, monkeypatch):
    def fail(*_):
        raise TypeError("odd")

    monkeypatch.setattr("openmofi.images.look.decode_image", fail)
    answer = client.post("/api/uploads", content=fruit.photo("lime"), headers=JPEG)
    assert (answer.status_code, code_of(answer)) == (400, "corrupt_image")
    assert "(TypeError)" in answer.text


def test_only_the_latest_uploads_are_remembered(orchard):
    from openmofi.config import ServeSettings

    with client_of(orchard.index, ServeSettings(uploads_kept=2, threads=1)) as client:
        first, *_ = [_upload(client, fruit.photo("red", i)) for i in range(3)]
        assert client.get(first["thumbnail"]).status_code == 404
        assert _upload(client, fruit.photo("red", 0)) == first


@pytest.mark.parametrize(
    ("typed", "first", "name"),
    [
        ("lim", "lime", "Lime"),
        ("APP", "red", "apple"),
        ("apple", "red", "apple"),
        ("apfel", "green", "Äpfel"),
        ("red a", "red", "Red Apple"),
        ("pom", "red", "pomme"),
        ("", "red", "Red Apple"),
    ],
)
def test_entities_are_found_by_the_beginning_of_any_word(client, typed, first, name):
    found = client.get("/api/entities", params={"q": typed}).json()["entities"]
    assert (found[0]["id"], found[0]["name"]) == (first, name)


def test_nothing_is_suggested_for_signs_or_for_entities_without_images(client):
    for typed in ("!?", "plum", "zzz"):
        assert client.get("/api/entities", params={"q": typed}).json()["entities"] == []


def test_an_entity_tells_its_names_and_what_they_also_mean(client):
    entity = client.get("/api/entities/red").json()
    assert (entity["label"], entity["images"]) == ("Red Apple", 8)
    assert sorted(name for names in entity["aliases"].values() for name in names) == [
        "Red Apple",
        "apple",
        "pomme",
    ]
    assert entity["types"] == [{"id": "apple", "label": "apple"}]
    [shared] = entity["names_shared"]
    assert [c["id"] for c in shared["candidates"]] == ["red", "green"]
    assert entity["wikidata"] is None


def test_an_entity_has_siblings_relatives_and_confusions(client):
    entity = client.get("/api/entities/red").json()
    assert {s["id"] for s in entity["siblings"]} == {"green", "lime"}
    assert [r["id"] for r in entity["same_type"]] == ["green"]
    assert all(0 < other["share"] <= 1 for other in entity["confused"])
    assert client.get(entity["thumbnail"]).status_code == 200


def test_an_entity_without_images_is_known_by_name_alone(client):
    plum = client.get("/api/entities/plum").json()
    assert (plum["images"], plum["thumbnail"], plum["siblings"]) == (0, None, [])
    assert client.get("/api/entities/durian").status_code == 404


def test_the_map_gives_every_row_a_place_and_a_class(client):
    info = client.get("/api/map").json()
    answer = client.get("/api/map/points")
    assert info["points"] == IMAGES
    assert len(answer.content) == IMAGES * (4 + 4 + 1)
    classes = answer.content[-IMAGES:]
    counts = {entity["id"]: entity["count"] for entity in info["classes"]}
    assert counts == {"red": 8, "green": 8, "lime": 8}
    assert sorted(set(classes)) == [0, 1, 2]
    again = client.get("/api/map/points", headers={"if-none-match": answer.headers["etag"]})
    assert again.status_code == 304


def test_each_group_is_counted_once_whatever_is_filtered_by(client, monkeypatch):
    counted, count = [], Index.facet
    monkeypatch.setattr(Index, "facet", lambda *given: counted.append(given[2]) or count(*given))
    _search(client, filter={"entities": ["red"], "types": ["apple"], "sources": ["nowhere"]})
    assert sorted(counted) == ["entities", "sources", "types"]


def test_a_group_that_is_filtered_by_is_counted_without_its_filter(client):
    def counted(**more):
        found = client.post("/api/search", json={"facets": True, **more}).json()["facets"]
        return {facet["id"]: facet["count"] for facet in found["entities"]}, found

    every, _ = counted()
    chosen, found = counted(filter={"entities": ["red"]})
    assert chosen == every
    assert {kind["id"] for kind in found["types"]} == {"apple"}
    near = {"terms": [{"row": 0}], "min_score": 0.999}
    total = client.post("/api/search", json=near).json()["total"]
    assert sum(counted(**near)[0].values()) == total < 24
