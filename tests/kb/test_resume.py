"""Builds that are killed, built again, and built by several processes."""

import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from openmofi.config import KBSettings
from openmofi.errors import InputError
from openmofi.files import lines
from openmofi.kb import KnowledgeBase, build_kb
from openmofi.kb.read import chunks, decode, pool, write_parts
from wikidata import content, item, write_dump

# Ends itself, as by kill -9, after some commits.
KILLED = """
import os, signal, sys
from openmofi.config import KBSettings
from openmofi.kb import build_kb
from openmofi.files import lines
from openmofi.kb.read import chunks, write_parts, parts
lines.BLOCK_BYTES, chunks.CHUNK_BYTES, write_parts.COMMIT_SECONDS = 3000, 5000, 0.0
commit, left = parts.PartFiles.commit, [int(sys.argv[3])]
def commit_or_die(self, **arguments):
    commit(self, **arguments)
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
parts.PartFiles.commit = commit_or_die
if __name__ == "__main__":
    build_kb(sys.argv[1], out=sys.argv[2], settings=KBSettings(workers=int(sys.argv[4])))
"""
# The last of them: all is read, and the merge is about to write its card.
KILLED_LATE = """
import os, signal, sys
from openmofi.kb import build, build_kb
from openmofi.files import lines
from openmofi.kb.read import chunks
lines.BLOCK_BYTES, chunks.CHUNK_BYTES = 3000, 5000
build._write_json = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
if __name__ == "__main__":
    build_kb(sys.argv[1], out=sys.argv[2])
"""


def killed(script: str, folder: Path, *arguments: object) -> None:
    (folder / "script.py").write_text(script)
    command = [sys.executable, str(folder / "script.py"), *map(str, arguments)]
    assert subprocess.run(command, capture_output=True).returncode == -signal.SIGKILL


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(lines, "BLOCK_BYTES", 3000)
    monkeypatch.setattr(chunks, "CHUNK_BYTES", 5000)


@pytest.fixture
def dump(tmp_path) -> Path:
    things = (item(i, f"name {i % 211} {i % 7}", sites=1 + i % 5) for i in range(1, 900))
    return write_dump(tmp_path / "d.json.gz", *things)


@pytest.fixture
def decoded(monkeypatch) -> list[int]:
    """Numbers of the lines that are decoded."""
    numbers, original = [], decode.LineDecoder.item

    def noting(self, line, number):
        numbers.append(number)
        return original(self, line, number)

    monkeypatch.setattr(decode.LineDecoder, "item", noting)
    return numbers


@pytest.mark.slow
@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_build_goes_on_and_gives_the_same(tmp_path, dump, decoded, capsys, workers):
    build_kb(dump, out=tmp_path / "whole", settings=KBSettings(workers=1))
    assert decoded == list(range(2, 901))
    decoded.clear()
    killed(KILLED, tmp_path, dump, tmp_path / "kb", 5, workers)
    assert not (tmp_path / "kb").exists()
    build_kb(dump, out=tmp_path / "kb", settings=KBSettings(workers=1))
    assert 0 < len(decoded) < 800
    assert decoded[-1] == 900
    assert content(tmp_path / "kb") == content(tmp_path / "whole")
    assert "must be decompressed again" in capsys.readouterr().err
    assert not (tmp_path / ".kb.parts").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("small")
def test_a_build_killed_at_the_end_leaves_the_old_one_and_reads_nothing_again(
    tmp_path, dump, decoded
):
    build_kb(write_dump(tmp_path / "old.json", item(1, "Old")), out=tmp_path / "kb")
    killed(KILLED_LATE, tmp_path, dump, tmp_path / "kb")
    assert KnowledgeBase.open(tmp_path / "kb").query("old")[0].id == "Q1"
    decoded.clear()
    build_kb(dump, out=tmp_path / "kb")
    assert decoded == []
    assert len(KnowledgeBase.open(tmp_path / "kb")) == 899


@pytest.mark.slow
@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("change", ["settings", "source"])
def test_what_is_left_of_another_build_is_not_used(tmp_path, dump, decoded, change):
    killed(KILLED, tmp_path, dump, tmp_path / "kb", 3, 1)
    languages = ("en", "de") if change == "settings" else ("en", "mul")
    if change == "source":
        write_dump(dump, *map(item, range(1, 1000)))
    build_kb(dump, out=tmp_path / "kb", settings=KBSettings(languages=languages, workers=1))
    assert decoded[0] == 2


@pytest.mark.usefixtures("small")
def test_settings_of_the_merge_keep_what_was_read(tmp_path, dump, decoded):
    (tmp_path / "o.tsv").write_text("name 1 1\tQ0\t1\n")
    settings = KBSettings(overrides=str(tmp_path / "o.tsv"), workers=1)
    with pytest.raises(InputError, match="no entity has the id 'Q0'"):
        build_kb(dump, out=tmp_path / "kb", settings=settings)
    decoded.clear()
    (tmp_path / "o.tsv").write_text("name 1 1\tQ1\t1\n")
    build_kb(dump, out=tmp_path / "kb", settings=settings)
    assert decoded == []


@pytest.mark.slow
@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("limit", [None, 100, 333, 899, 5000])
def test_any_number_of_workers_gives_the_same(tmp_path, dump, limit):
    for workers in (1, 2):
        settings = KBSettings(workers=workers, max_entities=limit)
        build_kb(dump, out=tmp_path / str(workers), settings=settings)
    assert content(tmp_path / "1") == content(tmp_path / "2")
    assert len(KnowledgeBase.open(tmp_path / "1")) == min(limit or 899, 899)


def test_the_size_of_chunks_does_not_matter(tmp_path, dump, monkeypatch):
    build_kb(dump, out=tmp_path / "large", settings=KBSettings(max_entities=500))
    for size in (1000, 20_000):
        monkeypatch.setattr(lines, "BLOCK_BYTES", size)
        monkeypatch.setattr(chunks, "CHUNK_BYTES", size)
        settings = KBSettings(max_entities=500, workers=1)
        build_kb(dump, out=tmp_path / "small", settings=settings)
        assert content(tmp_path / "small") == content(tmp_path / "large")


def die(*_) -> None:
    os._exit(9)


@pytest.mark.slow
@pytest.mark.usefixtures("small")
def test_a_worker_that_dies_is_explained(tmp_path, dump, monkeypatch):
    monkeypatch.setattr(pool, "_decode_slot", die)
    with pytest.raises(InputError, match="was ended from outside or could not start"):
        build_kb(dump, out=tmp_path / "kb", settings=KBSettings(workers=2))


class _Pipe(io.BufferedReader):
    """Standard input that cannot be sought in."""

    def __init__(self, data: bytes):
        super().__init__(io.BytesIO(data))
        self.buffer = self


@pytest.mark.parametrize("name", ["d.json", "d.json.gz"])
def test_a_dump_comes_through_standard_input(tmp_path, monkeypatch, capsys, name):
    path = write_dump(tmp_path / name, *map(item, range(1, 50)))
    monkeypatch.setattr(sys, "stdin", _Pipe(path.read_bytes()))
    assert build_kb("-", out=tmp_path / "kb").entities == 49
    assert "starts again" in capsys.readouterr().err
    assert sorted(p.name for p in tmp_path.iterdir()) == [name, "kb"]


@pytest.mark.usefixtures("small")
def test_a_truncated_dump_gives_what_was_readable(tmp_path, dump):
    dump.write_bytes(dump.read_bytes()[: dump.stat().st_size // 2])
    summary = build_kb(dump, out=tmp_path / "kb", settings=KBSettings(workers=1))
    assert 100 < summary.entities < 899
    assert summary.rejected == {"truncated_file": 1}
    assert "truncated_file" in (tmp_path / "kb" / "rejects.jsonl").read_text()


def test_commits_are_seldom_but_regular():
    assert 1 <= write_parts.COMMIT_SECONDS <= 30
