"""Index and search: exact against brute force, entity by entity, replaced at once."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import fruit
import openmofi.search
import openmofi.tag
from indexed import write_embeddings
from openmofi.config import IndexSettings
from openmofi.embed import embed
from openmofi.embeddings import read_embeddings
from openmofi.errors import InputError
from openmofi.files import folders
from openmofi.kb import build_kb
from openmofi.model import load_model
from openmofi.search import Index, search

DIM = 16


def _embeddings(path, vectors, entities=None):
    return write_embeddings(path, vectors, **({"entities": entities} if entities else {}))


@pytest.fixture
def vectors(rng):
    vectors = rng.standard_normal((300, DIM)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture
def entities(rng):
    names = ["red", "green", "lime", "plum"]
    return [sorted(set(rng.choice(names, size=rng.integers(0, 3)))) for _ in range(300)]


def _brute(stored, query, rows, k):
    scores = stored[rows] @ query
    order = np.argsort(-scores, kind="stable")[:k]
    return np.asarray(rows)[order].tolist()


@pytest.mark.parametrize("kind", ["flat", "hnsw"])
def test_the_nearest_are_those_of_brute_force(tmp_path, vectors, rng, kind):
    source = _embeddings(tmp_path / "e.parquet", vectors)
    index = Index.build(source, tmp_path / "i", IndexSettings(kind=kind))
    stored = read_embeddings(source).vectors
    for query in rng.standard_normal((20, DIM)).astype(np.float32):
        found = [hit.row for hit in index.search(query, k=5)]
        assert found == _brute(stored, query, range(300), 5)


@pytest.mark.parametrize("kind", ["flat", "hnsw"])
def test_a_search_within_an_entity_is_exact_and_complete(tmp_path, vectors, entities, rng, kind):
    source = _embeddings(tmp_path / "e.parquet", vectors, entities)
    index = Index.build(source, tmp_path / "i", IndexSettings(kind=kind))
    stored, query = read_embeddings(source).vectors, rng.standard_normal(DIM).astype(np.float32)
    for entity in ("red", "green", "lime", "plum"):
        rows = [i for i, names in enumerate(entities) if entity in names]
        assert index.rows_of(entity).tolist() == rows
        hits = index.search(query, k=7, entity=entity)
        assert [hit.row for hit in hits] == _brute(stored, query, rows, 7)
        assert all(entity in hit.entities for hit in hits)
    assert len(index.search(query, k=10_000, entity="red")) == len(index.rows_of("red"))


def test_typical_images_are_nearest_to_the_mean(tmp_path, vectors, entities):
    index = Index.build(_embeddings(tmp_path / "e.parquet", vectors, entities), tmp_path / "i")
    rows = index.rows_of("lime")
    mean = index.vectors(rows).mean(0)
    scores = [hit.score for hit in index.search_entity("lime", k=1000)]
    assert scores == sorted(scores, reverse=True)
    assert index.search_entity("lime", k=1)[0].row == rows[np.argmax(index.vectors(rows) @ mean)]
    assert index.search_entity("durian") == []


def test_a_hit_says_where_its_image_lies(tmp_path, vectors):
    index = Index.build(_embeddings(tmp_path / "e.parquet", vectors), tmp_path / "i")
    [hit] = index.search(vectors[42], k=1)
    assert (hit.row, hit.id, hit.caption, hit.shard) == (42, "r42", "caption 42", "a.tar")
    assert hit.score == pytest.approx(1.0, abs=1e-3)
    assert (hit.source, hit.url, hit.label_scores, hit.text_area) == ("a.tar", "", (), None)


def test_more_results_than_rows_gives_all_rows_once(tmp_path, vectors):
    index = Index.build(_embeddings(tmp_path / "e.parquet", vectors[:7]), tmp_path / "i")
    assert sorted(hit.row for hit in index.search(vectors[0], k=50)) == list(range(7))


@pytest.mark.parametrize("atomic", [True, False])
def test_a_new_index_replaces_the_old_one(tmp_path, vectors, monkeypatch, atomic):
    if not atomic:
        monkeypatch.setattr(folders, "_exchange", lambda *_: False)
    for count in (10, 20):
        Index.build(_embeddings(tmp_path / "e.parquet", vectors[:count]), tmp_path / "i")
    assert len(Index.open(tmp_path / "i")) == 20
    assert sorted(path.name for path in tmp_path.iterdir()) == ["e.parquet", "i"]


def test_a_build_that_dies_leaves_the_old_index(tmp_path, vectors, monkeypatch):
    source = _embeddings(tmp_path / "e.parquet", vectors[:10])
    Index.build(source, tmp_path / "i")

    def die(*_, **__):
        raise OSError("No space left on device")

    monkeypatch.setattr("openmofi.search.part.pq.write_table", die)
    with pytest.raises(OSError, match="No space"):
        Index.build(source, tmp_path / "i")
    assert len(Index.open(tmp_path / "i")) == 10


def test_a_folder_of_something_else_is_never_replaced(tmp_path, vectors):
    photos = fruit.write_listing(tmp_path / "photos")
    source = _embeddings(tmp_path / "e.parquet", vectors)
    with pytest.raises(InputError, match="is not an index"):
        Index.build(source, photos)
    assert (photos / "000.jpg").is_file()


@pytest.mark.parametrize(
    "part",
    ["part-0001/vectors.faiss", "part-0001/rows.parquet", "part-0001/part.json", "meta.json"],
)
def test_a_damaged_index_says_so(tmp_path, vectors, part):
    Index.build(_embeddings(tmp_path / "e.parquet", vectors), tmp_path / "i")
    (tmp_path / "i" / part).write_bytes(b"damage")
    with pytest.raises(InputError, match="is damaged"):
        Index.open(tmp_path / "i")


# ---- with a model, a knowledge base and images ---------------------------------------------


@pytest.fixture(scope="module")
def shop(tmp_path_factory, nano_dir):
    """Photos, their index and a knowledge base; the entities are written in by hand."""
    folder = tmp_path_factory.mktemp("shop")
    build_kb(fruit.write_catalogue(folder), out=folder / "kb")
    photos = fruit.write_listing(folder / "photos")
    embed(str(nano_dir), photos, out=folder / "plain.parquet")
    table = pq.read_table(folder / "plain.parquet")
    labels = pa.array([[fruit.NAMES[i % 3]] for i in range(12)], pa.list_(pa.string()))
    at = table.column_names.index("entities")
    table = table.set_column(at, table.schema.field("entities"), labels)
    pq.write_table(table, folder / "e.parquet")
    Index.build(folder / "e.parquet", folder / "index")
    return folder


def test_an_image_finds_itself_first(shop):
    hits = search(shop / "index", image=shop / "photos/007.jpg", k=3)
    assert (hits[0].path, hits[0].score) == ("007.jpg", pytest.approx(1.0, abs=1e-3))


def test_an_entity_is_found_by_id_and_by_any_of_its_names(shop):
    by_id = search(shop / "index", entity="red")
    assert {hit.entities for hit in by_id} == {("red",)}
    for name in ("red apple", "POMME", "apple"):
        assert search(shop / "index", entity=name, kb=shop / "kb") == by_id


def test_text_and_image_can_be_asked_within_an_entity(shop):
    for question in ({"text": "a fruit"}, {"image": shop / "photos/000.jpg"}):
        hits = search(shop / "index", entity="lime", k=9, **question)
        assert [hit.entities for hit in hits] == [("lime",)] * 4


def test_a_model_of_another_width_is_refused(shop, tmp_path, vectors):
    Index.build(_embeddings(tmp_path / "e.parquet", vectors), tmp_path / "i")
    model = load_model(str(pq.read_schema(shop / "e.parquet").metadata[b"openmofi.model"].decode()))
    with pytest.raises(InputError, match=f"vectors of {model.dim} numbers, the index holds {DIM}"):
        search(tmp_path / "i", text="apple", model=model)
    with pytest.raises(InputError, match="does not say which model made it"):
        search(tmp_path / "i", text="apple")


@pytest.mark.parametrize("name", openmofi.tag.__all__)
def test_what_tagging_holds_is_found_under_its_former_place(name):
    assert getattr(openmofi.search, name) is getattr(openmofi.tag, name)
