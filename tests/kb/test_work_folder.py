"""The folder of an unfinished build: its lock, its damage, and when it goes."""

import fcntl
import gzip
import io
import json
import sys
from pathlib import Path

import pytest

from openmofi.config import KBSettings
from openmofi.errors import InputError
from openmofi.files import lines
from openmofi.kb import KnowledgeBase, build, build_kb
from openmofi.kb.read import chunks, work_folder
from openmofi.kb.read.parts import PartFiles
from wikidata import content, item, write_dump

pytestmark = pytest.mark.slow


@pytest.fixture
def dump(tmp_path, monkeypatch) -> Path:
    """A dump of several chunks."""
    monkeypatch.setattr(lines, "BLOCK_BYTES", 3000)
    monkeypatch.setattr(chunks, "CHUNK_BYTES", 5000)
    return write_dump(tmp_path / "d.json.gz", *(item(i) for i in range(1, 300)))


def die(*_):
    raise KeyboardInterrupt


@pytest.fixture
def left(tmp_path, dump) -> Path:
    """The folder that a build left which was interrupted at its end."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "_write_json", die)
        with pytest.raises(KeyboardInterrupt):
            build_kb(dump, out=tmp_path / "kb")
    return tmp_path / ".kb.parts"


def test_a_second_build_of_the_same_is_refused(tmp_path, dump):
    build_kb(dump, out=tmp_path / "kb")
    whole = content(tmp_path / "kb")
    refusal = r"Another build is writing .*kb; wait for it, or give"
    with work_folder.open_work(tmp_path / "kb", [dump], KBSettings()):
        with pytest.raises(InputError, match=refusal):
            build_kb(dump, out=tmp_path / "kb")
        assert (tmp_path / ".kb.parts").is_dir()
    assert not (tmp_path / ".kb.parts").exists()
    build_kb(dump, out=tmp_path / "kb")
    assert content(tmp_path / "kb") == whole


def test_a_build_waits_for_no_lock_of_a_removed_folder(tmp_path, dump, monkeypatch):
    lock, removed = fcntl.flock, []

    def lock_late(file, how):
        if not removed:  # the build before ends between opening and locking
            removed.append(file.name)
            Path(file.name).unlink()
        lock(file, how)

    monkeypatch.setattr(fcntl, "flock", lock_late)
    with work_folder.open_work(tmp_path / "kb", [dump], KBSettings()) as folder:
        assert (folder / "lock").exists()
    assert len(removed) == 1


def test_where_nothing_can_be_locked_a_build_goes_on_with_a_warning(
    tmp_path, dump, monkeypatch, capsys
):
    def refuse(*_):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", refuse)
    assert build_kb(dump, out=tmp_path / "kb").entities == 299
    assert "cannot be locked (Function not implemented)" in capsys.readouterr().err


def damage_size(left: Path) -> None:
    (left / "0" / "names").write_bytes((left / "0" / "names").read_bytes()[:-8])


def damage_order(left: Path) -> None:
    files = PartFiles(left / "0")
    with (left / "0" / "entities").open("r+b") as file:
        twice = file.read() * 2
        file.write(twice)
    done = json.loads((left / "0" / "done.json").read_text())
    done["sizes"]["entities"] += files.done.sizes["entities"]
    (left / "0" / "done.json").write_text(json.dumps(done))


def damage_bytes(left: Path) -> None:
    (left / "0" / "entities").write_bytes(bytes((left / "0" / "entities").stat().st_size))


@pytest.mark.parametrize("damage", [damage_size, damage_order, damage_bytes])
def test_damaged_parts_are_read_again(tmp_path, dump, left, capsys, damage):
    damage(left)
    assert build_kb(dump, out=tmp_path / "kb").entities == 299
    assert "is damaged: starting again" in capsys.readouterr().err
    assert not left.exists()


def test_whole_parts_are_kept(tmp_path, dump, left, capsys):
    assert build_kb(dump, out=tmp_path / "kb").entities == 299
    assert "was read by an earlier run" in capsys.readouterr().err


def test_an_interrupted_build_of_standard_input_leaves_nothing(tmp_path, dump, monkeypatch):
    pipe = io.BufferedReader(io.BytesIO(gzip.decompress(dump.read_bytes())))
    monkeypatch.setattr(sys, "stdin", type("Stdin", (), {"buffer": pipe}))
    monkeypatch.setattr(build, "_write_json", die)
    with pytest.raises(KeyboardInterrupt):
        build_kb("-", out=tmp_path / "kb")
    assert [path.name for path in tmp_path.iterdir()] == [dump.name]


def test_a_closed_standard_input_is_explained(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(InputError, match="Standard input is closed, but - reads a dump from it"):
        build_kb("-", out=tmp_path / "kb")


@pytest.mark.parametrize("exists", [True, False])
def test_a_symbolic_link_stays_one(tmp_path, dump, exists):
    target = tmp_path / "disk" / "real"
    if exists:
        build_kb(write_dump(tmp_path / "old.json", item(1, "Old")), out=target)
    (tmp_path / "kb").symlink_to(target)
    assert build_kb(dump, out=tmp_path / "kb").out == tmp_path / "kb"
    assert (tmp_path / "kb").is_symlink()
    assert len(KnowledgeBase.open(target)) == 299
    assert [path.name for path in target.parent.iterdir()] == ["real"]
    assert not list(tmp_path.glob(".kb*"))
