"""Building graphs and lists: an interrupted graph goes on, and only with the same vectors."""

import numpy as np
import pytest

from indexed import clustered, make_index
from openmofi.progress import Progress
from openmofi.search import structures

COUNT = 400


@pytest.fixture
def vectors():
    return clustered(np.random.default_rng(4), COUNT, 16)[0]


@pytest.fixture
def interrupted(tmp_path, vectors, monkeypatch):
    """A folder in which the building of a graph was interrupted after 200 vectors."""
    keep = structures._Kept.write

    def die_at_200(kept, graph):
        keep(kept, graph)
        if graph.ntotal == 200:
            raise KeyboardInterrupt

    monkeypatch.setattr(structures, "_AT_ONCE", 100)
    monkeypatch.setattr(structures, "_KEEP_EVERY_SECONDS", 0)
    with monkeypatch.context() as dying:
        dying.setattr(structures._Kept, "write", die_at_200)
        with pytest.raises(KeyboardInterrupt):
            make_index(tmp_path, vectors, kind="hnsw")
    return tmp_path


@pytest.fixture
def begun(monkeypatch):
    """The numbers of vectors with which bars begin."""
    begun, start = [], Progress.skip
    monkeypatch.setattr(Progress, "skip", lambda bar, n: begun.append(n) or start(bar, n))
    return begun


def _found(index, vectors):
    return [int(index.nearest(vector, k=1)[0][0]) for vector in vectors]


def test_an_interrupted_graph_goes_on_and_finds_everything(interrupted, vectors, begun):
    index = make_index(interrupted, vectors, kind="hnsw")
    assert begun == [200]
    assert _found(index, vectors) == list(range(COUNT))
    assert sorted(path.name for path in interrupted.iterdir()) == ["e.parquet", "index"]


def test_a_graph_of_other_vectors_is_begun_again(interrupted, vectors, begun):
    index = make_index(interrupted, vectors[::-1], kind="hnsw")
    assert begun == [0]
    assert _found(index, vectors[::-1]) == list(range(COUNT))


def test_a_damaged_graph_is_begun_again_with_a_note(interrupted, vectors, begun, capsys):
    (interrupted / ".index.graph/graph-200.faiss").write_bytes(b"damage")
    make_index(interrupted, vectors, kind="hnsw")
    assert begun == [0]
    assert "the unfinished graph is damaged; it is begun again" in capsys.readouterr().err


def test_a_compaction_goes_on_with_its_graph(tmp_path, vectors, begun, monkeypatch):
    index = make_index(tmp_path, vectors, kind="hnsw").delete([0])
    monkeypatch.setattr(structures, "_AT_ONCE", 100)
    halves = structures.halves_of(index.parts[0].stored)[1:]
    kept = structures._Kept(index.folder / "unfinished-graph", index.settings, halves)
    part = structures._build_graph(halves[:150], index.settings, kept, None)
    kept.write(part)
    small = index.compact()
    assert begun[-1] == 150
    assert _found(small, vectors[1:]) == list(range(COUNT - 1))
    assert not kept.folder.exists()


@pytest.mark.parametrize("kind", ["hnsw", "ivf"])
def test_a_build_shows_how_far_it_is(tmp_path, vectors, kind, monkeypatch):
    counts, close = {}, Progress.close
    note = lambda bar: counts.update({bar.title: (bar.count, bar.total)}) or close(bar)  # noqa: E731
    monkeypatch.setattr(Progress, "close", note)
    make_index(tmp_path, vectors, kind=kind)
    structure = "graph" if kind == "hnsw" else "lists"
    assert counts == {"index": (COUNT, COUNT), structure: (COUNT, COUNT)}
