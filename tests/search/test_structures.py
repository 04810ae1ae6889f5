"""Building graphs and lists: an interrupted graph goes on, and only with the same vectors."""

from pathlib import Path

import faiss
import numpy as np
import pytest

from indexed import clustered, make_index
from openmofi.config import IndexSettings
from openmofi.files import folders
from openmofi.progress import Progress
from openmofi.search import lists, stored_chunks, structures

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

    monkeypatch.setattr(stored_chunks, "_AT_ONCE", 100)
    monkeypatch.setattr(stored_chunks, "_KEEP_EVERY_SECONDS", 0)
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
    [graph] = (interrupted / ".index.graph").glob("graph-*.faiss")
    graph.write_bytes(b"damage")
    make_index(interrupted, vectors, kind="hnsw")
    assert begun == [0]
    assert "the unfinished graph is damaged; it is begun again" in capsys.readouterr().err


def test_a_compaction_goes_on_with_its_graph(tmp_path, vectors, begun, monkeypatch):
    index = make_index(tmp_path, vectors, kind="hnsw").delete([0])
    monkeypatch.setattr(stored_chunks, "_AT_ONCE", 100)
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
    expected = {"index": (COUNT, COUNT), structure: (COUNT, COUNT)}
    if kind == "ivf":
        expected["centres"] = (10, 10)
    assert counts == expected


@pytest.fixture
def one_thread():
    """Several threads link a graph in an order that nobody knows."""
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    yield
    faiss.omp_set_num_threads(threads)


def _bytes(folder):
    [file] = (folder / "index/part-0001").glob("[gl]*.faiss")
    return file.read_bytes()


@pytest.mark.usefixtures("one_thread")
def test_an_interrupted_graph_is_the_uninterrupted_one(interrupted, vectors, tmp_path_factory):
    make_index(interrupted, vectors, kind="hnsw")
    whole = tmp_path_factory.mktemp("whole")
    make_index(whole, vectors, kind="hnsw")
    assert _bytes(interrupted) == _bytes(whole)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("after", range(1, 15))
def test_interrupted_lists_go_on_to_the_same_ones(tmp_path, vectors, monkeypatch, begun, after):
    monkeypatch.setattr(stored_chunks, "_AT_ONCE", 100)
    monkeypatch.setattr(stored_chunks, "_KEEP_EVERY_SECONDS", 0)
    for name in ("whole", "cut"):
        (tmp_path / name).mkdir()
    make_index(tmp_path / "whole", vectors, kind="ivf")
    keep, left = lists._KeptStep.write, iter([*[True] * (after - 1), False])

    def dying(step, done, found):
        keep(step, done, found)
        if not next(left, True):
            raise KeyboardInterrupt

    monkeypatch.setattr(lists._KeptStep, "write", dying)
    with pytest.raises(KeyboardInterrupt):
        make_index(tmp_path / "cut", vectors, kind="ivf")
    begun.clear()
    make_index(tmp_path / "cut", vectors, kind="ivf")
    assert begun == [min(after, 10), max(after - 10, 0) * 100]
    assert _bytes(tmp_path / "cut") == _bytes(tmp_path / "whole")
    assert not list((tmp_path / "cut").glob(".index*"))


@pytest.mark.parametrize("damage", ["cut", "flipped", "emptied"])
def test_damaged_lists_are_begun_again_with_a_note(tmp_path, vectors, capsys, damage):
    kept = tmp_path / ".index.graph"
    step = lists._KeptStep(kept, "centres", {"lists": 6, "vectors": "of others"})
    step.write(3, np.ones((6, 16), np.float32))
    whole = (kept / "centres.npz").read_bytes()
    middle = whole.index(np.ones(6, np.float32).tobytes())
    broken = {"cut": whole[: len(whole) // 2], "flipped": bytearray(whole), "emptied": b""}
    broken["flipped"][middle] ^= 1
    (kept / "centres.npz").write_bytes(broken[damage])
    index = make_index(tmp_path, vectors, kind="ivf")
    assert "the unfinished lists are damaged; they are begun again" in capsys.readouterr().err
    assert len(index) == COUNT


def test_a_kept_step_and_what_it_is_of_reach_the_disk_together(tmp_path, monkeypatch):
    step = lists._KeptStep(tmp_path / "kept", "lists", {"vectors": "old"})
    step.write(2, np.array([1, 2]))
    synced, sync = [], folders.sync

    def die(path):
        synced.append(path.name)
        sync(path)
        raise KeyboardInterrupt

    monkeypatch.setattr(folders, "sync", die)
    with pytest.raises(KeyboardInterrupt):
        lists._KeptStep(step.folder, "lists", {"vectors": "new"}).write(2, np.array([3, 4]))
    assert synced
    assert step.read(np.zeros(0))[1].tolist() == [1, 2]


def test_a_graph_is_never_taken_for_one_of_other_settings(interrupted, vectors):
    """The writing of other settings' graph of as many vectors ends before state.json names it."""
    kept = interrupted / ".index.graph"
    halves = vectors[:200].astype(np.float16)
    settings = IndexSettings(kind="hnsw", hnsw_links=4)
    other = structures._Kept(kept, settings, halves)
    graph = structures._build_graph(halves, settings, other, None)
    state = (kept / "state.json").read_bytes()
    other.write(graph)
    (kept / "state.json").write_bytes(state)
    assert structures._Kept(kept, IndexSettings(kind="hnsw"), halves).read() is None


def test_centres_are_as_good_as_those_of_faiss(vectors):
    step = lists._KeptStep(Path("nowhere"), "centres", {})
    object.__setattr__(step, "write", lambda *_: None)
    ours = lists._centres(vectors, 6, step)
    theirs = faiss.Kmeans(16, 6, niter=10, spherical=True, min_points_per_centroid=1)
    theirs.train(vectors)
    fit = [(vectors @ centres.T).max(1).mean() for centres in (ours, theirs.centroids)]
    assert fit[0] > fit[1] - 0.01
