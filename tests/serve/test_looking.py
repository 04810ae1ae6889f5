"""REST: tagging, provenance, the data, the reports, and images that are not where they were."""

import shutil
from dataclasses import replace

import pytest

from indexed import make_index, unit, write_embeddings
from labelled import candidate, pair
from openmofi.config import SelectSettings
from openmofi.search import Index
from openmofi.search.changes import set_map
from openmofi.select import select
from openmofi.serve.library import Library
from openmofi.serve.names import EntityNames
from openmofi.serve.neighbours import confusions
from openmofi.serve.points import MapPoints
from openmofi.serve.provenance import describe
from openmofi.serve.verdicts import Verdict
from orchard import IMAGES, client_of, code_of, wait_until, write_orchard

RED = 0
"""A row whose image is of a red apple, as its text says, too."""
GREEN = 1
"""A row whose text prefers the red apple, and whose image is of a green one."""


@pytest.fixture(scope="module")
def orchard(tmp_path_factory, nano_dir):
    return write_orchard(tmp_path_factory.mktemp("orchard"), nano_dir)


@pytest.fixture(scope="module")
def client(orchard):
    with client_of(orchard.index, reports=[orchard.report.parent]) as client:
        yield client


def _why(client, row):
    answer = client.get(f"/api/images/{row}/provenance")
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_an_image_is_tagged_with_its_evidence(client):
    answer = client.post("/api/tag", json={"row": 3, "k": 2}).json()
    assert len(answer["tags"]) == 2
    best = answer["tags"][0]
    assert best["evidence"]["text_score"] == pytest.approx(best["score"])
    assert all(best["id"] in {e["id"] for e in h["entities"]} for h in best["evidence"]["nearest"])
    assert answer["abstains"] is False


def test_an_upload_is_tagged_as_the_same_image_of_the_index(client, orchard):
    data = (orchard.images / "003.jpg").read_bytes()
    upload = client.post("/api/uploads", content=data).json()
    tags = [client.post("/api/tag", json=q).json() for q in ({"row": 3}, {"upload": upload["id"]})]
    assert [t["id"] for t in tags[0]["tags"]] == [t["id"] for t in tags[1]["tags"]]


def test_a_mention_has_its_candidates_and_all_their_terms(client):
    found = _why(client, GREEN)
    [mention] = found["mentions"]
    assert found["caption"][mention["start"] : mention["end"]] == mention["surface"] == "apple"
    assert [c["label"] for c in mention["candidates"]] == ["Green Apple", "Red Apple"]
    green = mention["candidates"][0]
    assert (green["clip_z"], green["text_score"]) == (3.0, pytest.approx(0.2))
    assert mention["nil"]["text_score"] == pytest.approx(0.1)
    assert sum(c["score"] for c in mention["candidates"]) + mention["nil"]["score"] == (
        pytest.approx(1)
    )


def test_text_and_image_may_choose_differently(client):
    [mention] = _why(client, GREEN)["mentions"]
    assert (mention["text_choice"], mention["picture_choice"]) == ("red", "green")
    assert mention["choice"] == "green"
    [mention] = _why(client, RED)["mentions"]
    assert {mention["text_choice"], mention["picture_choice"], mention["choice"]} == {"red"}


def test_a_text_that_rather_means_none_of_them_chooses_none():
    labels = pair("a", candidate("red", text=0.2), candidate("green", text=0.1))
    card = {"settings": {"order": "joint"}, "weights": {"text": 1.0}, "threshold": 0.0}
    found = describe(0, Verdict(labels, (), None, 0, 0), card, lambda entity: (entity, ""), None)
    assert found.mentions[0].text_choice is None
    assert "the caption alone rather means none of the 2, .70" in found.explanation[0]


def test_the_choice_is_explained_in_sentences(client):
    first, last = _why(client, GREEN)["explanation"]
    assert "the caption alone prefers Red Apple, .70" in first
    assert "the image agrees more with Green Apple, z 3.0 against -0.4" in first
    assert first.endswith("above the threshold .60: kept.")
    assert last == "The image is kept as Green Apple."


def test_the_verdict_says_by_which_numbers(client):
    found = _why(client, RED)
    assert (found["kept"], found["refused_as"]) == (True, None)
    assert found["weights"] == {"text": 0.9, "clip_z": 4.0, "nil_z": 1.6}
    assert (found["threshold"], found["threshold_on"]) == (pytest.approx(0.6), "score")
    assert (found["width"], found["text_boxes"]) == (64, [[0, 0, 0.5, 0.5]])


def test_the_funnel_adds_up_and_means_something(client):
    data = client.get("/api/data").json()
    assert data["pairs"] == IMAGES + 2
    assert {step["reason"]: step["count"] for step in data["funnel"]} == {
        "no_mention": 1,
        "picture_disagrees": 1,
    }
    assert data["pairs"] - sum(step["count"] for step in data["funnel"]) == data["kept_images"]
    assert all(step["meaning"] for step in data["funnel"])


def test_a_refused_pair_is_shown_and_explained(client):
    found = client.get("/api/data/refused", params={"reason": "picture_disagrees"}).json()
    assert found["total"] == 1
    [row] = found["rows"]
    assert (row["key"], row["caption"]) == ("099", "apple 99")
    assert client.get(row["thumbnail"]).headers["content-type"] == "image/webp"
    why = client.get(f"/api/refused/{row['number']}/provenance").json()
    assert (why["kept"], why["refused_as"]) == (False, "picture_disagrees")
    assert why["mentions"][0]["choice"] is None
    assert "does not look like" in why["explanation"][-1]


def test_a_pair_without_mention_or_image_is_explained_too(client):
    [row] = client.get("/api/data/refused", params={"reason": "no_mention"}).json()["rows"]
    why = client.get(f"/api/refused/{row['number']}/provenance").json()
    assert (why["mentions"], len(why["explanation"])) == ([], 1)
    assert code_of(client.get(row["thumbnail"])) == "image_missing"


@pytest.mark.parametrize(
    "path",
    [
        "/api/data/refused?reason=none_such",
        "/api/refused/999/provenance",
        "/api/refused/999/thumbnail",
        "/api/images/999/provenance",
        "/evaluation/none.html",
    ],
)
def test_what_was_never_there_is_404(client, path):
    assert client.get(path).status_code == 404


def test_a_report_is_served_where_it_can_do_no_harm(client):
    listed = client.get("/api/evaluation").json()
    assert listed["reports"] == [{"name": "fruit-test", "url": "/evaluation/fruit-test.html"}]
    assert listed["results"] == {"fruit-test": {"map": 0.5}}
    answer = client.get("/evaluation/fruit-test.html")
    assert "<h1>Scores</h1>" in answer.text
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("sandbox allow-scripts; default-src 'none'")
    assert "allow-same-origin" not in policy


@pytest.mark.parametrize("data", [b"{", b"\xff", b"[" * 100_000, b'"\\ud800"', b""])
def test_damaged_numbers_of_a_report_are_left_out(orchard, tmp_path, data):
    report = shutil.copytree(orchard.report.parent, tmp_path / "report")
    (report / "results.json").write_bytes(data)
    with client_of(orchard.index, reports=[report]) as client:
        found = client.get("/api/evaluation").json()
        assert (len(found["reports"]), found["results"]) == (1, None)


def test_an_image_that_is_gone_is_404_with_the_reason(orchard, tmp_path):
    kept = orchard.images / "002.jpg"
    moved = shutil.move(kept, tmp_path / "002.jpg")
    try:
        with client_of(orchard.index) as client:
            for path in ("/file", "/thumbnail?side=512"):
                answer = client.get("/api/images/2" + path)
                assert (answer.status_code, code_of(answer)) == (404, "image_missing")
            about = client.get("/api/images/2").json()  # its label can be explained all the same
            assert (about["caption"], about["width"]) == ("lime 2", None)
    finally:
        shutil.move(moved, kept)


def test_a_thumbnail_is_made_once_and_asked_for_once(orchard):
    with client_of(orchard.index) as client:
        [hit] = client.post("/api/search", json={"terms": [{"row": 9}], "k": 1}).json()["hits"]
        first = client.get(hit["thumbnail"])
        assert "immutable" in first.headers["cache-control"]
        assert client.get(hit["thumbnail"]).content == first.content
        again = client.get(hit["thumbnail"], headers={"if-none-match": first.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        other = client.get("/api/images/9/thumbnail?v=older")
        assert other.headers["cache-control"] == "private, no-cache"


def test_thumbnails_fit_their_side_and_are_not_blown_up(client):
    import io

    from PIL import Image

    for side in (128, 256, 512):
        data = client.get(f"/api/images/0/thumbnail?side={side}").content
        assert Image.open(io.BytesIO(data)).size == (64, 64)
    assert client.get("/api/images/0/thumbnail?side=300").status_code == 422


def test_an_index_alone_serves_what_it_can(orchard, tmp_path):
    bare = _without(orchard, tmp_path, "model", "kb", "selection")
    with client_of(bare) as client:
        has = client.get("/api/info").json()["has"]
        assert has == dict.fromkeys(has, False) | {"map": True}
        hits = client.post("/api/search", json={"terms": [{"row": 0}]}).json()["hits"]
        assert hits[0]["entities"][0]["label"] == "Red Apple"
        assert client.get("/api/entities?q=lim").json()["entities"][0]["id"] == "lime"
        assert client.get("/api/entities/lime").json()["names_shared"] == []
        codes = [
            code_of(client.post("/api/search", json={"terms": [{"text": "apple"}]})),
            code_of(client.post("/api/uploads", content=b"x")),
            code_of(client.get("/api/data")),
        ]
        assert codes == ["no_encoder", "no_encoder", "no_data"]


def test_an_index_of_an_image_encoder_is_searched_by_images_alone(tmp_path, rng):
    import json

    from transformers import Dinov2Config, Dinov2Model

    config = Dinov2Config(
        hidden_size=24, num_hidden_layers=1, num_attention_heads=2, image_size=32, patch_size=16
    )
    Dinov2Model(config).save_pretrained(tmp_path / "model")
    size = {"size": {"height": 32, "width": 32}, "do_center_crop": False}
    (tmp_path / "model/preprocessor_config.json").write_text(json.dumps(size))
    vectors = unit(rng.standard_normal((5, 24)))
    write_embeddings(tmp_path / "e.parquet", vectors, model=str(tmp_path / "model"))
    with client_of(Index.build(tmp_path / "e.parquet", tmp_path / "index")) as client:
        has = client.get("/api/info").json()["has"]
        assert (has["text"], has["upload"]) == (False, True)
        answer = client.post("/api/search", json={"terms": [{"text": "apple"}]})
        assert answer.status_code == 400
        assert "reads images alone" in answer.json()["error"]["message"]


@pytest.mark.parametrize("deleted", [[], [0, 1, 2]])
def test_an_index_without_labels_or_images_is_served_too(tmp_path, rng, deleted):
    labels = [["red"]] * 3 if deleted else [[]] * 3
    index = make_index(tmp_path, unit(rng.standard_normal((3, 8))), entities=labels)
    index = index.delete(deleted) if deleted else index
    with client_of(index) as client:
        for path in ("/api/entities", "/api/entities?q=r"):
            assert client.get(path).json() == {"entities": []}
        assert client.get("/api/info").json()["entities"] == 0
        found = client.post("/api/search", json={}).json()
        assert (len(found["hits"]), found["facets"]["entities"]) == (3 - len(deleted), [])


def test_scores_that_are_not_one_per_label_are_left_out(orchard):
    library = Library(Index.open(orchard.index), model=None, kb=None)
    [hit] = library.index.hits([0])
    assert hit.label_scores
    for scores in ((), (0.5, 0.5)):
        [shown] = library.hits([replace(hit, label_scores=scores)])
        assert [(e.id, e.score) for e in shown.entities] == [("red", None)]


def test_a_name_that_begins_so_comes_before_one_with_a_later_word(tmp_path, rng):
    labels = [["old lime"], ["old lime"], ["lime"]]
    index = make_index(tmp_path, unit(rng.standard_normal((3, 8))), entities=labels)
    found = EntityNames(Library(index, model=None, kb=None)).find("lim", k=2)
    assert [suggestion.entity for suggestion in found] == ["lime", "old lime"]


def test_an_image_is_not_its_own_neighbour(tmp_path, rng):
    vectors = unit(1 + 0.1 * rng.standard_normal((15, 8)))
    index = make_index(tmp_path, vectors, entities=[["red"], *[["lime"]] * 14])
    assert confusions(index, "red", k=3) == [("lime", 1.0)]


def test_a_point_has_the_colour_of_its_images_first_label(tmp_path, rng):
    vectors = unit(rng.standard_normal((3, 8)))
    index = make_index(tmp_path, vectors, entities=[["red", "lime"], ["red", "lime"], ["lime"]])
    set_map(index, rng.random((3, 2), "float32"))
    points = MapPoints(Library(Index.open(index.folder), model=None, kb=None))
    assert points.classes == [("red", 2), ("lime", 1)]


def test_an_index_without_a_map_says_how_to_make_one(orchard, tmp_path):
    with client_of(_without(orchard, tmp_path, "map")) as client:
        answer = client.get("/api/map/points")
        assert (answer.status_code, code_of(answer)) == (404, "no_map")
        lasso = {"filter": {"lasso": [[0, 0], [1, 0], [1, 1]]}}
        assert client.post("/api/search", json=lasso).status_code == 400


def _without(orchard, folder, *names):
    """Copies the index, less what its meta.json says of some things."""
    import json

    copy = shutil.copytree(orchard.index, folder / "copy")
    meta = json.loads((copy / "meta.json").read_text())
    meta |= {name: None if name == "map" else "" for name in names}
    (copy / "meta.json").write_text(json.dumps(meta))
    return copy


def test_a_change_by_another_process_is_seen_within_a_second(orchard, tmp_path, monkeypatch):
    from openmofi.serve import served

    monkeypatch.setattr(served, "_LOOK_AGAIN", 0.0)
    copy = shutil.copytree(orchard.index, tmp_path / "copy")
    with client_of(copy) as client:
        before = client.get("/api/info").json()
        Index.open(copy).delete([0, 1])
        wait_until(lambda: client.get("/api/info").json()["generation"] == 3)
        assert before["images"] - client.get("/api/info").json()["images"] == 2
        assert client.get("/api/images/0").status_code == 404
        assert client.get("/api/map").json()["points"] == IMAGES - 2


@pytest.mark.parametrize(
    ("order", "threshold_on", "choice"),
    [("text-first", "clip_z", "red"), ("caption-match", "clip_z", "red")],
)
def test_other_orders_choose_by_the_text(orchard, tmp_path, order, threshold_on, choice):
    settings = SelectSettings(order=order, threshold=-9.0, min_images=1)
    data = select(orchard.images / "i2e", name=order, settings=settings).out
    index = shutil.copytree(orchard.index, tmp_path / "copy")
    for part in index.glob("part-*/part.json"):
        part.write_text(part.read_text().replace(str(orchard.selection), str(data)))
    with client_of(index, data=data) as client:
        found = _why(client, GREEN)
        assert found["threshold_on"] == threshold_on
        assert found["mentions"][0]["choice"] == choice
        assert found["explanation"][-1] == "The image is kept as Red Apple."


def test_a_selection_that_was_made_again_is_read_again(tmp_path, nano_dir):
    own = write_orchard(tmp_path, nano_dir)
    i2e, weights = own.selection.parent.parent, str(tmp_path / "weights.json")
    with client_of(own.index) as client:
        assert client.get("/api/data").json()["kept_images"] == IMAGES
        select(
            i2e, settings=SelectSettings(threshold=0.6, min_images=1, max_images=3, weights=weights)
        )
        assert client.get("/api/data").json()["kept_images"] == 9
        shutil.rmtree(own.selection)
        assert code_of(client.get("/api/data")) == "no_data"


def test_the_interface_says_that_a_token_is_wanted(orchard):
    with client_of(orchard.index, token="word") as client:
        schema = client.get("/openapi.json", headers={"authorization": "Bearer word"}).json()
    assert schema["components"]["securitySchemes"]["HTTPBearer"]["scheme"] == "bearer"
