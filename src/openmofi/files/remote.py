"""Where an input lies: a local folder, or a URL of any kind that fsspec knows.

A local root is a Path and read with the system's own calls. `Remote` has what of a Path is used
here (`/`, `str`, `resolve`); its text is its URL, from which `open_root` makes it again.
"""

from __future__ import annotations

import re
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any

from openmofi.errors import InputError
from openmofi.files.hidden import is_hidden

# pathlib makes s3:/bucket of s3://bucket, so that one slash counts, too.
_URL = re.compile(r"(?P<scheme>[a-zA-Z][a-zA-Z0-9+.:-]+):/{1,3}(?P<rest>.*)", re.DOTALL)
_TRIES = 3
_EXTRAS = {"s3": "openmofi[s3]", "s3a": "openmofi[s3]", "gs": "openmofi[gs]", "gcs": "openmofi[gs]"}
_TIMES = ("LastModified", "mtime", "updated", "last_modified", "last_commit", "created", "ETag")


@dataclass(frozen=True)
class FoundFile:
    """A file below a root."""

    path: str
    """Relative to the root."""
    size: int
    mtime_ns: int


@dataclass(frozen=True)
class Remote:
    """A place on a file system of fsspec."""

    url: str

    def __str__(self) -> str:
        return self.url

    def __truediv__(self, inside: str) -> Remote:
        return self if inside in ("", ".") else Remote(f"{self.url.rstrip('/')}/{inside}")

    def resolve(self) -> Remote:
        """Returns itself: a URL means the same everywhere."""
        return self

    @property
    def name(self) -> str:
        """The last part of its path."""
        return PurePosixPath(self.url).name

    @property
    def parent(self) -> Remote:
        """The place in which it lies."""
        return Remote(self.url.rstrip("/").rpartition("/")[0])

    def open(self) -> tuple[Any, str]:
        """Returns (its file system, its path there).

        Raises:
            InputError: the protocol is unknown, or its package is not installed.
        """
        from fsspec.core import url_to_fs

        protocol = self.url.partition(":")[0]
        try:
            return url_to_fs(self.url)
        except ImportError as error:
            wanted = _EXTRAS.get(protocol)
            hint = f"pip install '{wanted}'" if wanted else str(error)
            raise InputError(f"{self.url!r} needs a further package: {hint}.") from None
        except ValueError as error:
            raise InputError(
                f"{self.url!r} cannot be opened ({error}); expected a URL that fsspec knows, such "
                "as s3://, gs://, hf:// or https://."
            ) from None

    def find(self) -> list[FoundFile]:
        """Returns the files below it that are not hidden, itself if it is one, sorted by path.

        Raises:
            InputError: nothing is there, or it may not be read.
        """
        system, path = self.open()
        try:
            infos = system.find(path, detail=True)
            if not infos and system.exists(path):
                infos = {path: system.info(path)}
        except Exception as error:  # every file system has its own
            raise InputError(
                f"{self.url!r} cannot be listed ({type(error).__name__}: {error}); check the "
                "address, and that you may read it."
            ) from None
        if not infos:
            raise InputError(f"There is nothing at {self.url!r}; check the address.")
        start = path.rstrip("/")
        files = [info for info in infos.items() if info[1].get("type") != "directory"]
        found = [_found(name.removeprefix(start).lstrip("/"), info) for name, info in files]
        shown = [file for file in found if not is_hidden(file.path)]
        return sorted(shown, key=lambda file: file.path.split("/"))

    def read(self, start: int | None = None, stop: int | None = None) -> bytes:
        """Returns bytes of a file.

        Raises:
            OSError: it is gone, or cannot be read three times.
        """
        system, path = self.open()
        return _patiently(lambda: system.cat_file(path, start=start, end=stop), self)

    def copy_to(self, target: Path, *, size: int = 0) -> None:
        """Copies the file.

        Args:
            target: where to; the folder is made.
            size: bytes it should have; 0: unknown.

        Raises:
            OSError: it is gone, or cannot be read three times.
        """
        system, path = self.open()
        target.parent.mkdir(parents=True, exist_ok=True)

        def copy() -> None:
            system.get_file(path, str(target))
            if size and target.stat().st_size != size:
                raise OSError(f"{self} gave {target.stat().st_size:,} of {size:,} bytes")

        _patiently(copy, self)

    def exists(self) -> bool:
        """Says whether there is such a file."""
        system, path = self.open()
        return bool(_patiently(lambda: system.exists(path), self))


Root = Path | Remote


def open_root(path: Path | str | Remote) -> Root:
    """Returns a local path, or the place that a URL names."""
    if isinstance(path, Remote):
        return path
    url = _URL.fullmatch(str(path))
    if url is None or Path(path).exists():
        return Path(path)
    scheme, rest = url["scheme"], url["rest"]
    if scheme in ("file", "local"):
        return Path("/" + rest)
    return Remote(f"{scheme}://{rest}")


def _found(path: str, info: dict[str, Any]) -> FoundFile:
    return FoundFile(path, int(info.get("size") or 0), _time(info))


def _time(info: dict[str, Any]) -> int:
    """Returns when a file was written in ns, or of its version a number; 0: nothing is known."""
    value = next((info[name] for name in _TIMES if info.get(name)), None)
    if isinstance(value, datetime):
        return int(value.timestamp() * 1e9)
    if isinstance(value, (int, float)):
        return int(value * 1e9)
    return 0 if value is None else zlib.crc32(str(value).encode())


def _patiently(step: Callable[[], Any], place: Remote) -> Any:
    """Takes a step that may fail on the way, up to three times."""
    for number in range(_TRIES):
        try:
            return step()
        except (FileNotFoundError, PermissionError):
            raise
        except Exception as error:  # every file system has its own
            if number == _TRIES - 1:
                raise OSError(f"{place} cannot be read: {type(error).__name__}: {error}") from error
            time.sleep(0.2 * 4**number)
    raise AssertionError
