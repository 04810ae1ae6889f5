"""An index in other systems' hands: the same rows, vectors and labels come back out."""

import numpy as np
import pyarrow.parquet as pq
import pytest

from indexed import make_index, unit
from openmofi.errors import InputError
from openmofi.search import Index
from openmofi.search.exports import export_index

pytestmark = pytest.mark.slow

COUNT = 2300  # three batches


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    rng = np.random.default_rng(9)
    labels = [[] if i % 3 == 0 else ["red", "lime"][: i % 3] for i in range(COUNT)]
    scores = [[0.5] * len(names) for names in labels]
    vectors = unit(rng.standard_normal((COUNT, 8)))
    folder = tmp_path_factory.mktemp("exports")
    return make_index(folder, vectors, entities=labels, label_scores=scores).delete([4, 7])


def _expected(index):
    rows = np.flatnonzero(index.live)
    return {hit.id: (hit, index.vectors(np.array([hit.row]))[0]) for hit in index.hits(rows)}


def _agrees(index, found):
    expected = _expected(index)
    assert {row["id"] for row in found} == {*expected}
    for row in found[::97]:
        hit, vector = expected[row["id"]]
        assert np.asarray(row["vector"]) == pytest.approx(vector, abs=1e-6)
        assert (tuple(row["entities"]), row["caption"]) == (hit.entities, hit.caption)
        assert tuple(row["labels"]) == hit.entities  # there is no knowledge base


def test_parquet(index, tmp_path):
    assert export_index(index, str(tmp_path / "x.parquet"), to="parquet") == COUNT - 2
    _agrees(index, pq.read_table(tmp_path / "x.parquet").to_pylist())
    with pytest.raises(InputError, match="exists"):
        export_index(index, str(tmp_path / "x.parquet"), to="parquet")
    assert [path.name for path in tmp_path.iterdir()] == ["x.parquet"]


def test_lance(index, tmp_path):
    lancedb = pytest.importorskip("lancedb")
    export_index(index, str(tmp_path / "x"), to="lance", name="fruit")
    table = lancedb.connect(str(tmp_path / "x")).open_table("fruit")
    _agrees(index, table.to_arrow().to_pylist())
    nearest = table.search(index.vectors(np.array([40]))[0]).limit(1).to_list()
    assert nearest[0]["id"] == "r40"
    with pytest.raises(InputError, match="has a table 'fruit' already"):
        export_index(index, str(tmp_path / "x"), to="lance", name="fruit")


# Of qdrant_client's own local mode, which Python 3.13 sees leave a database open.
@pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <sqlite3.Connection:pytest.PytestUnraisableExceptionWarning"
)
def test_qdrant(index, tmp_path):
    qdrant = pytest.importorskip("qdrant_client")
    export_index(index, str(tmp_path / "x"), to="qdrant")
    client = qdrant.QdrantClient(path=str(tmp_path / "x"))
    points = client.scroll("openmofi", limit=COUNT, with_vectors=True)[0]
    _agrees(index, [{**point.payload, "vector": point.vector} for point in points])
    query = index.vectors(np.array([40]))[0].tolist()
    assert client.query_points("openmofi", query, limit=1).points[0].id == 40
    client.close()
    with pytest.raises(InputError, match="has a collection 'openmofi' already"):
        export_index(index, str(tmp_path / "x"), to="qdrant")


@pytest.mark.parametrize(("module", "to"), [("lancedb", "lance"), ("qdrant_client", "qdrant")])
def test_a_missing_package_is_named(index, tmp_path, monkeypatch, module, to):
    monkeypatch.setitem(__import__("sys").modules, module, None)
    with pytest.raises(InputError, match=rf"pip install 'openmofi\[{to}\]'"):
        export_index(Index.open(index.folder), str(tmp_path / "x"), to=to)


@pytest.mark.parametrize("to", ["parquet", "lance", "qdrant"])
def test_nothing_is_not_exported(index, tmp_path, to):
    empty = make_index(tmp_path, unit(np.ones((2, 8))), offset=[0, 1]).delete([0, 1])
    with pytest.raises(InputError, match="holds no images"):
        export_index(empty, str(tmp_path / "x"), to=to)


def test_a_server_that_does_not_answer_is_named(index):
    pytest.importorskip("qdrant_client")
    with pytest.raises(InputError, match="does not answer"):
        export_index(index, "http://127.0.0.1:9", to="qdrant")
