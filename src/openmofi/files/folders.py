"""Files and folders that appear whole or not at all, and locks against a second writer.

Content reaches the disk before it gets its name: a kill, a full disk or a power cut leaves either
the old or the new content, and perhaps a hidden partial copy next to it.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import re
import shutil
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from openmofi.errors import InputError

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
"""The beginning of a URL, also of one that lost its second slash in a Path."""


def check_local(out: Path | str) -> None:
    """Rejects a URL, such as s3://bucket/x, as a place to write to.

    Raises:
        InputError: it is a URL.
    """
    if _ADDRESS.match(str(out)):
        raise InputError(
            f"--out {str(out)!r} is a URL, but output can only be written to a local folder; give "
            "a local folder and copy it there afterwards, or mount the bucket."
        )


def local_path(out: Path | str) -> Path:
    """Returns the path to write to, after `check_local`."""
    check_local(out)
    return Path(out)


def local_file(out: Path | str) -> Path:
    """Returns the path of the local file to write.

    Raises:
        InputError: it is a URL or a folder.
    """
    path = local_path(out)
    if path.is_dir():
        raise InputError(f"--out {str(out)!r} is a folder; give the name of a file in it.")
    return path


def check_replaceable(out: Path, is_ours: Callable[[Path], bool], what: str) -> None:
    """Checks that only an empty folder or an older folder of the same kind would be replaced.

    Args:
        out: the folder to write.
        is_ours: tells whether a folder is of this kind.
        what: the kind with its article, for the message.

    Raises:
        InputError: something else is there.
    """
    if not out.exists() or (out.is_dir() and (is_ours(out) or not any(out.iterdir()))):
        return
    raise InputError(f"{out} exists and is not {what}; give --out a new folder, or delete it.")


@contextmanager
def replace_file(path: Path) -> Iterator[Path]:
    """Yields a temporary path to write; if no error occurs, the file becomes `path`.

    Several processes may do so at once; the last one wins.
    """
    partial = path.with_name(f".{uuid.uuid4().hex[:8]}.{path.name}")
    try:
        yield partial
        sync(partial)
        partial.replace(path)
        sync(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Waits until a file's content, or the names in a folder, have reached the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:
        if not path.is_dir():  # some network file systems cannot sync folders
            raise
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Waits until a folder and everything below it have reached the disk."""
    for place, _, names in os.walk(folder):
        for path in (*(Path(place, name) for name in names), Path(place)):
            if path.exists():  # not a dangling link
                sync(path)


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """Yields a folder to fill; if no error occurs, it appears as `out` at the end.

    A kill leaves `.<name>.partial`, which the next attempt removes. If `out` is a symbolic link,
    the link stays and its target is replaced.
    """
    out = Path(os.path.realpath(out))
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        sync_tree(partial)
        if not out.exists():
            partial.rename(out)
        else:
            exchange_folders(partial, out)
        sync(out.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def exchange_folders(one: Path, other: Path) -> None:
    """Swaps two folders of one parent, atomically where the system can."""
    if not _exchange(one, other):
        # `other` is missing for a moment between two renames.
        aside = other.with_name(f".{other.name}.old")
        shutil.rmtree(aside, ignore_errors=True)
        other.rename(aside)
        one.rename(other)
        aside.rename(one)


def lock_file(file: IO, folder: Path, *, busy: str) -> None:
    """Locks an open file for this process until it is closed.

    Args:
        file: an open file.
        folder: the folder that the lock protects; named in a note if files cannot be locked.
        busy: the error message if another process holds the lock.

    Raises:
        InputError: another process holds the lock.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InputError(busy) from None
    except OSError as error:
        print(
            f"note: {str(folder)!r} cannot be locked ({error.strerror}); do not start a second "
            "process that writes there",
            file=sys.stderr,
        )


_locks: set[IO[bytes]] = set()


# After a process is killed, those that it forked would hold its lock for seconds.
os.register_at_fork(after_in_child=lambda: [lock.close() for lock in _locks])


@contextmanager
def alone_in(out: Path) -> Iterator[None]:
    """Keeps other runs out of a directory while this one uses it.

    Raises:
        InputError: another run is using the directory.
    """
    out.mkdir(parents=True, exist_ok=True)
    with (out / ".lock").open("ab") as lock:
        busy = f"Another run is writing {str(out)!r}; wait for it, or give this one another --out."
        lock_file(lock, out, busy=busy)
        _locks.add(lock)
        try:
            yield
        finally:
            _locks.discard(lock)


def cache_folder() -> Path:
    """Returns OPENMOFI_CACHE, or openmofi in the user's cache folder."""
    given = os.environ.get("OPENMOFI_CACHE")
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(given) if given else base / "openmofi"


def _exchange(one: Path, other: Path) -> bool:
    """Swaps two folders atomically if the system can (Linux, renameat2); tells whether it did."""
    at_current_folder, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE of linux/fs.h
    try:
        rename = ctypes.CDLL(None).renameat2
    except (AttributeError, OSError, TypeError):
        return False
    return not rename(
        at_current_folder, os.fsencode(one), at_current_folder, os.fsencode(other), exchange
    )
