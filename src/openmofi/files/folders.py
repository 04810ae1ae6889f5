"""Files and folders that appear whole or not at all, and who may write to them.

What gets its name here has reached the disk before: a kill, a full disk or a power cut leaves the
old content or the new one, and perhaps something hidden beside it.
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
"""How a URL begins, also one whose second stroke a Path has dropped."""


def check_local(out: Path | str) -> None:
    """Refuses to write to an address, such as s3://bucket/x.

    Raises:
        InputError: it is one.
    """
    if _ADDRESS.match(str(out)):
        raise InputError(
            f"--out {str(out)!r} is an address, but this is written to folders of this machine "
            "only; give a local folder and copy it there afterwards, or mount the bucket."
        )


def local_path(out: Path | str) -> Path:
    """Returns where to write, after `check_local`."""
    check_local(out)
    return Path(out)


def local_file(out: Path | str) -> Path:
    """Returns which file to write, on this machine.

    Raises:
        InputError: it is an address, or a folder.
    """
    path = local_path(out)
    if path.is_dir():
        raise InputError(f"--out {str(out)!r} is a folder; give the name of a file in it.")
    return path


def check_replaceable(out: Path, is_ours: Callable[[Path], bool], what: str) -> None:
    """Refuses to replace anything but an empty folder or an older folder of the same kind.

    Args:
        out: where a folder is to appear.
        is_ours: tells whether a folder is of this kind.
        what: name of the kind, with its article.

    Raises:
        InputError: something else is there.
    """
    if not out.exists() or (out.is_dir() and (is_ours(out) or not any(out.iterdir()))):
        return
    raise InputError(f"{out} exists and is not {what}; give --out a new folder, or delete it.")


@contextmanager
def replace_file(path: Path) -> Iterator[Path]:
    """Yields where to write a file; without an error in between it becomes `path`.

    Several processes may do so at once: the last one stands.
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
    """Returns once a file's content, or the names in a folder, have reached the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:
        if not path.is_dir():  # of folders, some network file systems know no such thing
            raise
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Returns once a folder and all that lies below it have reached the disk."""
    for place, _, names in os.walk(folder):
        for path in (*(Path(place, name) for name in names), Path(place)):
            if path.exists():  # not a link to nowhere
                sync(path)


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """Yields a folder to fill; without an error in between it appears as `out` at the end.

    `.<name>.partial`, which a kill leaves, is removed by the next attempt. A symbolic link stays,
    and what it leads to is replaced.
    """
    out = Path(os.path.realpath(out))
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        sync_tree(partial)
        _publish(partial, out)
        sync(out.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def lock_file(file: IO, folder: Path, *, busy: str) -> None:
    """Locks an open file for this process until it is closed.

    Args:
        file: open.
        folder: what the lock is for; where files cannot be locked, a note says so.
        busy: what to say if another process has it.

    Raises:
        InputError: another process has it.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InputError(busy) from None
    except OSError as error:
        print(
            f"note: {str(folder)!r} cannot be locked ({error.strerror}); start no second process "
            "that writes there",
            file=sys.stderr,
        )


def cache_folder() -> Path:
    """Returns OPENMOFI_CACHE, or openmofi in the user's cache folder."""
    given = os.environ.get("OPENMOFI_CACHE")
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(given) if given else base / "openmofi"


def _publish(partial: Path, out: Path) -> None:
    if not out.exists():
        partial.rename(out)
    elif not _exchange(partial, out):
        # File systems without exchange: `out` is missing for the moment between two renames.
        old = out.with_name(f".{out.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        out.rename(old)
        partial.rename(out)
        shutil.rmtree(old)


def _exchange(one: Path, other: Path) -> bool:
    """Swaps two folders atomically where the system can (Linux, renameat2); says whether it did."""
    at_current_folder, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE of linux/fs.h
    try:
        rename = ctypes.CDLL(None).renameat2
    except (AttributeError, OSError, TypeError):
        return False
    return not rename(
        at_current_folder, os.fsencode(one), at_current_folder, os.fsencode(other), exchange
    )
