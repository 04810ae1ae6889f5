"""The folder in which a build keeps what it has read, so that the same command can continue.

In: the path of the knowledge base, its sources, the settings. Out: `.NAME.parts` next to it, with
one folder of part files per source. Its `key.json` identifies the sources, settings and versions;
work for any others is removed. The running build holds its `lock`.
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

# Settings that decide what is read; the others matter only to the merge.
_READING = ("languages", "preset", "max_entities", "id_column")
_KEY, _LOCK = "key.json", "lock"


@contextmanager
def open_work(out: Path, sources: Sequence[Path], settings: KBSettings) -> Iterator[Path]:
    """Yields the folder, with what an interrupted run of the same build left there.

    The folder is removed at the end. After an error it stays if that saves reading a dump again.

    Raises:
        InputError: another build is using the folder.
    """
    out = Path(os.path.realpath(out))
    folder = out.with_name(f".{out.name}.parts")
    with _locked(folder, out):
        try:
            _prepare(folder, _key(sources, settings))
            yield folder
        except BaseException:
            is_worth_keeping = not any(map(_is_stdin, sources)) and any(
                files.done.num_entities > 0 and files.done.content_end >= chunks.CHUNK_BYTES
                for files in _part_files(folder)
            )
            if not is_worth_keeping:
                _remove(folder)
            raise
        _remove(folder)


def _locked(folder: Path, out: Path) -> IO[bytes]:
    """Makes the folder and keeps other builds out until the result is closed or the process dies.

    Raises:
        InputError: another build is using the folder.
    """
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        # The build before may remove folder and lock at any point of this: then try again.
        with suppress(FileNotFoundError), ExitStack() as stack:
            lock = stack.enter_context((folder / _LOCK).open("ab"))
            busy = f"Another build is writing {out}; wait for it, or give this one another --out."
            lock_file(lock, out.parent, busy=busy)
            if os.path.samestat(os.fstat(lock.fileno()), os.stat(folder / _LOCK)):
                stack.pop_all()
                return lock


def _prepare(folder: Path, key: str) -> None:
    """Removes from the folder what cannot be continued."""
    marker = folder / _KEY
    try:
        is_same = json.loads(marker.read_text(encoding="utf-8")) == key
    except (OSError, ValueError):
        is_same = False
    if not is_same:
        _empty(folder)
    elif not all(files.is_whole() for files in _part_files(folder)):
        print("the work of an earlier run is damaged: starting again", file=sys.stderr)
        _empty(folder)
    marker.write_text(json.dumps(key), encoding="utf-8")
    for leftover in folder.glob("slot-*"):
        leftover.unlink()
    shutil.rmtree(folder / "merge", ignore_errors=True)
    (folder / "merge").mkdir()


def _part_files(folder: Path) -> list[PartFiles]:
    return [PartFiles(path) for path in folder.glob("[0-9]*")]


def _empty(folder: Path) -> None:
    """Removes everything but the lock."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        elif path.name != _LOCK:
            path.unlink()


def _remove(folder: Path) -> None:
    with suppress(OSError):  # someone has removed it, or the next build is already using it
        _empty(folder)
        (folder / _LOCK).unlink()
        folder.rmdir()


def _key(sources: Sequence[Path], settings: KBSettings) -> str:
    """Returns a hash of everything on which the content of the folder depends."""
    files: list[tuple[str, int, int]] = []
    for path in sources:
        if _is_stdin(path):  # its content may differ each time: never continued
            files.append((STDIN, os.getpid(), int.from_bytes(os.urandom(4))))
        else:
            status = path.stat()
            files.append((os.path.abspath(path), status.st_size, status.st_mtime_ns))
    chosen = [(name, getattr(settings, name)) for name in _READING]
    versions = (PARTS_VERSION, CANONICAL_VERSION)
    return hashlib.sha256(json.dumps([files, chosen, versions]).encode()).hexdigest()


def _is_stdin(path: Path) -> bool:
    return str(path) == STDIN
