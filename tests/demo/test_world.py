import hashlib
import os
import subprocess
import sys
import tarfile
from itertools import groupby
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from openmofi.config import KBSettings
from openmofi.demo.world import SIZES, draw_world
from openmofi.errors import InputError, SettingsError
from openmofi.kb.read.records import EntityRecord, LeftOutClass
from openmofi.pairs.find import find_shards
from openmofi.pairs.read import read_shard
from records import read_dump

pytestmark = pytest.mark.slow


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    out = tmp_path_factory.mktemp("world")
    return out, draw_world(out, size="small", seed=7)


def test_the_summary_counts_what_was_written(world):
    out, summary = world
    assert summary.num_train == 20 * SIZES["small"].num_train
    assert summary.num_test == 20 * SIZES["small"].num_test
    assert sum(summary.caption_kinds.values()) == summary.num_train
    assert len(list((out / "shards").glob("*.tar"))) == summary.num_shards == 1


def test_a_seed_gives_the_same_bytes_whatever_the_hash_seed(world, tmp_path):
    code = (
        "import sys, pathlib; from openmofi.demo.world import draw_world;"
        "draw_world(pathlib.Path(sys.argv[1]), size='small', seed=7)"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "123"}
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], env=environment, check=True)
    assert digests(tmp_path) == digests(world[0])


def test_another_seed_gives_other_photos(world, tmp_path):
    draw_world(tmp_path, size="small", seed=8)
    ours, theirs = digests(world[0]), digests(tmp_path)
    assert ours.keys() == theirs.keys()
    assert ours["shards/000000.tar"] != theirs["shards/000000.tar"]
    assert ours["dump.json.gz"] == theirs["dump.json.gz"]


def test_tars_are_plain_and_agree_with_their_sidecars(world, tmp_path):
    out, _ = world
    rows = pq.read_table(out / "shards/000000.parquet").to_pylist()
    with tarfile.open(out / "shards/000000.tar", "r:") as tar:
        tar.extractall(tmp_path, filter="data")
    assert len(list(tmp_path.iterdir())) == 3 * len(rows)
    for row in rows:
        assert (tmp_path / f"{row['key']}.txt").read_text() == row["caption"]
        jpeg = (tmp_path / f"{row['key']}.jpg").read_bytes()
        assert hashlib.sha256(jpeg).hexdigest() == row["sha256"]
        assert (row["status"], row["width"], row["height"]) == ("success", 64, 64)


def test_truth_has_one_row_per_photo_of_both_splits(world):
    out, summary = world
    truth = pq.read_table(out / "truth.parquet").to_pylist()
    assert len({row["key"] for row in truth}) == summary.num_train + summary.num_test
    for split, folder in (("train", "shards"), ("test", "test")):
        keys = [row["key"] for row in truth if row["split"] == split]
        assert keys == pq.read_table(out / folder / "000000.parquet")["key"].to_pylist()


def test_test_photos_are_sorted_by_entity_and_numbered_from_nine_hundred_million(world):
    truth = pq.read_table(world[0] / "truth.parquet").to_pylist()
    test = [row for row in truth if row["split"] == "test"]
    assert test[0]["key"] == "900000000"
    shown = [row["shown"] for row in test]
    assert [entity for entity, _ in groupby(shown)] == list(dict.fromkeys(shown))


def test_training_photos_are_shuffled(world):
    truth = pq.read_table(world[0] / "truth.parquet").to_pylist()
    assert len({row["shown"] for row in truth[:20]}) > 8


def test_an_unknown_size_is_refused(tmp_path):
    with pytest.raises(SettingsError, match="no size 'huge'; use small or short or full"):
        draw_world(tmp_path, size="huge", seed=0)  # pyrefly: ignore


def test_shards_of_a_larger_world_are_not_mixed_in(tmp_path):
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards/000005.tar").touch()
    with pytest.raises(InputError, match=r"already holds 000005\.tar"):
        draw_world(tmp_path, size="small", seed=0)


def test_the_readers_of_pairs_and_dumps_accept_all_of_it(world):
    out, summary = world
    pairs = find_shards(out / "shards")
    tables = [read_shard(out / "shards", shard).table for shard in pairs.shards]
    assert sum(table.num_rows for table in tables) == summary.num_train
    assert {status for table in tables for status in table["status"].to_pylist()} == {"ok"}
    records = list(read_dump(out / "dump.json.gz", KBSettings()))
    assert len(records) == summary.num_dump_entities
    classes = [record for record in records if isinstance(record, LeftOutClass)]
    assert "sovereign state" in {record.label for record in classes}
    assert all(isinstance(record, EntityRecord) for record in records if record not in classes)
