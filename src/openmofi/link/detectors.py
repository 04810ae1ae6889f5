"""Captions -> spans that look like names, found by a model instead of by the names of a KB.

In: an Arrow array of captions. Out: a table of `DETECTED`. The gazetteer (`link.mentions`) needs no
detector; one helps if names are also common words, or if the KB lacks a name. spaCy and GLiNER are
optional extras; `model.mentions` is a Hugging Face token classifier. Any object with a `detect`
method will do.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from importlib import import_module
from typing import Any, Literal, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from openmofi.errors import InputError, SettingsError

DETECTED = pa.schema(
    [
        ("row", pa.int32()),  # index of the caption in the input
        ("start", pa.int32()),  # code points of the raw caption
        ("end", pa.int32()),
        ("label", pa.string()),  # the detector's own type, such as PERSON
        ("score", pa.float32()),  # the detector's probability; 1 if it has none
    ]
)

GLINER_LABELS = ("person", "organization", "place", "product", "work of art", "event", "species")
# GLiNER cuts texts after config.max_len words (384 in its published models) and drops the rest.
_WINDOW_WORDS = 256
_OVERLAP_WORDS = 32
_MIN_IOU = 0.5
# Labels of OntoNotes, on which spaCy's English pipelines were trained, that are no names.
_NUMBERS = frozenset({"CARDINAL", "DATE", "MONEY", "ORDINAL", "PERCENT", "QUANTITY", "TIME"})
_TRAINED = frozenset({"tok2vec", "transformer", "ner"})
_SYNTAX = frozenset(
    {"tagger", "morphologizer", "parser", "senter", "attribute_ruler", "lemmatizer"}
)

Detection = tuple[int, int, int, str, float]
"""Row, start, end, label, score."""


class MentionDetector(Protocol):
    """Finds names in captions."""

    def detect(self, captions: pa.StringArray, /) -> pa.Table:
        """Returns a table of `DETECTED`; null captions have no mentions."""
        ...


class SpacyDetector:
    """Named entities of a spaCy pipeline (https://spacy.io/api/entityrecognizer).

    Numbers, dates and times, which OntoNotes counts among the entities, are left out. A pipeline
    that is loaded by its name does not parse: its names need no syntax.
    """

    def __init__(self, model: str = "en_core_web_sm", *, nlp: Any = None):
        self._nlp = _load_spacy(model) if nlp is None else nlp

    def detect(self, captions: pa.StringArray, /) -> pa.Table:
        """Returns the names that the pipeline sets; their score is 1."""
        found: list[Detection] = []
        for row, document in enumerate(self._nlp.pipe(texts_of(captions))):
            found += [
                (row, entity.start_char, entity.end_char, entity.label_, 1.0)
                for entity in document.ents
                if entity.label_ not in _NUMBERS
            ]
        return detected(found)


def _load_spacy(model: str) -> Any:
    try:
        spacy = import_module("spacy")
    except ImportError as error:
        raise _missing("spaCy", "spacy", error) from None
    try:
        nlp = spacy.load(model)
    except OSError:
        raise InputError(
            f"spaCy has no pipeline {model!r}; pass the directory of one, or get it with: "
            f"python -m spacy download {model}"
        ) from None
    # A rule or a component of somebody's own may look at the syntax; then it stays.
    if set(nlp.pipe_names) <= _TRAINED | _SYNTAX:
        nlp.select_pipes(disable=[name for name in nlp.pipe_names if name in _SYNTAX])
    return nlp


class GlinerDetector:
    """Spans of any types that can be named in words, by GLiNER (arXiv 2311.08526).

    Captions that are too long for the model are cut into overlapping windows.
    """

    def __init__(
        self,
        model: str = "urchade/gliner_small-v2.1",
        *,
        labels: Sequence[str] = GLINER_LABELS,
        threshold: float = 0.5,
        predictor: Any = None,
    ):
        if not labels:
            raise SettingsError("GlinerDetector needs labels, such as ('person', 'place').")
        self._labels, self._threshold = list(labels), threshold
        self._model = _load_gliner(model) if predictor is None else predictor

    def detect(self, captions: pa.StringArray, /) -> pa.Table:
        """Returns spans with a probability of at least the threshold."""
        texts = texts_of(captions)
        places = [(row, *w) for row, text in enumerate(texts) for w in _windows(text)]
        pieces = [texts[row][start:end] for row, start, end in places]
        if not pieces:
            return detected([])
        answers = self._model.inference(pieces, self._labels, threshold=self._threshold)
        found = [
            (row, at + span["start"], at + span["end"], span["label"], span["score"])
            for (row, at, _), spans in zip(places, answers, strict=True)
            for span in spans
        ]
        return detected(_without_overlaps(found))


def _load_gliner(model: str) -> Any:
    try:
        gliner = import_module("gliner")
    except ImportError as error:
        raise _missing("GLiNER", "gliner", error) from None
    try:
        return gliner.GLiNER.from_pretrained(model)
    except (OSError, ValueError) as error:
        first_line = str(error).strip().splitlines()[0]
        raise InputError(f"Cannot load a GLiNER model from {model!r}: {first_line}") from error


def _windows(text: str) -> Iterator[tuple[int, int]]:
    """Yields (start, end) of overlapping pieces that fit into the model."""
    # GLiNER counts words and single marks, as this pattern does.
    words = [match.span() for match in re.finditer(r"\w+|[^\w\s]", text)]
    step = _WINDOW_WORDS - _OVERLAP_WORDS
    for at in range(0, max(len(words) - _OVERLAP_WORDS, min(len(words), 1)), step):
        piece = words[at : at + _WINDOW_WORDS]
        yield piece[0][0], piece[-1][1]


def _without_overlaps(found: Iterable[Detection]) -> list[Detection]:
    """Keeps the most probable of overlapping spans, which may come from two windows."""
    kept: dict[int, list[Detection]] = {}
    for span in sorted(found, key=lambda s: (-s[4], s[1] - s[2])):
        others = kept.setdefault(span[0], [])
        if all(span[2] <= other[1] or other[2] <= span[1] for other in others):
            others.append(span)
    return [span for spans in kept.values() for span in spans]


def _missing(what: str, extra: str, error: ImportError) -> SettingsError:
    return SettingsError(
        f"This detector needs {what}, which is not installed here ({error}); type: "
        f"pip install 'openmofi[{extra}]'"
    )


def texts_of(captions: pa.StringArray | pa.ChunkedArray) -> list[str]:
    """Returns captions as Python strings, null captions as empty strings.

    Raises:
        InputError: the captions are not an Arrow array of text.
    """
    kind = getattr(captions, "type", None)
    if kind is not None and pa.types.is_null(kind):
        return [""] * len(captions)
    if kind is None or not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise InputError(
            f"A mention detector expects an Arrow array of captions, not {kind or type(captions)}; "
            "write detect(pa.array(captions, pa.string()))."
        )
    return [caption or "" for caption in captions.to_pylist()]


def detected(found: Iterable[Detection]) -> pa.Table:
    """Returns spans as a table of `DETECTED`, in order of row, start and end."""
    columns = list(zip(*sorted(found), strict=True)) or [()] * len(DETECTED)
    arrays = [pa.array(c, field.type) for c, field in zip(columns, DETECTED, strict=True)]
    return pa.Table.from_arrays(arrays, schema=DETECTED)


def combine(
    gazetteer: pa.Table, found: pa.Table, *, how: Literal["intersect", "boost"]
) -> pa.Table:
    """Combines the spans of names with those of a detector.

    A span of the gazetteer is supported by a span of the detector in the same caption if one
    contains the other or their intersection over union is above 0.5. Containment counts because
    annotators disagree on titles and articles ("President Obama").

    Args:
        gazetteer: table with the columns row, start, end, and any others.
        found: the detector's table for the same captions.
        how: intersect keeps the supported spans; boost keeps all and adds the float32 column
            `detected`, the highest score of a supporting span, or 0.

    Raises:
        SettingsError: `how` is neither.
    """
    if how not in ("intersect", "boost"):
        raise SettingsError(f"combine knows how='intersect' and how='boost', not {how!r}.")
    support = _support(gazetteer, found)
    if how == "intersect":
        return gazetteer.filter(pa.array(support >= 0))
    column = pa.array(np.maximum(support, 0).astype(np.float32))
    return gazetteer.append_column("detected", column)


def _support(gazetteer: pa.Table, found: pa.Table) -> np.ndarray:
    """Returns the best score among the spans that support each span; -1 if there are none."""
    found = found.take(pc.sort_indices(found, sort_keys=[("row", "ascending")]))
    row, start, end = (gazetteer[name].to_numpy() for name in ("row", "start", "end"))
    other_row, other_start, other_end, score = (
        found[name].to_numpy() for name in ("row", "start", "end", "score")
    )
    # All pairs within a caption; a caption has a handful of each.
    first, last = (np.searchsorted(other_row, row, side) for side in ("left", "right"))
    counts = last - first
    one = np.repeat(np.arange(len(row)), counts)
    other = np.arange(len(one)) - np.repeat(np.cumsum(counts) - counts - first, counts)

    common = np.minimum(end[one], other_end[other]) - np.maximum(start[one], other_start[other])
    lengths = end[one] - start[one], other_end[other] - other_start[other]
    union = lengths[0] + lengths[1] - common
    agrees = (common == np.minimum(*lengths)) | (common > _MIN_IOU * union)
    support = np.full(len(row), -1.0)
    np.maximum.at(support, one[agrees], score[other[agrees]])
    return support
