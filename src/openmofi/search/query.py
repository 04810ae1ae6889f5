"""A query of texts, images and entities -> hits."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
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
from openmofi.search.presence import BROAD, Presence, PresenceKind, unknown

if TYPE_CHECKING:
    from openmofi.model import MofiModel
    from openmofi.model.transform import ImageSource


@dataclass(frozen=True)
class Term:
    """One part of a query; with a negative weight, it is searched away from."""

    kind: Literal["text", "image", "entity", "row", "vector"]
    value: str | Path | bytes | int | np.ndarray
    """A text; an image's path or bytes; an entity's id or name; a row of the index; a vector."""
    weight: float = 1.0
    of: PresenceKind | None = None
    """What a vector was made of, if known."""


@dataclass(frozen=True)
class Found:
    """The result of a search."""

    hits: list[Hit]
    total: int
    """Number of rows that pass the filter and, if given, the least score."""
    plan: str
    """browse: there was no query; exact: all passing rows were compared; approximate."""
    presence: Presence
    """Whether the index holds what was asked for; if not, the hits are only the nearest."""
    passing: np.ndarray | None = field(default=None, repr=False, compare=False)
    """Whether each row of the index passes the filter; None if all do."""


class Searcher:
    """An index with its encoder and knowledge base, which are opened when first needed."""

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
        """Returns whether there is a model for texts and images: a hub id, or a directory."""
        model = self._model
        if not isinstance(model, (str, Path)):
            return model is not None
        return not Path(model).is_absolute() or Path(model).is_dir()

    @property
    def reads_texts(self) -> bool:
        """Returns whether texts can be searched by, as far as shows without loading a model."""
        model = self._model
        if not self.has_encoder or not isinstance(model, (str, Path)):
            return self.has_encoder and getattr(model, "reads_texts", True)
        folder = Path(model)
        names = ("*token*", "vocab*", "*.model", "open_clip*")
        return not folder.is_dir() or any(next(folder.glob(name), None) for name in names)

    @cached_property
    def encoder(self) -> MofiModel:
        """The encoder of texts and images.

        Raises:
            InputError: the index does not name a model, or its vectors have another width.
        """
        if self._model is None:
            raise InputError("The index does not say which model made it; pass --model.")
        encoder = self._model
        if isinstance(encoder, (str, Path)):
            from openmofi.model import load_model

            encoder = load_model(encoder, precision="auto")
        if encoder.dim != self.index.meta["dim"]:
            raise InputError(
                f"The model gives vectors of {encoder.dim} numbers, the index holds "
                f"{self.index.meta['dim']}; pass the model that made it with --model."
            )
        return encoder

    @cached_property
    def kb(self) -> KnowledgeBase | None:
        """The knowledge base; None if it is unknown or has been moved.

        Raises:
            InputError: the given one cannot be opened.
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
        absent_rate: float | None = None,
    ) -> Found:
        """Returns the rows nearest to a mix of terms, best first.

        Without terms, returns all rows that pass the filter: the best labelled image of each
        entity, then the second best of each, and so on.

        Args:
            terms: the weighted terms, whose unit vectors are summed.
            filter: conditions on the rows.
            k: number of hits.
            offset: number of hits skipped before them.
            min_score: least cosine of a hit.
            absent_rate: share of the queries for absent things that may find something; None: the
                rate that the index was calibrated for.

        Raises:
            InputError: an unknown entity or row, an unreadable image, or no encoder.
            SettingsError: k, offset or the rate is out of bounds.
        """
        if absent_rate is not None and not 0 < absent_rate < 1:
            raise SettingsError(
                f"The rate of absent things that are found cannot be {absent_rate:g}; expected a "
                "share above 0 and below 1."
            )
        if k < 1 or offset < 0:
            raise SettingsError(
                f"k and offset, the numbers of hits and of skipped ones, cannot be {k} and "
                f"{offset}; expected at least 1 and 0."
            )
        passing = self.index.passing(filter or Filter())
        total = len(self.index) if passing is None else int(passing.sum())
        if not terms:
            rows = self.index.labels.in_turns
            rows = rows if passing is None else rows[passing[rows]]
            hits = self.index.hits(rows[offset : offset + k])
            return Found(hits, total, "browse", unknown("Nothing was asked for."), passing)
        vector = self.vector(terms)
        deep = max(offset + k, BROAD)
        rows, scores, plan = self.index.nearest(vector, k=deep, passing=passing)
        if min_score is not None:
            presence = unknown("The least score that was asked for decides.")
        else:
            presence = self._presence(terms, vector, scores, passing=passing, rate=absent_rate)
        rows, scores = rows[: offset + k], scores[: offset + k]
        if min_score is not None:
            near = scores >= min_score
            rows, scores = rows[near], scores[near]
            total = len(rows)
            if near.all():  # else all of them were found
                total = self.index.count_near(vector, least=min_score, passing=passing)
        hits = self.index.hits(rows[offset:], scores[offset:])
        return Found(hits, total, plan, presence, passing)

    def ask(
        self,
        terms: list[Term],
        *,
        filter: Filter,
        k: int,
        min_score: float | None = None,
        absent_rate: float | None = None,
    ) -> Found:
        """Searches; for a filter by entities alone, returns their typical images.

        Entities that no image is labelled with are searched by their texts, among all rows.

        Raises:
            InputError: the query is empty; else as `search`.
        """
        if not terms and not filter:
            raise InputError(
                "Ask for something: --text, --image, --entity or --like, or a filter such as "
                "--type."
            )
        if not terms:
            labelled = [entity for entity in filter.entities if len(self.index.rows_of(entity))]
            terms = [Term("entity", entity) for entity in labelled or filter.entities]
            if not labelled:
                filter = replace(filter, entities=())
        return self.search(terms, filter=filter, k=k, min_score=min_score, absent_rate=absent_rate)

    def vector(self, terms: list[Term] | tuple[Term, ...]) -> Float[np.ndarray, " dim"]:
        """Returns the weighted sum of the terms' unit vectors, normalised.

        Raises:
            InputError: a term cannot be resolved, or the terms cancel each other out.
        """
        total = np.zeros(self.index.meta["dim"], np.float32)
        for term in terms:
            vector = self._vector_of(term)
            total += term.weight * vector / max(float(np.linalg.norm(vector)), 1e-12)
        norm = float(np.linalg.norm(total))
        if norm < 1e-6:
            raise InputError("The terms of the query cancel each other out; change a weight.")
        return total / norm

    def _presence(
        self,
        terms: list[Term] | tuple[Term, ...],
        vector: Float[np.ndarray, " dim"],
        cosines: np.ndarray,
        *,
        passing: np.ndarray | None,
        rate: float | None,
    ) -> Presence:
        """Tells whether the rows that pass show what was asked for."""
        asked = [term for term in terms if term.weight]
        if len(asked) != 1 or asked[0].weight < 0:
            return unknown("Only a query by one text, image or entity is told to be absent.")
        [term] = asked
        if term.kind == "entity":
            rows = self.index.rows_of(self.resolve(str(term.value)))
            shown = len(rows) if passing is None else int(passing[rows].sum())
            if shown:
                return Presence(True, None, f"{shown:,} of the images are labelled with it.")
            kind = None if len(rows) else "text"
        else:
            kind = term.kind if term.kind in ("text", "image") else term.of
        if kind is None:
            return unknown("Nothing is known of absent things of this kind.")
        if self.index.calibration is None:
            return unknown(
                "Whether anything here looks like it is not known; see `openmofi index calibrate`."
            )
        if self.index.calibration_is_old:
            share = self.index.changed_since_calibration
            return unknown(
                f"The index has changed by {share:.0%} since it was calibrated; calibrate it "
                "again with `openmofi index calibrate`."
            )
        return self.index.calibration.presence(kind, vector, cosines, rate=rate)

    def entity(self, name: str) -> str:
        """Resolves an id or a name to the id of an entity of the index.

        Raises:
            InputError: no image of the index shows such an entity.
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

    def resolve(self, name: str) -> str:
        """Resolves an id or a name to an entity of the index, or else of the knowledge base.

        Raises:
            InputError: neither knows it, or texts cannot be searched by.
        """
        try:
            return self.entity(name)
        except InputError:
            if self.kb is None or not self.reads_texts:
                raise
            if self.kb.row_of(name) is not None:
                return name
            named = self.kb.query(name, limit=1)
            if not named or named[0].match != "exact":
                raise
            return named[0].id

    def text_of(self, entity: str) -> str:
        """Returns the text of an entity by its id, as the knowledge base describes it."""
        assert self.kb is not None
        return self.kb.entity_text(self.kb.rows_of([entity]))[0]

    def type(self, name: str) -> str:
        """Resolves an id or a name to the id of a type in the index.

        Raises:
            InputError: no entity of the index has such a type.
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
            entity = self.resolve(str(term.value))
            mean = self.index.mean_of(entity)
            if mean is None:  # nothing is labelled with it
                return self.encoder.encode_texts([self.text_of(entity)])[0]
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
    """Searches by text, image or entity, or by a mix of them, among the rows that pass a filter.

    Args:
        index: an index or its directory.
        text: a text to search for; short for a term.
        image: an image to search for; short for a term.
        entity: only images of this entity (its id or any name); alone, its most typical ones.
        terms: further terms of the query.
        filter: further conditions.
        k: number of hits.
        min_score: least cosine of a hit.
        model: the encoder; the default is the one the index was made with.
        kb: knowledge base in which an entity's name is looked up; the default is the index's.

    Raises:
        InputError: an empty query, an unknown entity, or an unreadable image.
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
    """Returns the unit vector of an image given by the user.

    Raises:
        InputError: the image cannot be read.
    """
    try:
        decoded = read_image(image, encoder.transform.draft_size)
    except Exception as error:
        name = repr(str(image)) if isinstance(image, (str, Path)) else "given"
        # Without the path, which the message names anyway.
        why = getattr(error, "strerror", None) or str(error).split(" <")[0].rstrip(".")
        if not why or not isinstance(error, (OSError, Image.DecompressionBombError)):
            why = f"{type(error).__name__}: {why}".rstrip(": ")
        raise InputError(f"Cannot read the image {name}: {why}.") from None
    return encoder.encode_images([decoded])
