"""The verb export: what it says, what it counts, and its mistakes in one sentence."""

import json

import pytest

import fruit
from labelled import candidate, pair, write_i2e
from openmofi.cli import main
from openmofi.config import SelectSettings
from openmofi.select import select


@pytest.fixture
def selection(tmp_path):
    rows = [pair(key, candidate("red", z=3.0)) for key in ("a", "b", "gone")]
    for key in "ab":
        (tmp_path / f"{key}.jpg").write_bytes(fruit.photo("red"))
    settings = SelectSettings(order="text-first", threshold=1.0, min_images=1)
    return select(write_i2e(tmp_path, rows), settings=settings).out


def _run(capsys, *arguments):
    try:
        main([str(argument) for argument in arguments])
        code = 0
    except SystemExit as error:
        code = error.code or 0
    return code, *capsys.readouterr()


@pytest.mark.parametrize(
    ("format", "follows"),
    [("webdataset", "webdataset.WebDataset("), ("huggingface", "datasets.load_dataset(")],
)
def test_it_says_what_it_wrote_and_what_comes_next(selection, capsys, tmp_path, format, follows):
    code, out, _ = _run(capsys, "export", selection, "--out", tmp_path / "o", "--format", format)
    assert code == 0
    assert "(2 images; dropped 1: image_missing 1)" in out
    assert out.splitlines()[-1].startswith(f"next: {follows}")


def test_its_json_is_json_and_nothing_else(selection, capsys, tmp_path):
    code, out, _ = _run(capsys, "export", selection, "--out", tmp_path / "o", "--json")
    found = json.loads(out)
    assert (code, found["images"], found["unreadable"]) == (0, 2, {"image_missing": 1})


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (["--format", "tfrecord"], "Choose from"),
        (["--shard-size", "0"], "expected at least 1"),
        (["--format", "datacomp"], "have no uid"),
    ],
)
def test_a_mistake_is_one_sentence(selection, capsys, tmp_path, options, part):
    code, _, err = _run(capsys, "export", selection, "--out", tmp_path / "o", *options)
    assert code == 1
    assert part in err
    assert err.count("\n") == 1


def test_select_says_that_nobody_looked(tmp_path, capsys):
    from labelled import unseen

    i2e = write_i2e(tmp_path, [pair(str(i), unseen("red")) for i in range(6)])
    code, out, _ = _run(capsys, "select", i2e)
    assert code == 0
    assert "note: the images were not looked at" in out
