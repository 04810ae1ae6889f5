"""Selections that are mapped: the same data as in memory, written once, whatever happens."""

import hashlib
import json
import multiprocessing
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from conftest import jpeg
from openmofi.config import EvaluationSettings
from openmofi.errors import InputError
from openmofi.model import load_model
from openmofi.train import data as train_data
from openmofi.train import loop, mapped, mapped_pairs, train
from openmofi.train.class_balance import ClassBalance
from openmofi.train.data import TrainData, open_train_data
from selected import in_processes, losses, tiny, train_in, write_selected


@pytest.fixture
def maps(monkeypatch):
    monkeypatch.setattr(train_data, "_MAP_ABOVE", 0)


@pytest.fixture
def selection(tmp_path):
    return write_selected(tmp_path / "data", images=40, second=2)


def both(selection, monkeypatch) -> tuple[TrainData, TrainData]:
    """Returns a selection read into memory, and mapped in pieces of seven images."""
    read = open_train_data(selection)
    monkeypatch.setattr(train_data, "_MAP_ABOVE", 0)
    monkeypatch.setattr("openmofi.train.class_lists._AT_ONCE", 7)
    return read, open_train_data(selection)


def test_a_mapped_selection_is_the_one_in_memory(selection, monkeypatch):
    read, found = both(selection, monkeypatch)
    settings = EvaluationSettings(holdout=0.2, holdout_entities=0.34)
    parts = zip(read.split(settings, seed=3), found.split(settings, seed=3), strict=True)
    for one, other in [(read, found), *parts]:
        places = np.arange(len(one))
        assert len(other) == len(one) > 0
        assert other.records(places).to_pylist() == one.records(places).to_pylist()
        np.testing.assert_array_equal(other.targets(places), one.targets(places))
        assert other.class_counts.tolist() == one.class_counts.tolist()
        assert other.fingerprint() == one.fingerprint()
    assert list(found.texts()) == list(read.texts())


def test_a_mapped_selection_has_the_same_order(selection, monkeypatch):
    parts = [
        one.split(EvaluationSettings(holdout=0.2), seed=3).learnt
        for one in both(selection, monkeypatch)
    ]
    orders = [ClassBalance(part.classes, part.rows, 0.7) for part in parts]
    points = np.linspace(0, len(parts[0]), 999, endpoint=False)
    assert orders[0].at(points).tolist() == orders[1].at(points).tolist()


@pytest.mark.parametrize("cuts", [[40], [1, 39], [13, 13, 14], [7] * 5 + [5]])
def test_the_fingerprint_does_not_depend_on_chunks(selection, monkeypatch, cuts):
    monkeypatch.setattr(mapped, "AT_ONCE", 16)
    keep = pq.read_table(selection / "keep.parquet").select(["caption", "offset"])
    expected, found, ends = hashlib.sha256(), [], np.cumsum([0, *cuts])
    for name in keep.column_names:
        sink, values = pa.BufferOutputStream(), keep[name].to_pylist()
        with pa.ipc.new_stream(sink, pa.schema([keep.schema.field(name)])) as writer:
            for at in range(0, 40, 16):
                writer.write_table(pa.table({name: values[at : at + 16]}))
        expected.update(hashlib.sha256(memoryview(sink.getvalue())).digest())
        column = keep[name].combine_chunks()
        found.append(mapped.ColumnDigest(name, [column[a:b] for a, b in pairwise(ends)]))
    expected.update(b"a\0b")
    assert mapped.fingerprint(found, None, ["a", "b"]) == expected.hexdigest()


@pytest.mark.usefixtures("maps")
def test_what_is_mapped_is_written_once_and_again_if_the_selection_changes(selection, monkeypatch):
    first = open_train_data(selection).fingerprint()
    written = (selection / "mapped/meta.json").stat().st_mtime_ns
    assert open_train_data(selection).fingerprint() == first
    assert (selection / "mapped/meta.json").stat().st_mtime_ns == written
    keep = pq.read_table(selection / "keep.parquet")
    pq.write_table(keep.slice(1), selection / "keep.parquet")
    again = open_train_data(selection)
    assert (len(again), again.fingerprint() == first) == (39, False)


@pytest.mark.usefixtures("maps")
def test_damaged_and_half_written_files_are_written_again(selection, monkeypatch):
    whole = open_train_data(selection).fingerprint()
    (selection / "mapped/meta.json").write_text('{"selection": [')
    assert open_train_data(selection).fingerprint() == whole
    (selection / "mapped/values.npy").write_bytes(b"short")
    assert open_train_data(selection).fingerprint() == whole
    (selection / "mapped/starts.npy").unlink()
    assert open_train_data(selection).fingerprint() == whole

    def full_disk(*_):
        raise OSError(28, "No space left on device")

    (selection / "mapped/meta.json").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(mapped, "write_strings", full_disk)
        with pytest.raises(InputError, match=r"Cannot write .*mapped: No space left on device"):
            open_train_data(selection)
    assert not list(selection.glob(".mapped.partial"))
    assert open_train_data(selection).fingerprint() == whole


@pytest.mark.usefixtures("maps")
def test_wrong_classes_are_refused_while_mapping(selection):
    vocabulary = pq.read_table(selection / "vocabulary.parquet")
    pq.write_table(vocabulary.slice(0, 2), selection / "vocabulary.parquet")
    with pytest.raises(InputError, match="with class 2 but its vocabulary has 2"):
        open_train_data(selection)


def test_training_on_a_mapped_selection_gives_the_same_losses(selection, tmp_path, monkeypatch):
    settings = tiny(balance=0.5, evaluation={"holdout": 0.2})
    train(settings, data=selection, out=tmp_path / "read")
    monkeypatch.setattr(train_data, "_MAP_ABOVE", 0)
    train(settings, data=selection, out=tmp_path / "mapped")
    assert losses(tmp_path / "mapped") == losses(tmp_path / "read")


def _train_mapped(*arguments):
    train_data._MAP_ABOVE = 0
    train_in(*arguments)


@pytest.mark.slow
def test_processes_wait_until_the_first_one_has_mapped(selection, tmp_path):
    in_processes(2, _train_mapped, tiny(), selection, tmp_path / "run")
    assert json.loads((selection / "mapped/meta.json").read_text())["longest"] == 2
    assert len(losses(tmp_path / "run")) == 6


def test_a_resumed_run_does_not_learn_its_tokenizer_again(selection, tmp_path, monkeypatch):
    whole = train(tiny(), data=selection, out=tmp_path / "whole")
    train(tiny(steps=4), data=selection, out=tmp_path / "run")

    def again(*_, **__):
        raise AssertionError("the tokenizer is learnt again")

    monkeypatch.setattr(loop, "train_tokenizer", again)
    went_on = train(tiny(), data=selection, out=tmp_path / "run", resume=True)
    one, other = (load_model(summary.out / "model") for summary in (whole, went_on))
    texts = ["a red apple 3", "Lime, and other words"]
    assert one.tokenizer(texts)["input_ids"] == other.tokenizer(texts)["input_ids"]


def test_of_many_captions_a_tokenizer_learns_a_sample(selection, monkeypatch):
    monkeypatch.setattr(train_data, "_ENOUGH_TEXTS", 10)
    data = open_train_data(selection)
    captions = data.source["caption"].to_pylist()
    texts = list(data.texts())
    assert texts[:10] != captions[:10]
    assert set(texts[:10]) < set(captions)
    assert texts[10:13] == ["Red Apple", "Green Apple", "Lime"]


@pytest.mark.parametrize("most", [0, 1 << 20])
def test_a_damaged_table_is_named(selection, monkeypatch, most):
    monkeypatch.setattr(train_data, "_MAP_ABOVE", most)
    path = selection / "keep.parquet"
    content = bytearray(path.read_bytes())
    table = pq.ParquetFile(path)
    captions = table.schema_arrow.names.index("caption")
    start = table.metadata.row_group(0).column(captions).data_page_offset
    content[start : start + 40] = b"x" * 40
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"keep.parquet is damaged \(.*run `openmofi select`"):
        open_train_data(selection)


def _open_at_once(selection):
    train_data._MAP_ABOVE = 0
    assert len(open_train_data(selection)) == 40


@pytest.mark.slow
def test_runs_that_map_one_selection_at_once_wait_for_each_other(selection):
    context = multiprocessing.get_context("spawn")
    runs = [context.Process(target=_open_at_once, args=(selection,)) for _ in range(3)]
    for run in runs:
        run.start()
    for run in runs:
        run.join(120)
    assert [run.exitcode for run in runs] == [0, 0, 0]


def test_a_run_that_saved_nothing_leaves_no_tokenizer_to_the_next(selection, tmp_path, monkeypatch):
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(loop.Run, "train_step", _killed)
        with pytest.raises(KeyboardInterrupt):
            train(tiny(), data=selection, out=out)
    before = (out / "tokenizer/tokenizer.json").read_bytes()
    keep = pq.read_table(selection / "keep.parquet")
    captions = pa.array([f"quite another text {n}" for n in range(len(keep))])
    keep = keep.set_column(keep.column_names.index("caption"), "caption", captions)
    pq.write_table(keep, selection / "keep.parquet")
    train(tiny(), data=selection, out=out, resume=True)
    assert (out / "tokenizer/tokenizer.json").read_bytes() != before


def _killed(*_):
    raise KeyboardInterrupt


@pytest.fixture
def folder(tmp_path):
    """Images with a caption each in files of their own, in a folder below the input's."""
    below = tmp_path / "photos/below"
    below.mkdir(parents=True)
    for number in range(3):
        (below / f"{number}.jpg").write_bytes(jpeg())
        (below / f"{number}.txt").write_text(f"caption {number}")
    return tmp_path / "photos"


def _captions(folder):
    found = open_train_data(folder, mapped_in=folder.with_name("mapped") / "pairs")
    return found.source["caption"].to_pylist()


def test_pairs_of_a_folder_are_mapped_again_when_a_file_in_it_changes(folder, monkeypatch):
    assert _captions(folder) == ["caption 0", "caption 1", "caption 2"]
    with monkeypatch.context() as reading:
        reading.setattr(mapped_pairs, "read_shard", None)
        assert len(_captions(folder)) == 3
    (folder / "below/1.txt").write_text("another caption")
    assert _captions(folder) == ["caption 0", "another caption", "caption 2"]
    (folder / "below/2.txt").unlink()
    (folder / "below/2.json").write_text('{"caption": "from a record"}')
    assert _captions(folder)[2] == "from a record"


def test_pairs_that_cannot_be_read_are_not_said_to_be_unwritable(folder, monkeypatch):
    def gone(*_):
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(mapped_pairs, "read_shard", gone)
    with pytest.raises(InputError, match=r"Cannot read '.' of .*photos' \(No such file"):
        _captions(folder)
