"""Where an input lies: a local folder, or any URL that fsspec can open.

A local root is a Path and read with the system's own calls. `Remote` has the parts of Path's
interface that are used here (`/`, `str`, `resolve`); `open_root` restores it from its text, a URL.
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

# One slash is enough, since pathlib turns s3://bucket into s3:/bucket.
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
        """Returns itself: a URL is always absolute."""
        return self

    @property
    def name(self) -> str:
        """The last part of the path."""
        return PurePosixPath(self.url).name

    @property
    def parent(self) -> Remote:
        """The place that contains it."""
        return Remote(self.url.rstrip("/").rpartition("/")[0])

    def open(self) -> tuple[Any, str]:
        """Returns (the file system, the path on it).

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
            raise InputError(f"{self.url!r} needs another package: {hint}.") from None
        except ValueError as error:
            raise InputError(
                f"{self.url!r} cannot be opened ({error}); expected a URL that fsspec knows, such "
                "as s3://, gs://, hf:// or https://."
            ) from None

    def find(self) -> list[FoundFile]:
        """Returns the visible files below it, or itself if it is a file, sorted by path.

        Raises:
            InputError: there is nothing, or it may not be read.
        """
        system, path = self.open()
        try:
            infos = system.find(path, detail=True)
            if not infos and system.exists(path):
                infos = {path: system.info(path)}
        except Exception as error:  # every file system has its own
            raise InputError(
                f"{self.url!r} cannot be listed ({type(error).__name__}: {error}); check the URL, "
                "and that you may read it."
            ) from None
        if not infos:
            raise InputError(f"There is nothing at {self.url!r}; check the URL.")
        start, found = path.rstrip("/"), []
        for name, info in infos.items():
            inside = name.removeprefix(start).lstrip("/")
            if info.get("type") != "directory" and not is_hidden(inside):
                found.append(FoundFile(inside, int(info.get("size") or 0), _time(info)))
        return sorted(found, key=lambda file: file.path.split("/"))

    def read(self, start: int | None = None, stop: int | None = None) -> bytes:
        """Returns bytes of a file.

        Raises:
            OSError: it is gone, or three attempts to read it failed.
        """
        system, path = self.open()
        return _patiently(lambda: system.cat_file(path, start=start, end=stop), self)

    def copy_to(self, target: Path, *, size: int = 0) -> None:
        """Copies the file.

        Args:
            target: the local path; its folder is created.
            size: expected bytes; 0: unknown.

        Raises:
            OSError: it is gone, or three attempts to read it failed.
        """
        system, path = self.open()
        target.parent.mkdir(parents=True, exist_ok=True)

        def copy() -> None:
            system.get_file(path, str(target))
            if size and target.stat().st_size != size:
                raise OSError(f"{self} gave {target.stat().st_size:,} of {size:,} bytes")

        _patiently(copy, self)

    def exists(self) -> bool:
        """Returns whether the file exists."""
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


def _time(info: dict[str, Any]) -> int:
    """Returns when a file was written, in ns, or a number derived from its version; 0: unknown."""
    value = next((info[name] for name in _TIMES if info.get(name)), None)
    if isinstance(value, datetime):
        return int(value.timestamp() * 1e9)
    if isinstance(value, (int, float)):
        return int(value * 1e9)
    return 0 if value is None else zlib.crc32(str(value).encode())


def _patiently(step: Callable[[], Any], place: Remote) -> Any:
    """Runs a step over the network, up to three times."""
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
