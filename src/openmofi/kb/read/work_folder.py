"""The folder in which a build keeps what it has read, so that the same command can go on.

In: where the knowledge base will be, its sources, the settings. Out: `.NAME.parts` beside it, with
one folder of part files per source. Its `key.json` names what it was made from; whatever was made
from other sources, settings or versions is removed. Its `lock` is held by the build at work.
"""

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO

from openmofi.config import KBSettings
from openmofi.files.folders import lock_file
from openmofi.files.lines import STDIN
from openmofi.kb.read import chunks
from openmofi.kb.read.parts import PARTS_VERSION, PartFiles
from openmofi.kb.text import CANONICAL_VERSION

# Settings that decide what is read; the others only matter to the merge.
_READING = ("languages", "preset", "max_entities", "id_column")
_KEY, _LOCK = "key.json", "lock"


@contextmanager
def open_work(out: Path, sources: Sequence[Path], settings: KBSettings) -> Iterator[Path]:
    """Yields the folder, with what an interrupted build of the same left there.

    It is removed at the end; after an error it stays if that saves reading a dump again.

    Raises:
        InputError: another build is at work there.
    """
    out = Path(os.path.realpath(out))
    folder = out.with_name(f".{out.name}.parts")
    with _locked(folder, out):
        try:
            _prepare(folder, _key(sources, settings))
            yield folder
        except BaseException:
            if any(map(_is_stdin, sources)) or not _is_worth_keeping(folder):
                _remove(folder)
            raise
        _remove(folder)


def _locked(folder: Path, out: Path) -> IO[bytes]:
    """Makes the folder and keeps other builds out of it until the result is closed, or a kill.

    Raises:
        InputError: another build is in it.
    """
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        # The build before removes both at its end, which may be at any place here: then once more.
        with suppress(FileNotFoundError), ExitStack() as stack:
            lock = stack.enter_context((folder / _LOCK).open("ab"))
            busy = f"Another build is writing {out}; wait for it, or give this one another --out."
            lock_file(lock, out.parent, busy=busy)
            if os.path.samestat(os.fstat(lock.fileno()), os.stat(folder / _LOCK)):
                stack.pop_all()
                return lock


def _prepare(folder: Path, key: str) -> None:
    """Leaves in the folder what can be continued."""
    marker = folder / _KEY
    if not _is_same(marker, key):
        _empty(folder)
    elif not all(files.is_whole() for files in _part_files(folder)):
        print("what an earlier run left is damaged: starting again", file=sys.stderr)
        _empty(folder)
    marker.write_text(json.dumps(key), encoding="utf-8")
    for leftover in folder.glob("slot-*"):
        leftover.unlink()
    shutil.rmtree(folder / "merge", ignore_errors=True)
    (folder / "merge").mkdir()


def _part_files(folder: Path) -> list[PartFiles]:
    return [PartFiles(path) for path in folder.glob("[0-9]*")]


def _is_worth_keeping(folder: Path) -> bool:
    return any(
        files.done.num_entities > 0 and files.done.content_end >= chunks.CHUNK_BYTES
        for files in _part_files(folder)
    )


def _empty(folder: Path) -> None:
    """Removes all but the lock."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        elif path.name != _LOCK:
            path.unlink()


def _remove(folder: Path) -> None:
    with suppress(OSError):  # somebody removed it, or the next build is already in it
        _empty(folder)
        (folder / _LOCK).unlink()
        folder.rmdir()


def _is_same(marker: Path, key: str) -> bool:
    try:
        return json.loads(marker.read_text(encoding="utf-8")) == key
    except (OSError, ValueError):
        return False


def _key(sources: Sequence[Path], settings: KBSettings) -> str:
    files = [_identity(path) for path in sources]
    chosen = [(name, getattr(settings, name)) for name in _READING]
    versions = (PARTS_VERSION, CANONICAL_VERSION)
    return hashlib.sha256(json.dumps([files, chosen, versions]).encode()).hexdigest()


def _identity(path: Path) -> tuple[str, int, int]:
    if _is_stdin(path):  # nobody knows whether it is the same: never continued
        return STDIN, os.getpid(), int.from_bytes(os.urandom(4))
    status = path.stat()
    return os.path.abspath(path), status.st_size, status.st_mtime_ns


def _is_stdin(path: Path) -> bool:
    return str(path) == STDIN
