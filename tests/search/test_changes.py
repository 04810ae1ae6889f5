"""Adding to and deleting from an index: no rebuilding, stable rows, and a kill changes nothing."""

import gc
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import fruit
from indexed import clustered, make_index, write_embeddings
from openmofi.config import IndexSettings
from openmofi.errors import InputError, MismatchError
from openmofi.kb import build_kb
from openmofi.search import Filter, Index, changes, part, snapshot
from openmofi.search.changes import set_map

DIM = 16


@pytest.fixture
def vectors():
    return clustered(np.random.default_rng(4), 400, DIM)[0]


@pytest.fixture(params=["flat", "hnsw", "ivf"])
def index(request, tmp_path, vectors):
    return make_index(tmp_path, vectors[:300], kind=request.param, entities=[["red"]] * 300)


def _more(tmp_path, vectors, first=300, **columns):
    columns = {"entities": [["lime"]] * len(vectors)} | columns
    return write_embeddings(tmp_path / "more.parquet", vectors, first=first, **columns)


def _found(index, vectors):
    return [index.nearest(vector, k=1)[0][0] for vector in vectors]


def test_added_rows_are_found_beside_the_old_ones(index, vectors, tmp_path):
    grown = index.add(_more(tmp_path, vectors[300:]))
    assert (len(index), len(grown), grown.generation) == (300, 400, 2)
    assert _found(grown, vectors) == list(range(400))
    assert grown.rows_of("lime").tolist() == list(range(300, 400))
    assert grown.hits(np.array([399]))[0].id == "r399"


def test_adding_writes_no_old_vector_again(index, vectors, tmp_path):
    before = {p: p.stat().st_mtime_ns for p in (index.folder / "part-0001").iterdir()}
    grown = index.add(_more(tmp_path, vectors[300:]))
    assert {p: p.stat().st_mtime_ns for p in (index.folder / "part-0001").iterdir()} == before
    assert [len(part) for part in grown.parts] == [300, 100]


def test_what_was_added_last_is_not_added_again(index, vectors, tmp_path, monkeypatch, capsys):
    unplaced = {"shard": None, "path": None, "offset": None}
    source = _more(tmp_path, vectors[300:], **{name: [None] * 100 for name in unplaced})

    def die(_):
        raise KeyboardInterrupt  # after the rows were added, before the parts are merged

    monkeypatch.setattr(changes, "_LEAST_TAIL", 50)
    with monkeypatch.context() as dying:
        dying.setattr(changes, "merge_if_due", die)
        with pytest.raises(KeyboardInterrupt):
            index.add(source)
    grown = Index.open(index.folder).add(source)
    assert (len(grown), len(grown.parts)) == (400, 1)
    assert "nothing is added again" in capsys.readouterr().err
    assert grown.add(source).generation == grown.generation
    assert len(grown.delete([399]).add(source)) == 499


def test_images_below_another_root_are_added_after_equal_ones(index, vectors, tmp_path):
    for root, total in (("/one", 400), ("/two", 500), ("/two", 500)):
        index = index.add(_more(tmp_path, vectors[300:], root=root))
        assert len(index) == total


def test_an_image_that_comes_again_replaces_its_row(index, vectors, tmp_path):
    grown = index.add(_more(tmp_path, vectors[290:310], first=290))
    assert (grown.num_rows, len(grown)) == (320, 310)
    assert _found(grown, vectors[290:310]) == list(range(300, 320))
    assert grown.rows_of("red").tolist() == list(range(290))


def test_the_same_place_below_another_root_is_another_image(index, vectors, tmp_path):
    grown = index.add(_more(tmp_path, vectors[:5], first=0, root="/elsewhere"))
    assert len(grown) == 305


def test_deleted_rows_are_gone_and_the_others_keep_their_numbers(index, vectors):
    smaller = index.delete([0, 7]).delete([7, 8])
    assert len(smaller) == 297
    assert not {0, 7, 8} & set(smaller.nearest(vectors[7], k=300)[0].tolist())
    assert _found(smaller, vectors[9:20]) == list(range(9, 20))
    assert smaller.rows_of("red").tolist()[:3] == [1, 2, 3]
    assert smaller.passing(Filter(entities=("red",))).sum() == 297


def test_compacting_numbers_the_rows_anew_and_keeps_the_map(index, vectors, tmp_path):
    set_map(index, np.arange(600.0).reshape(300, 2))
    small = Index.open(index.folder).delete(range(100)).add(_more(tmp_path, vectors[300:]))
    small = small.compact()
    assert (small.num_rows, len(small), len(small.parts)) == (300, 300, 1)
    assert _found(small, vectors[100:]) == list(range(300))
    assert small.map_points()[0].tolist() == [200.0, 201.0]
    assert np.isnan(small.map_points()[-1]).all()


def test_many_parts_become_one_that_finds_the_same(index, vectors, tmp_path):
    kind = index.meta["kind"]
    for begin in range(300, 390, 10):
        index = index.add(_more(tmp_path, vectors[begin : begin + 10], first=begin))
    assert len(index.parts[0]) >= 380
    assert (index.parts[0].kind, index.meta["kind"]) == (kind, kind)
    assert _found(index, vectors[:390]) == list(range(390))
    assert sorted(p.name for p in index.folder.glob("part-*")) == sorted(index.meta["parts"])


def test_vectors_that_cannot_be_compared_are_refused(index, vectors, tmp_path):
    with pytest.raises(InputError, match="vectors of 8 numbers, the index of 16"):
        index.add(_more(tmp_path, vectors[:5, :8]))
    with pytest.raises(InputError, match="made by the model 'other'"):
        index.add(_more(tmp_path, vectors[:5], model="other"))
    with pytest.raises(InputError, match="no row 300; expected 0 to 299"):
        index.delete([3, 300])
    assert len(Index.open(index.folder)) == 300


def test_a_change_of_what_was_changed_meanwhile_is_refused(index):
    index.delete([1])
    assert not index.is_current()
    with pytest.raises(MismatchError, match="has changed in the meantime"):
        index.delete([2])
    assert len(Index.open(index.folder)) == 299


def test_who_has_it_open_keeps_what_was_opened(index, vectors):
    old = Index.open(index.folder)
    index.delete([3]).compact()
    assert _found(old, vectors[:10]) == list(range(10))
    assert old.hits(np.array([3]))[0].id == "r3"


def test_a_change_that_dies_leaves_the_old_index(index, vectors, tmp_path, monkeypatch):
    def die(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr("openmofi.search.changes._write_meta", die)
    with pytest.raises(OSError, match="No space"):
        index.add(_more(tmp_path, vectors[300:]))
    monkeypatch.undo()
    assert len(Index.open(index.folder)) == 300
    grown = Index.open(index.folder).add(_more(tmp_path, vectors[300:]))
    assert _found(grown, vectors) == list(range(400))


_FOREVER = """
import sys
from openmofi.search import Index
folder, source = sys.argv[1:]
print("begins", flush=True)
while True:
    index = Index.open(folder)
    index = index.add(source).delete(list(range(20)))
    index.compact()
"""


@pytest.mark.slow
def test_killed_at_any_moment_the_index_opens_and_is_whole(tmp_path, vectors):
    source = _more(tmp_path, vectors[300:])
    whole = make_index(tmp_path, vectors[:300], entities=[["red"]] * 300)
    waits = np.random.default_rng(8).uniform(0, 0.4, 12)
    for number, wait in enumerate(waits):
        folder = tmp_path / f"copy{number}"
        shutil.copytree(whole.folder, folder)
        process = subprocess.Popen(
            [sys.executable, "-c", _FOREVER, folder, source], stdout=subprocess.PIPE
        )
        process.stdout.readline()
        time.sleep(wait)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
        index = Index.open(folder)
        assert index.num_rows == index.meta["rows"] == len(index.rows)
        assert {len(index) % 20} == {0}
        rows = np.flatnonzero(index.live)
        assert [index.nearest(v, k=1)[0][0] for v in index.vectors(rows)] == rows.tolist()
        assert len(index.add(source)) >= len(index)


def test_parts_with_origins_of_their_own_stay_apart_when_they_become_one(tmp_path, vectors):
    for name in ("one", "two", "three"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.jpg").write_bytes(name.encode())
    place = {"path": ["x.jpg"], "offset": [-1], "shard": [""]}
    index = make_index(tmp_path, vectors[:1], root=tmp_path / "one", **place)
    for number, name in enumerate(("two", "three"), 1):
        own = vectors[number : number + 1]
        index = index.add(_more(tmp_path, own, first=number, root=tmp_path / name, **place))
    for state in (index, index.compact()):
        assert [state.read_image(row) for row in range(3)] == [b"one", b"two", b"three"]
        assert state.root_of(2) == str(tmp_path / "three")


def test_filters_hold_in_every_part(tmp_path, vectors):
    index = make_index(tmp_path, vectors[:50], entities=[["red"], ["lime"]] * 25)
    for begin in (50, 100):
        more = [["lime"], ["red"]] * 25
        index = index.add(_more(tmp_path, vectors[begin : begin + 50], first=begin, entities=more))
    index = index.delete([3, 51, 120])
    passing = index.passing(Filter(entities=("red",)))
    expected = [r for r in range(150) if (r % 2 == (r >= 50)) and r not in (3, 51, 120)]
    assert np.flatnonzero(passing).tolist() == expected
    assert sorted(index.nearest(vectors[0], k=200, passing=passing)[0].tolist()) == expected


def test_the_newest_part_names_an_entity(tmp_path, vectors):
    def kb(name):
        (tmp_path / name).mkdir()
        text = f"id,name,aliases,description,weight\nred,{name},,,1\n"
        return build_kb(fruit.write_catalogue(tmp_path / name, text), out=tmp_path / "kb").out

    index = make_index(tmp_path, vectors[:3], kb=kb("Old"), entities=[["red"]] * 3)
    kb("New")
    index = index.add(_more(tmp_path, vectors[3:5], first=3, entities=[["red"]] * 2))
    assert index.entities["label"].to_pylist() == ["Old"]
    assert index.compact().entities["label"].to_pylist() == ["New"]


def test_opening_again_and_again_keeps_nothing_open(tmp_path, vectors):
    index = make_index(tmp_path, vectors, kind="hnsw")
    for _ in range(20):
        Index.open(index.folder).nearest(vectors[0], k=1)
    gc.collect()
    maps = Path("/proc/self/maps").read_text()
    assert maps.count(f"{index.folder}/part-0001/vectors.faiss") <= 2


def test_threads_that_ask_at_once_read_the_rows_once(tmp_path, vectors, monkeypatch):
    index = make_index(tmp_path, vectors)
    part, reads = index.parts[0], []
    whole = part.read_rows()

    def read_slowly():
        reads.append(1)
        time.sleep(0.05)
        return whole

    monkeypatch.setattr(part, "read_rows", read_slowly)
    threads = [threading.Thread(target=lambda: index.rows) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(reads) == 1


def test_a_few_hits_are_read_without_the_other_rows(tmp_path, vectors, monkeypatch):
    monkeypatch.setattr(part, "ROWS_PER_GROUP", 10)
    index = make_index(tmp_path, vectors).add(_more(tmp_path, vectors[:50], first=400))
    monkeypatch.setattr(Index, "rows", property(lambda _: pytest.fail("all rows were read")))
    hits = index.hits(np.array([449, 3, 399, 3, 400]))
    assert [hit.id for hit in hits] == ["r449", "r3", "r399", "r3", "r400"]
    assert index.rows_of("lime").tolist() == list(range(400, 450))


def test_who_reads_many_rows_reads_all_of_them_once(tmp_path, vectors, monkeypatch):
    monkeypatch.setattr(snapshot, "ROWS_PER_GROUP", 100)
    index, groups = make_index(tmp_path, vectors), []
    take = index.parts[0].take
    monkeypatch.setattr(index.parts[0], "take", lambda rows: groups.append(1) or take(rows))
    for row in range(20):
        assert index.hits(np.array([row]))[0].id == f"r{row}"
    assert len(groups) == 4


def test_an_index_is_not_built_over_one_that_is_being_changed(index, vectors, tmp_path):
    source = write_embeddings(tmp_path / "other.parquet", vectors[:5])
    with changes._changing(index), pytest.raises(InputError, match="Another process is changing"):
        Index.build(source, index.folder)
    assert len(Index.open(index.folder)) == 300
    Index.build(source, index.folder)
    with pytest.raises(MismatchError, match="has changed in the meantime"):
        index.delete([1])


def test_maps_and_names_that_were_opened_stay(index, tmp_path, vectors):
    set_map(index, np.full((300, 2), 0.25, np.float32))
    old = Index.open(index.folder)
    old.compact()
    assert old.map_points()[299].tolist() == [0.25, 0.25]
    assert old.entities["id"].to_pylist() == ["red"]
    grown = Index.open(index.folder).add(_more(tmp_path, vectors[300:]))
    around = Filter(lasso=((-9.0, -9.0), (-9.0, 9.0), (9.0, 9.0), (9.0, -9.0)))
    assert np.flatnonzero(grown.passing(around)).tolist() == list(range(300))


def test_an_index_that_changes_while_it_is_opened_is_opened_again(index, monkeypatch):
    read, times = snapshot._read_meta, []

    def read_late(folder):
        meta = read(folder)
        if not times:
            times.append(1)
            Index.open(folder).delete([1]).compact()  # the part that meta names is gone now
        return meta

    monkeypatch.setattr(snapshot, "_read_meta", read_late)
    assert len(Index.open(index.folder)) == 299


def test_settings_outlive_compacting(tmp_path, vectors):
    index = make_index(tmp_path, vectors, kind="hnsw").delete([1]).compact()
    assert (index.meta["kind"], index.settings.kind) == ("hnsw", "hnsw")


def test_an_image_twice_in_a_file_counts_once_and_the_last_one_wins(tmp_path, vectors, capsys):
    twice = {"offset": [0, 1, 0], "caption": ["first", "other", "last"]}
    index = make_index(tmp_path, vectors[:3], **twice)
    assert [hit.caption for hit in index.hits(np.arange(len(index)))] == ["other", "last"]
    assert "left out 1 repeated images" in capsys.readouterr().err
    nowhere = {"offset": [-1] * 3, "path": [""] * 3}
    assert len(make_index(tmp_path, vectors[:3], **nowhere)) == 3


def test_labels_that_are_null_or_come_twice_count_once(tmp_path, vectors):
    labels = [["red", "red"], [None, "lime"], None]
    index = make_index(tmp_path, vectors[:3], entities=labels, label_scores=[[0.5, 0.5]] * 3)
    assert index.entity_counts() == {"red": 1, "lime": 1}
    assert [hit.entities for hit in index.hits(np.arange(3))] == [("red",), ("lime",), ()]
    assert {hit.label_scores for hit in index.hits(np.arange(3))} == {()}


def test_numbers_that_are_none_are_refused(tmp_path, vectors):
    bad = vectors[:3].copy()
    bad[1, 2] = np.nan
    with pytest.raises(InputError, match="not finite"):
        make_index(tmp_path, bad)
    index = make_index(tmp_path, vectors[:3])
    for query in (bad[1], vectors[0][:5]):
        with pytest.raises(InputError, match="A query must be a vector of 16 finite numbers"):
            index.nearest(query, k=1)


def test_an_index_of_which_all_is_deleted_answers_nothing(index):
    empty = index.delete(range(300))
    assert (len(empty), empty.search(np.ones(DIM)), empty.entity_counts()) == (0, [], {})
    assert len(empty.entities) == 0
    assert empty.compact().search(np.ones(DIM)) == []


_ON_A_FULL_DISK = """
import resource, sys
from openmofi.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))  # no file may grow beyond it
main(sys.argv[1:])
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["flat", "hnsw"])
def test_a_full_disk_is_one_sentence_and_leaves_the_old_index(tmp_path, vectors, kind):
    source = write_embeddings(tmp_path / "e.parquet", vectors)
    more = write_embeddings(tmp_path / "m.parquet", np.tile(vectors, (20, 1)))
    index = Index.build(source, tmp_path / "i", IndexSettings(kind=kind))
    for line in (["index", more, "--out", index.folder], ["index", "add", index.folder, more]):
        code = [sys.executable, "-c", _ON_A_FULL_DISK, *map(str, line)]
        ended = subprocess.run(code, capture_output=True, text=True)
        assert ended.returncode == 1
        assert ended.stderr.count("openmofi: The index cannot be written below") == 1
        assert "Traceback" not in ended.stderr
        assert len(Index.open(index.folder)) == len(vectors)
