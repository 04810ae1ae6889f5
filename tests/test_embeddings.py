"""Vectors of other makers: the shapes that pandas, polars, DuckDB and clip-retrieval write."""

import numpy as np
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest

from indexed import make_index, unit
from openmofi.embeddings import read_embeddings
from openmofi.errors import InputError
from openmofi.search import Index
from openmofi.search.exports import export_index

COUNT, DIM = 12, 4


@pytest.fixture
def vectors(rng):
    return unit(rng.standard_normal((COUNT, DIM)))


def _column(vectors, kind, missing=()):
    rows = [None if i in missing else list(map(float, v)) for i, v in enumerate(vectors)]
    return pa.array(rows, kind)


def _ids(count=COUNT):
    return [f"p{i}" for i in range(count)]


_KINDS = {
    "pandas": pa.list_(pa.float64()),
    "polars List": pa.large_list(pa.float32()),
    "polars Array": pa.list_(pa.float32(), DIM),
    "half": pa.list_(pa.float16()),
}


@pytest.mark.parametrize("kind", _KINDS)
@pytest.mark.parametrize("name", ["vector", "embedding", "Image_Embedding", "whatever"])
def test_a_column_of_vectors_is_found_by_its_name_or_type(tmp_path, vectors, kind, name):
    table = pa.table({"id": _ids(), name: _column(vectors, _KINDS[kind])})
    pq.write_table(table, tmp_path / "v.parquet", row_group_size=5)
    found = read_embeddings(tmp_path / "v.parquet")
    assert found.rows["id"].to_pylist() == _ids()
    assert found.vectors == pytest.approx(vectors, abs=1e-3)
    assert found.vectors.dtype == np.float32


@pytest.mark.parametrize("kind", _KINDS)
def test_a_missing_vector_costs_its_row_and_shifts_no_other(tmp_path, vectors, kind):
    column = _column(vectors, _KINDS[kind], missing={0, 3, 4, 11})
    pq.write_table(pa.table({"id": _ids(), "vector": column}), tmp_path / "v.parquet")
    found = read_embeddings(tmp_path / "v.parquet")
    rest = [1, 2, 5, 6, 7, 8, 9, 10]
    assert found.rows["id"].to_pylist() == [f"p{i}" for i in rest]
    assert found.vectors == pytest.approx(vectors[rest], abs=1e-3)
    assert found.refused == {"no_vector": 4}
    index = Index.build(tmp_path / "v.parquet", tmp_path / "index")
    assert index.search(vectors[7], k=1)[0].id == "p7"


def test_a_vector_with_a_missing_number_counts_as_missing(tmp_path, vectors):
    rows = [list(map(float, v)) for v in vectors]
    rows[5][2] = None
    pq.write_table(pa.table({"id": _ids(), "vector": rows}), tmp_path / "v.parquet")
    found = read_embeddings(tmp_path / "v.parquet")
    assert found.rows["id"].to_pylist() == [f"p{i}" for i in range(COUNT) if i != 5]
    assert found.vectors == pytest.approx(np.delete(vectors, 5, 0))


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"vector": [[1.0, 2.0], [3.0]]}, "row 1 of 'vector' has 1 numbers, the first one 2"),
        ({"vector": [None, [3.0], None, [1.0, 2.0]]}, "row 3 of 'vector' has 2 numbers"),
        ({"vector": [b"\0\0", b"\0\1"]}, "column 'vector' of binary; expected a list of numbers"),
        ({"embedding": ["[1, 2]", "[3, 4]"]}, "column 'embedding' of string"),
        ({"vector": pa.array([[], []], pa.list_(pa.float32()))}, "are empty"),
        ({"vector": pa.array([[None], [None]], pa.list_(pa.float32()))}, "holds no vectors"),
        ({"a": [[1.0], [2.0]], "b": [[1.0], [2.0]]}, r"may be vectors \(a, b\)"),
        ({"a": [1.0, 2.0]}, "no column holds vectors"),
    ],
)
def test_what_is_no_vector_is_one_sentence(tmp_path, columns, said):
    pq.write_table(pa.table(columns), tmp_path / "v.parquet")
    with pytest.raises(InputError, match=said):
        read_embeddings(tmp_path / "v.parquet")


def test_feather_and_ids_of_other_types(tmp_path, vectors):
    ids = pa.array(range(7, 7 + COUNT), pa.int32())
    table = {"uid": ids, "url": ["https://x.org/a.jpg"] * COUNT, "emb": vectors.tolist()}
    feather.write_feather(pa.table(table), tmp_path / "v.feather")
    found = read_embeddings(tmp_path / "v.feather")
    assert found.rows["id"].to_pylist() == [str(i) for i in range(7, 7 + COUNT)]
    index = Index.build(tmp_path / "v.feather", tmp_path / "index")
    assert set(index.rows["source"].to_pylist()) == {"x.org"}


def test_an_array_alone_numbers_its_rows(tmp_path, vectors):
    np.save(tmp_path / "v.npy", vectors.astype(np.float64))
    found = read_embeddings(tmp_path / "v.npy")
    assert found.rows["id"].to_pylist() == [str(i) for i in range(COUNT)]
    assert found.vectors == pytest.approx(vectors)


def test_an_array_takes_the_rows_beside_it(tmp_path, vectors):
    np.save(tmp_path / "v.npy", vectors)
    pq.write_table(pa.table({"image_path": _ids(), "text": _ids()}), tmp_path / "v.parquet")
    rows = read_embeddings(tmp_path / "v.npy").rows
    assert rows["id"].to_pylist() == rows["path"].to_pylist() == _ids()
    assert rows["caption"].to_pylist() == _ids()
    pq.write_table(pa.table({"id": _ids(3)}), tmp_path / "v.parquet")
    with pytest.raises(InputError, match=r"12 vectors, but .* 3 rows"):
        read_embeddings(tmp_path / "v.npy")


@pytest.mark.parametrize("inside", ["", "img_emb"])
def test_a_folder_of_clip_retrieval(tmp_path, vectors, inside):
    for folder in ("img_emb", "text_emb", "metadata"):
        (tmp_path / folder).mkdir()
    for number in range(COUNT):  # img_emb_10 comes after img_emb_2
        np.save(tmp_path / f"img_emb/img_emb_{number}.npy", vectors[number : number + 1])
        np.save(tmp_path / f"text_emb/text_emb_{number}.npy", np.ones((1, 9)))
        about = {"image_path": [f"p{number}"], "caption": ["a lime"], "url": [None]}
        pq.write_table(pa.table(about), tmp_path / f"metadata/metadata_{number}.parquet")
    found = read_embeddings(tmp_path / inside)
    assert found.rows["id"].to_pylist() == _ids()
    assert found.vectors == pytest.approx(vectors)
    (tmp_path / "metadata/metadata_3.parquet").unlink()
    with pytest.raises(InputError, match=r"12 \.npy files, but .* 11 Parquet"):
        read_embeddings(tmp_path / inside)


def test_folders_of_parts_are_numbered_through(tmp_path, vectors):
    for place, write in (("npy", np.save), ("parquet", None)):
        (tmp_path / place).mkdir()
        for number, part in enumerate(np.split(vectors, 3)):
            if write:
                write(tmp_path / place / f"{number}.npy", part)
            else:
                table = pa.table({"embedding": part.tolist()})
                pq.write_table(table, tmp_path / place / f"{number}.parquet")
        found = read_embeddings(tmp_path / place)
        assert found.rows["id"].to_pylist() == [str(i) for i in range(COUNT)]
        assert found.vectors == pytest.approx(vectors)
    np.save(tmp_path / "npy/last.npy", np.ones((1, DIM)))
    assert read_embeddings(tmp_path / "npy").vectors[:-1] == pytest.approx(vectors)
    np.save(tmp_path / "npy/3.npy", np.ones((2, DIM + 1)))
    with pytest.raises(InputError, match=r"vectors of 5 numbers, the files before it of 4"):
        read_embeddings(tmp_path / "npy")


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.ones(4), r"shape \(4,\); expected numbers of shape \(vectors, dim\)"),
        (np.array([["a"]]), "expected numbers"),
        (np.array([{}], object), "not a readable .npy file"),
        (np.ones((0, 4)), "holds no vectors"),
    ],
)
def test_an_array_that_holds_no_vectors_is_one_sentence(tmp_path, array, said):
    np.save(tmp_path / "v.npy", array, allow_pickle=True)
    with pytest.raises(InputError, match=said):
        read_embeddings(tmp_path / "v.npy")


def test_a_folder_without_vectors_says_what_is_expected(tmp_path):
    (tmp_path / "knn.index").write_bytes(b"IxFl")
    with pytest.raises(InputError, match=r"expected .npy, .parquet .* faiss index, give the vec"):
        read_embeddings(tmp_path)
    with pytest.raises(InputError, match="no file"):
        read_embeddings(tmp_path / "nothing")


def test_an_index_reads_what_an_index_exported(tmp_path, vectors):
    labels = [["red", "lime"][: i % 3] for i in range(COUNT)]
    scores = [[0.5] * len(names) for names in labels]
    url = ["https://x.org/a"] * COUNT
    first = make_index(tmp_path, vectors, entities=labels, label_scores=scores, url=url)
    export_index(first, str(tmp_path / "x.parquet"), to="parquet")
    again = Index.build(tmp_path / "x.parquet", tmp_path / "again")
    kept = ("id", "shard", "path", "offset", "size", "caption", "url", "source", "entities")
    assert again.rows.select(kept).equals(first.rows.select(kept))
    assert again.rows["label_scores"].equals(first.rows["label_scores"])
    rows = np.arange(COUNT)
    assert again.vectors(rows) == pytest.approx(first.vectors(rows), abs=1e-3)
    assert again.root_of(3) == first.root_of(3)
    assert again.meta["model"] == first.meta["model"]
