"""The page's own files, kept in memory since they are small and requested together."""

from __future__ import annotations

import mimetypes
from collections.abc import Iterator
from hashlib import blake2b
from importlib.resources import files
from importlib.resources.abc import Traversable

from fastapi import Response

# Some systems' tables have another type, with which browsers refuse to run modules.
mimetypes.add_type("text/javascript", ".js")


class PageFiles:
    """The files of openmofi/serve/static at the time when the server started."""

    def __init__(self) -> None:
        self._data = dict(_read(files("openmofi.serve") / "static"))
        self._etags = {
            name: f'"{blake2b(data, digest_size=8).hexdigest()}"'
            for name, data in self._data.items()
        }

    def page(self) -> bytes:
        """Returns index.html."""
        return self._data["index.html"]

    def answer(self, name: str, if_none_match: str | None) -> Response | None:
        """Returns a file, or 304 if the client has it; None if there is no such file."""
        if name not in self._data:
            return None
        headers = {"etag": self._etags[name]}
        if if_none_match == headers["etag"]:
            return Response(status_code=304, headers=headers)
        kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
        return Response(self._data[name], media_type=kind, headers=headers)


def _read(folder: Traversable, prefix: str = "") -> Iterator[tuple[str, bytes]]:
    """Yields (path, bytes) of all files."""
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _read(entry, f"{prefix}{entry.name}/")
        else:
            yield prefix + entry.name, entry.read_bytes()
