"""The state that a server keeps between requests, and how routes access it."""

from __future__ import annotations

import re
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from anyio import CapacityLimiter
from fastapi import Depends, Request

from openmofi.config import ServeSettings
from openmofi.errors import InputError, OpenMOFIError
from openmofi.files.folders import cache_folder
from openmofi.search import Index
from openmofi.select.selection import Selection
from openmofi.serve.desk import Desk
from openmofi.serve.encoding import BatchingEncoder
from openmofi.serve.facets import facets_of_all
from openmofi.serve.files import PageFiles
from openmofi.serve.library import Library
from openmofi.serve.marks import Marks
from openmofi.serve.metrics import Metrics
from openmofi.serve.names import EntityNames
from openmofi.serve.neighbours import EntityMeans
from openmofi.serve.refusal import Refusal
from openmofi.serve.thumbnail_cache import ThumbnailCache
from openmofi.serve.uploads import READ_AT_ONCE, Uploads
from openmofi.serve.verdicts import Verdicts

_LOOK_AGAIN = 1.0
"""Seconds between checks whether the index has changed."""


class Served:
    """The state of a server."""

    def __init__(
        self,
        index: Index,
        settings: ServeSettings,
        *,
        model: Path | str | None,
        kb: Path | str | None,
        data: Path | str | None,
        reports: Sequence[Path | str],
        token: str | None,
    ):
        self.settings, self.token = settings, token
        self._model, self._kb = model, kb
        self.metrics = Metrics()
        self.files = PageFiles()
        self.uploads = Uploads(kept=settings.uploads_kept)
        # Uploads are held in memory until they are decoded, so that their number is limited.
        self.reading = CapacityLimiter(READ_AT_ONCE)
        # An image of a few bytes may have 89 million pixels, so that few are decoded at once.
        self.decoding = CapacityLimiter(settings.decoders)
        self.thumbnails = ThumbnailCache(
            cache_folder() / "thumbnails", settings.thumbnail_bytes, self.metrics
        )
        self._data = _selection_folder(data, index.meta["selection"])
        self._marks = Marks(self._data) if self._data else None
        self._library = _checked(Library(index, model=model, kb=kb, marks=self._marks), model)
        self._encoder = self._new_encoder()
        self.reports = named_reports(reports)
        self._verdicts: dict[Path, tuple[int, Verdicts]] = {}
        self._desk: Desk | None = None
        self._lock = threading.Lock()
        self._opening = threading.Lock()
        self._look_at = time.monotonic() + _LOOK_AGAIN

    @property
    def library(self) -> Library:
        """The index in its current state, or that of a moment ago."""
        if time.monotonic() >= self._look_at:
            self._look_at = time.monotonic() + _LOOK_AGAIN
            if not self._library.index.is_current() and self._opening.acquire(blocking=False):
                threading.Thread(target=self._reopen, name="reopen", daemon=True).start()
        return self._library

    @property
    def encoder(self) -> BatchingEncoder:
        """The encoder.

        Raises:
            Refusal: there is no encoder.
        """
        if not self._library.searcher.has_encoder:
            message = "The server has no encoder for texts and images; start it with --model."
            raise Refusal(503, "no_encoder", message)
        return self._encoder

    @property
    def model_folder(self) -> str:
        """The encoder's folder or hub id."""
        return str(self._model or self._library.index.meta["model"])

    @property
    def has_data(self) -> bool:
        """Whether there is a selection."""
        return self._data is not None

    @property
    def verdicts(self) -> Verdicts:
        """The verdicts of the selection.

        Raises:
            Refusal: there is no selection.
        """
        if self._data is None:
            message = "The server has no selection; start it with --data i2e/select/NAME."
            raise Refusal(404, "no_data", message)
        return self._opened(self._data)

    @property
    def desk(self) -> Desk:
        """Where the labels of the selection are corrected.

        Raises:
            Refusal: there is no selection.
        """
        selection = self.verdicts.selection
        with self._lock:
            if self._desk is None or self._desk.selection is not selection:
                self._desk = Desk(selection)  # `select` has run again
            return self._desk

    def verdicts_of(self, folder: Path) -> Verdicts:
        """Returns the verdicts of the selection that an image comes from, even if it was moved.

        Raises:
            Refusal: the selection is gone.
        """
        return self._opened(folder) if (folder / "card.json").is_file() else self.verdicts

    def _opened(self, folder: Path) -> Verdicts:
        try:
            made = (folder / "card.json").stat().st_mtime_ns  # `select` may have run again
        except OSError:
            raise Refusal(404, "no_data", f"The selection {folder.name!r} is gone.") from None
        with self._lock:
            if folder not in self._verdicts or self._verdicts[folder][0] != made:
                selection = Selection(folder.parent.parent, folder.name)
                self._verdicts[folder] = made, Verdicts(selection)
            return self._verdicts[folder][1]

    def start(self) -> None:
        """Starts to read what the first requests need, and to load the encoder."""
        threading.Thread(target=_warm, args=(self._library,), name="warm", daemon=True).start()
        if self._library.searcher.has_encoder:
            self._encoder.start()

    def stop(self) -> None:
        """Ends the encoder's thread, and a preview that is being made."""
        self._encoder.stop()
        if self._desk is not None:
            self._desk.stop()

    def _reopen(self) -> None:
        """Opens the changed index; the old one answers until then."""
        folder = self._library.index.folder
        try:
            new = Library(Index.open(folder), model=self._model, kb=self._kb, marks=self._marks)
            _warm(new)
        except (OpenMOFIError, OSError) as error:  # perhaps it is being replaced just now
            print(f"serving the index as it was: {error}", file=sys.stderr, flush=True)
        else:
            self._take(new)
        finally:
            self._opening.release()

    def _take(self, new: Library) -> None:
        """Switches to another library; clears the uploads if the model has changed."""
        old, self._library = self._library, new
        if new.index.meta["model"] != old.index.meta["model"]:
            encoder, self._encoder = self._encoder, self._new_encoder()
            self.uploads.clear()
            encoder.stop()

    def _new_encoder(self) -> BatchingEncoder:
        """Returns an encoder that loads the current model; it keeps no reference to a library."""
        return BatchingEncoder(lambda: self._library.searcher.encoder, self.settings, self.metrics)


def _checked(library: Library, model: Path | str | None) -> Library:
    """Returns the library if its parts exist.

    Raises:
        InputError: the knowledge base cannot be opened, or the given model does not exist.
    """
    _ = library.kb
    if model is not None:
        # A name with an owner may be on the hub, one with a prefix open_clip's, a word neither.
        is_word = not re.search("[/:]", str(model)) and not Path(model).is_dir()
        if is_word or not library.searcher.has_encoder:
            raise InputError(f"There is no model directory {str(model)!r}; pass another --model.")
    return library


def _warm(library: Library) -> None:
    """Reads and derives what most requests need."""
    _ = library.index.rows, library.own, library.index.labels.in_turns
    for make in (facets_of_all, EntityNames, EntityMeans):
        library.once(make)


def _selection_folder(given: Path | str | None, known: str) -> Path | None:
    """Returns the given selection, or else the index's if it still exists.

    Raises:
        InputError: the given one is not a selection.
    """
    folder = Path(given or known).resolve()
    if (folder / "card.json").is_file() and (given or known):
        return folder
    if given is None:
        return None
    raise InputError(f"{str(given)!r} is not a selection; expected i2e/select/NAME as --data.")


def named_reports(reports: Sequence[Path | str]) -> dict[str, Path]:
    """Returns the HTML file of each report by the name of its directory, or by its own.

    Raises:
        InputError: a report is missing.
    """
    found: dict[str, Path] = {}
    for report in map(Path, reports):
        file = report / "report.html" if report.is_dir() else report
        if not file.is_file():
            raise InputError(
                f"There is no report {str(file)!r}; make one with `openmofi evaluate`, or pass "
                "--report DIR with another directory."
            )
        own = file.resolve().parent.name if file.name == "report.html" else file.stem
        name = re.sub(r"[^\w-]+", "-", own)
        while name in found:
            name += "-2"
        found[name] = file
    return found


async def _served(request: Request) -> Served:
    return request.app.state.served


Now = Annotated[Served, Depends(_served)]
"""The server's state as an argument of a route."""
