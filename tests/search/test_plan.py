"""How near rows are found under a filter: exact when few pass, else through a graph or lists."""

import numpy as np
import pytest

from indexed import clustered, make_index, unit

DIM, COUNT = 32, 20_000


@pytest.fixture(scope="module")
def world():
    vectors, of = clustered(np.random.default_rng(1), COUNT + 40, DIM)
    return vectors[:COUNT], of[:COUNT], vectors[COUNT:]


@pytest.fixture(scope="module", params=["flat", "hnsw", "ivf"])
def index(request, world, tmp_path_factory):
    return make_index(tmp_path_factory.mktemp(request.param), world[0], kind=request.param)


def _exact(vectors, query, passing, k):
    scores = np.where(passing, vectors.astype(np.float16).astype(np.float32) @ query, -np.inf)
    return np.argsort(-scores, kind="stable")[: min(k, int(passing.sum()))]


def _recall(index, vectors, queries, passing, k=10):
    """Mean share of the exact answer that is found; all rows that are found must pass."""
    shares = []
    for query in queries:
        found = index.nearest(query, k=k, passing=passing)[0]
        assert passing[found].all()
        assert len(found) == min(k, passing.sum())
        exact = _exact(vectors, query, passing, k)
        shares.append(len(set(found) & set(exact)) / max(len(exact), 1))
    return np.mean(shares)


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.0, 0.0001, 0.001, 0.01, 0.1, 0.3, 0.6, 0.9, 1.0])
def test_recall_holds_at_every_selectivity(index, world, share):
    passing = np.random.default_rng(2).random(COUNT) < share
    assert _recall(index, world[0], world[2], passing) >= 0.99 or not passing.any()


@pytest.mark.parametrize("near", [True, False])
def test_recall_holds_where_the_filter_goes_by_clusters(index, world, near):
    vectors, of, _ = world
    queries = unit(vectors[of == 7][:20] + 0.01)
    passing = (of == 7) | (of % 5 == 0) if near else of != 7
    assert _recall(index, vectors, queries, passing) >= 0.99


@pytest.mark.parametrize("k", [1, 100, 3000])
def test_many_results_are_as_good(index, world, k):
    passing = np.random.default_rng(3).random(COUNT) < 0.5
    assert _recall(index, world[0], world[2][:10], passing, k) >= 0.99


def test_the_plan_says_whether_all_were_compared(index, world):
    few = np.arange(COUNT) < 50
    assert index.nearest(world[2][0], k=5, passing=few)[2] == "exact"
    plan = index.nearest(world[2][0], k=5)[2]
    assert plan == ("exact" if index.meta["kind"] == "flat" else "approximate")


def test_equal_vectors_come_in_the_order_of_their_rows(tmp_path):
    index = make_index(tmp_path, np.tile(unit(np.ones((1, 8))), (30, 1)))
    assert index.nearest(np.ones(8), k=5, passing=np.arange(30) >= 20)[0].tolist() == [
        *range(20, 25)
    ]


def test_an_index_gets_lists_where_comparing_all_numbers_would_take_long(monkeypatch, tmp_path):
    monkeypatch.setattr("openmofi.search.write._MOST_COMPARED", 400)
    vectors = unit(np.random.default_rng(0).standard_normal((50, 16)))
    assert make_index(tmp_path, vectors[:25]).meta["kind"] == "flat"
    assert make_index(tmp_path, vectors[:26]).meta["kind"] == "ivf"
    assert make_index(tmp_path, vectors[:, :8]).meta["kind"] == "flat"


def test_vectors_are_stored_once_in_sixteen_bits(index):
    part = index.folder / "part-0001"
    size = (part / "vectors.faiss").stat().st_size
    assert COUNT * DIM * 2 < size < COUNT * DIM * 2 + 4096
    graph = part / "graph.faiss"
    assert not graph.is_file() or graph.stat().st_size < COUNT * 4 * (2 * 32 + 32)
