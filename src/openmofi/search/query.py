"""A question in words, images, entities, or a mix of them -> hits."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from jaxtyping import Float
from PIL import Image

from openmofi.errors import InputError, SettingsError
from openmofi.images.decode import read_image
from openmofi.kb import KnowledgeBase
from openmofi.search.filters import Filter
from openmofi.search.index import Hit, Index

if TYPE_CHECKING:
    from openmofi.model import MofiModel
    from openmofi.model.transform import ImageSource


@dataclass(frozen=True)
class Term:
    """One thing that is looked for, or, with a weight below zero, looked away from."""

    kind: Literal["text", "image", "entity", "row", "vector"]
    value: str | Path | bytes | int | np.ndarray
    """Words; an image's path or bytes; an entity's id or name; a row of the index; a vector."""
    weight: float = 1.0


@dataclass(frozen=True)
class Found:
    """The answer to a question."""

    hits: list[Hit]
    total: int
    """Rows that pass the filter and, where one was given, the least score."""
    plan: str
    """browse: nothing was asked; exact: all rows that pass were compared; approximate."""


class Searcher:
    """An index with the encoder and the knowledge base it needs, opened when first needed."""

    def __init__(
        self,
        index: Index | Path | str,
        *,
        model: MofiModel | Path | str | None = None,
        kb: Path | str | None = None,
    ):
        self.index = index if isinstance(index, Index) else Index.open(index)
        self._model = model or self.index.meta["model"] or None
        self._kb = kb

    @property
    def has_encoder(self) -> bool:
        """Tells whether there is a model for texts and images: a hub id, or a directory."""
        model = self._model
        if not isinstance(model, (str, Path)):
            return model is not None
        return not Path(model).is_absolute() or Path(model).is_dir()

    @cached_property
    def encoder(self) -> MofiModel:
        """The encoder of texts and images.

        Raises:
            InputError: the index does not say which, or it gives other vectors.
        """
        if self._model is None:
            raise InputError("The index does not say which model made it; pass --model.")
        encoder = self._model
        if isinstance(encoder, (str, Path)):
            from openmofi.model import load_model

            encoder = load_model(encoder)
        if encoder.dim != self.index.meta["dim"]:
            raise InputError(
                f"The model gives vectors of {encoder.dim} numbers, the index holds "
                f"{self.index.meta['dim']}; pass the model that made it with --model."
            )
        return encoder

    @cached_property
    def kb(self) -> KnowledgeBase | None:
        """The knowledge base; None where it is unknown, or no longer where it was.

        Raises:
            InputError: the one that was passed cannot be opened.
        """
        if self._kb is not None:
            return KnowledgeBase.open(self._kb)
        known = self.index.meta["kb"]
        return KnowledgeBase.open(known) if known and Path(known, "meta.json").is_file() else None

    def search(
        self,
        terms: list[Term] | tuple[Term, ...] = (),
        *,
        filter: Filter | None = None,
        k: int = 10,
        offset: int = 0,
        min_score: float | None = None,
    ) -> Found:
        """Returns the rows nearest to a mix of terms, best first.

        Without terms, all rows that pass the filter, each entity's best labelled image in turns.

        Args:
            terms: weighted; unit vectors are summed.
            filter: which rows may be found.
            k: how many hits.
            offset: how many are left out before them.
            min_score: least cosine of a hit.

        Raises:
            InputError: an unknown entity or row, an image that cannot be read, no encoder.
            SettingsError: k or offset is out of bounds.
        """
        if k < 1 or offset < 0:
            raise SettingsError(
                f"k and offset, the number of hits and of those left out, cannot be {k} and "
                f"{offset}; expected at least 1 and 0."
            )
        passing = self.index.passing(filter or Filter())
        total = len(self.index) if passing is None else int(passing.sum())
        if not terms:
            rows = self.index.labels.in_turns
            rows = rows if passing is None else rows[passing[rows]]
            return Found(self.index.hits(rows[offset : offset + k]), total, "browse")
        vector = self.vector(terms)
        rows, scores, plan = self.index.nearest(vector, k=offset + k, passing=passing)
        if min_score is not None:
            near = scores >= min_score
            rows, scores = rows[near], scores[near]
            total = len(rows)
            if near.all():  # else all of them were found
                total = self.index.count_near(vector, least=min_score, passing=passing)
        return Found(self.index.hits(rows[offset:], scores[offset:]), total, plan)

    def ask(
        self, terms: list[Term], *, filter: Filter, k: int, min_score: float | None = None
    ) -> Found:
        """Searches; entities alone are asked for their typical images.

        Raises:
            InputError: nothing is asked; else as `search`.
        """
        if not terms and not filter:
            raise InputError(
                "Ask for something: --text, --image, --entity or --like, or a filter such as "
                "--type."
            )
        terms = terms or [Term("entity", entity) for entity in filter.entities]
        return self.search(terms, filter=filter, k=k, min_score=min_score)

    def vector(self, terms: list[Term] | tuple[Term, ...]) -> Float[np.ndarray, " dim"]:
        """Returns the weighted sum of the terms' unit vectors, normalised.

        Raises:
            InputError: a term cannot be understood, or the terms cancel each other out.
        """
        total = np.zeros(self.index.meta["dim"], np.float32)
        for term in terms:
            vector = self._vector_of(term)
            total += term.weight * vector / max(float(np.linalg.norm(vector)), 1e-12)
        norm = float(np.linalg.norm(total))
        if norm < 1e-6:
            raise InputError("What is asked for cancels itself out; change a weight.")
        return total / norm

    def entity(self, name: str) -> str:
        """Returns the id that an id or a name stands for, among the entities of the index.

        Raises:
            InputError: no image shows such an entity.
        """
        if len(self.index.rows_of(name)):
            return name
        candidates = self.kb.query(name) if self.kb is not None else []
        labelled = self.index.entities.select(["id", "label"]).to_pylist()
        same = [e["id"] for e in labelled if e["label"].casefold() == name.casefold()]
        for candidate in [*(c.id for c in candidates), *same]:
            if len(self.index.rows_of(candidate)):
                return candidate
        hint = "" if self.kb is not None else " (pass --kb to look up other names)"
        raise InputError(f"No image of the index is labelled {name!r}{hint}.")

    def type(self, name: str) -> str:
        """Returns the id that an id or a name of a type stands for, among those of the index.

        Raises:
            InputError: no entity of the index is of such a type.
        """
        known = set(self.index.types.ids)
        candidates = self.kb.query(name) if self.kb is not None and name not in known else []
        for candidate in [name, *(c.id for c in candidates)]:
            if candidate in known:
                return candidate
        raise InputError(
            f"No entity of the index is of the type {name!r}; types are "
            f"{', '.join(sorted(known)[:5]) or 'unknown here'}."
        )

    def _vector_of(self, term: Term) -> np.ndarray:
        if term.kind == "text":
            return self.encoder.encode_texts([str(term.value)])[0]
        if term.kind == "image":
            assert not isinstance(term.value, int)
            return encode_image(self.encoder, term.value)[0]
        if term.kind == "entity":
            mean = self.index.mean_of(self.entity(str(term.value)))
            assert mean is not None
            return mean
        if term.kind == "row":
            return self.index.vectors(np.array([term.value], np.int64))[0]
        return np.asarray(term.value, np.float32)


def search(
    index: Index | Path | str,
    *,
    text: str | None = None,
    image: Path | str | None = None,
    entity: str | None = None,
    terms: list[Term] | tuple[Term, ...] = (),
    filter: Filter | None = None,
    k: int = 10,
    min_score: float | None = None,
    model: MofiModel | str | None = None,
    kb: Path | str | None = None,
) -> list[Hit]:
    """Searches by text, image or entity, or by a mix of them, within what a filter lets pass.

    Args:
        index: an index or its directory.
        text: what to look for; short for a term.
        image: an image of what to look for; short for a term.
        entity: only images of this entity (its id or any name); alone, its most typical ones.
        terms: more to look for, or away from.
        filter: further conditions.
        k: how many hits.
        min_score: least cosine of a hit.
        model: the encoder; the default is the one the index was made with.
        kb: knowledge base in which an entity's name is looked up; the default is the index's.

    Raises:
        InputError: no question, an unknown entity, an image that cannot be read.
        SettingsError: k is below 1.
    """
    searcher, filter = Searcher(index, model=model, kb=kb), filter or Filter()
    asked = [*terms]
    asked += [Term("text", text)] if text is not None else []
    asked += [Term("image", image)] if image is not None else []
    if entity is not None:
        filter = replace(filter, entities=(*filter.entities, searcher.entity(entity)))
    return searcher.ask(asked, filter=filter, k=k, min_score=min_score).hits


def encode_image(encoder: MofiModel, image: ImageSource) -> Float[np.ndarray, "1 dim"]:
    """Returns the unit vector of one image that the user named.

    Raises:
        InputError: it cannot be read.
    """
    try:
        decoded = read_image(image, encoder.transform.draft_size)
    except Exception as error:
        name = repr(str(image)) if isinstance(image, (str, Path)) else "given"
        raise InputError(f"Cannot read the image {name}: {_reason_of(error)}.") from None
    return encoder.encode_images([decoded])


def _reason_of(error: Exception) -> str:
    """Returns why an image cannot be read, without the path that the message names anyway."""
    said = getattr(error, "strerror", None) or str(error).split(" <")[0].rstrip(".")
    foreseen = isinstance(error, (OSError, Image.DecompressionBombError))
    return said if foreseen and said else f"{type(error).__name__}: {said}".rstrip(": ")
