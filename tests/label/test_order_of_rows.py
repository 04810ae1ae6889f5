"""The same pairs in another order, or in other shards: the same labels, and the same selection."""

import random

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import fruit
from conftest import write_tar
from openmofi.config import LabelSettings, SelectSettings
from openmofi.errors import MismatchError
from openmofi.kb import build_kb
from openmofi.label import label
from openmofi.label.background import Background, draw, read_background
from openmofi.label.image_scorer import MISMATCHED, ImageScorer
from openmofi.select import select
from openmofi.shards import committed_files

COUNT = 60
SETTINGS = LabelSettings(background=24, batch_size=7, workers=1)


@pytest.fixture(scope="module")
def kb(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kb")
    build_kb(fruit.write_catalogue(folder), out=folder / "kb")
    return folder / "kb"


def _pair(i):
    name = fruit.NAMES[i % 3]
    caption = fruit.CAPTIONS[fruit.NAMES[(i // 7) % 3]]  # often of another fruit
    return f"{i:03d}", fruit.photo(name, i), caption


def _write_tars(folder, pairs, shards):
    folder.mkdir(parents=True)
    for shard in range(shards):
        members = {}
        for key, image, caption in pairs[shard::shards]:
            members |= {f"{key}.jpg": image, f"{key}.txt": caption.encode()}
        write_tar(folder / f"{shard}.tar", members)
    return folder


def _write_table(path, pairs, shards):
    """A table without keys: its rows are known by their numbers alone."""
    path.mkdir(parents=True)
    images, captions = [p[1] for p in pairs], [f"{p[2]} {p[0]}" for p in pairs]
    pq.write_table(pa.table({"image": images, "caption": captions}), path / "pairs.parquet")
    return path


def _labels(i2e, name):
    """Returns {what a pair is known by: its candidates}."""
    rows = [row for file in committed_files(i2e) for row in pq.read_table(file).to_pylist()]
    return {row[name]: row["entities"] for row in rows}


@pytest.mark.slow
@pytest.mark.parametrize(("write", "name"), [(_write_tars, "key"), (_write_table, "caption")])
def test_shuffled_pairs_get_the_same_labels_and_selection(tmp_path, kb, nano_dir, write, name):
    pairs, found = [_pair(i) for i in range(COUNT)], []
    for number, shards in enumerate((3, 5)):
        source = write(tmp_path / f"in{number}", pairs, shards)
        out = tmp_path / f"out{number}"
        label(source, kb=kb, model=str(nano_dir), out=out, settings=SETTINGS)
        wanted = SelectSettings(false_label_rate=0.4, min_images=1, duplicates="keep")
        found.append((_labels(out, name), select(out, settings=wanted)))
        random.Random(0).shuffle(pairs)
    (one, first), (other, second) = found
    assert one.keys() == other.keys()
    for key in one:
        assert [c["id"] for c in one[key]] == [c["id"] for c in other[key]]
        for before, after in zip(one[key], other[key], strict=True):
            assert before["clip_z"] == pytest.approx(after["clip_z"], abs=1e-3)
            assert before["clip_z_other"] == pytest.approx(after["clip_z_other"], abs=1e-3)
    kept = [set(pq.read_table(s.out / "keep.parquet")[name].to_pylist()) for s in (first, second)]
    assert kept[0] == kept[1]
    assert first.calibration.high_rate == pytest.approx(second.calibration.high_rate, rel=1e-4)


class _Entities:
    def of(self, rows):
        return np.eye(6, dtype=np.float32)[rows]


class _KB:
    ids = pa.array(["a", "b", "c", "d", "e", "f"])

    def rows_of(self, ids):
        return np.array(["abcdef".index(entity) for entity in ids])


class _Seen:
    def __init__(self, words):
        self.words = np.array(words, np.uint64)
        self.vectors = np.zeros((len(words), 6), np.float32)


def _mismatched(offered, candidates, words=(7,)):
    """Returns clip_z_other of candidates of one mention; image i shows entity i alone."""
    count = len(offered)
    images = np.eye(6, dtype=np.float32)[:count]
    background = Background(
        images, tuple(map(frozenset, offered)), np.arange(1, count + 1, dtype=np.uint64)
    )
    scorer = ImageScorer(_KB(), _Entities(), background, None)
    rows = np.array(["abcdef".index(entity) for entity in candidates])
    starts = np.array([0])
    return scorer._others(np.array(words, np.uint64), candidates, np.arange(len(rows)), starts)[0]


def test_no_mismatched_image_has_a_caption_that_offers_a_candidate():
    offered = [["a"], ["b", "c"], ["c"], ["d"], ["e"], ["f"]]
    assert set(_mismatched(offered, ["a", "c"])) == {3, 4, 5, -1}
    assert set(_mismatched(offered, ["f"])) <= {0, 1, 2, 3, 4}
    assert len(set(_mismatched(offered, ["f"]))) == MISMATCHED


def test_an_image_is_not_its_own_mismatch_under_another_caption():
    offered = [["b"]] * 6
    for word in range(1, 7):
        assert word - 1 not in _mismatched(offered, ["a"], words=[word])


def test_every_image_of_the_background_is_drawn_as_often():
    offered = [["b"]] * 6
    found = [_mismatched(offered, ["a"], words=[word]) for word in range(100, 1600)]
    counts = np.bincount(np.concatenate(found), minlength=6)
    assert np.abs(counts / counts.mean() - 1).max() < 0.1


def test_a_pair_is_drawn_by_its_key_or_without_one_by_its_text():
    columns = {"key": ["k", "k", "s-000000001", "s-000000002", "k-x"], "url": [""] * 5}
    columns |= {"path": ["", "row:3", "row:1", "row:2", "row:4"], "caption": [*"abccd"]}
    found = draw(pa.table(columns)).tolist()
    assert found[0] == found[1]
    assert found[2] == found[3]
    assert len(set(found)) == 3


def test_a_background_of_an_older_version_is_named_as_such(tmp_path):
    np.savez(tmp_path / "background.npz", images=np.zeros((2, 3)), offered=np.array(["a", "b"]))
    with pytest.raises(MismatchError, match="was begun by an older version"):
        read_background(tmp_path)
