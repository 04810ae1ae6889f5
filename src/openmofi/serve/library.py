"""What the server reads from: one state of the index, and the knowledge base with its names.

When another process changes the index, a new `Library` replaces the old one; requests in progress
finish with the old one. Data derived from the index (names for completion, the map's buffers)
belong to the library and are made on first use.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterable
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from openmofi.errors import InputError
from openmofi.files.remote import open_root
from openmofi.images.look import fetch
from openmofi.kb import KnowledgeBase
from openmofi.refused import Refused
from openmofi.search import Hit, Index, Searcher
from openmofi.serve import replies
from openmofi.serve.marks import Marks
from openmofi.serve.refusal import Refusal
from openmofi.serve.uploads import refuse_image

Made = TypeVar("Made")


class Library:
    """An index, its knowledge base, and data derived from them."""

    def __init__(
        self,
        index: Index,
        *,
        model: str | Path | None,
        kb: str | Path | None,
        marks: Marks | None = None,
    ):
        self.index, self._marks = index, marks
        self.searcher = Searcher(index, model=model, kb=kb)
        self.version = blake2b(
            f"{index.folder}{index.meta}".encode(errors="replace"), digest_size=6
        ).hexdigest()
        self._made: dict[Callable[..., Any], Any] = {}
        self._locks: dict[Callable[..., Any], threading.Lock] = defaultdict(threading.Lock)

    @property
    def kb(self) -> KnowledgeBase | None:
        """The knowledge base, or None."""
        return self.searcher.kb

    def once(self, make: Callable[..., Made], *given: Any) -> Made:
        """Returns the cached result of `make(library, *given)`, which is called only once."""
        with self._locks[make]:
            if make not in self._made:
                self._made[make] = make(self, *given)
        return self._made[make]

    @cached_property
    def own(self) -> dict[str, dict[str, Any]]:
        """The index's own entities by id, those with most images first."""
        return {entity["id"]: entity for entity in self.index.entities.to_pylist()}

    def texts(self, entity: str) -> tuple[str, str]:
        """Returns (label, or else id; description) of an entity."""
        known = self.own.get(entity)
        if known and known["label"] != entity:
            return known["label"], known["description"]
        row = self.kb.row_of(entity) if self.kb else None
        if self.kb is None or row is None:
            return (self.kb.classes.get(entity, entity) if self.kb else entity), ""
        texts = self.kb.texts
        return texts.label[row].as_py() or entity, texts.description[row].as_py()

    def label(self, entity: str) -> str:
        """Returns the label of an entity, else its id."""
        return self.texts(entity)[0]

    def resolve(self, name: str) -> str:
        """Resolves an id or a name to an entity of the index, or else of the knowledge base.

        Raises:
            Refusal: there is no such entity.
        """
        try:
            return self.searcher.resolve(name)
        except InputError as error:
            raise Refusal(404, "no_such_entity", str(error)) from None

    def text_of_absent(self, name: str) -> str | None:
        """Returns the text of an entity that no image is labelled with; None: one is.

        Raises:
            Refusal: there is no such entity.
        """
        entity = self.resolve(name)
        return None if len(self.index.rows_of(entity)) else self.searcher.text_of(entity)

    def check_row(self, row: int) -> int:
        """Returns the row if it exists.

        Raises:
            Refusal: the index has no such row, or it was deleted.
        """
        if row < self.index.num_rows and self.index.live[row]:
            return row
        last = self.index.num_rows - 1
        message = f"There is no image {row}; the index has rows 0 to {last}, except deleted ones."
        raise Refusal(404, "no_such_image", message)

    def image(self, row: int) -> bytes:
        """Returns the encoded image of a row.

        Raises:
            Refusal: the image cannot be read.
        """
        found = fetch(self.index.read_image, row)
        if isinstance(found, Refused):
            raise refuse_image(found)
        return found

    def place(self, row: int) -> tuple[Any, ...]:
        """Returns what identifies a row's image, including the version of its file."""
        root, [stored] = self.index.root_of(row), self.index.take(np.array([row])).to_pylist()
        shard, offset, size, path = (stored[name] for name in ("shard", "offset", "size", "path"))
        state, file = None, open_root(root) / (shard or path)
        if isinstance(file, Path):  # the file's version
            try:
                known = file.stat()
                state = known.st_mtime_ns, known.st_size
            except (OSError, ValueError):
                pass  # it is gone
        return self.index.meta["id"], root, shard, offset, size, path, state

    def hits(self, hits: Iterable[Hit]) -> list[replies.HitView]:
        """Returns hits as the client sees them."""
        return [self._hit(hit) for hit in hits]

    def hit(self, row: int) -> replies.HitView:
        """Returns one row, without a score."""
        return self._hit(self.index.hits(np.array([self.check_row(row)]))[0])

    def face(self, entity: str) -> str | None:
        """Returns the URL of the thumbnail of an entity's surest image."""
        row = self.once(_surest_rows).get(entity)
        return None if row is None else self.thumbnail(row)

    def thumbnail(self, row: int) -> str:
        """Returns the URL of a row's thumbnail, which differs for a changed index."""
        return f"/api/images/{row}/thumbnail?v={self.version}"

    def _hit(self, hit: Hit) -> replies.HitView:
        scores: tuple[float | None, ...] = hit.label_scores
        if len(scores) != len(hit.entities):  # there are none, or they cannot be assigned to labels
            scores = (None,) * len(hit.entities)
        return replies.HitView(
            row=hit.row,
            id=hit.id,
            score=hit.score,
            caption=hit.caption,
            source=hit.source,
            url=hit.url,
            text_area=hit.text_area,
            entities=[
                replies.ImageEntity(id=entity, label=self.label(entity), score=score)
                for entity, score in zip(hit.entities, scores, strict=True)
            ],
            marks=self._marks.of(hit.id, hit.shard, hit.caption, scores) if self._marks else [],
            thumbnail=self.thumbnail(hit.row),
            image=f"/api/images/{hit.row}/file",
        )


def _surest_rows(library: Library) -> dict[str, int]:
    """Returns for each entity the row in which its label has the best score."""
    labels = library.index.labels
    label = np.flatnonzero(library.index.live[labels.row])
    score = np.nan_to_num(labels.score[label], nan=-1.0)
    label = label[np.lexsort((label, -score, labels.code[label]))]
    codes, first = np.unique(labels.code[label], return_index=True)
    rows = labels.row[label[first]].tolist()
    return dict(zip((labels.ids[code] for code in codes), rows, strict=True))
