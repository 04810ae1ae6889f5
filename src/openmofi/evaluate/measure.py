"""One dataset and where its vectors come from -> all scores that its layout allows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import numpy as np

from openmofi.embed import Places
from openmofi.errors import InputError
from openmofi.evaluate.attacks import attack_robustness
from openmofi.evaluate.data import AttackedImages, CaptionedImages, LabelledImages
from openmofi.evaluate.gpr1200 import gpr1200
from openmofi.evaluate.knn import knn
from openmofi.evaluate.layouts import Dataset
from openmofi.evaluate.metrics import nearest
from openmofi.evaluate.probe import probe
from openmofi.evaluate.prompts import class_prompts
from openmofi.evaluate.recall import recall
from openmofi.evaluate.results import Scores
from openmofi.evaluate.retrieval import retrieval
from openmofi.evaluate.revisited import RevisitedImages, revisited
from openmofi.evaluate.tagging import tagging
from openmofi.evaluate.typographic import typographic
from openmofi.evaluate.vectors import Encoded, ModelVectors, Vectors
from openmofi.evaluate.zeroshot import zero_shot
from openmofi.kb import KnowledgeBase
from openmofi.model.class_rows import FOLDER, load_head_rows, load_image_counts

BENCHMARKS = ("retrieval", "knn", "zero-shot", "tagging", "probe", "typographic")
DEFAULT_BENCHMARKS = BENCHMARKS[:4]
"""A probe fits dozens of classifiers, so it is run where it is asked for."""
_DISTRACTORS = 65_536
"""Distractors whose vectors are held at once."""
_MOST_TAGGED = 200_000
"""Entities of a knowledge base whose texts are encoded to be answered with."""


@dataclass(frozen=True)
class Wanted:
    """What is to be measured, and by which names the classes go."""

    benchmarks: frozenset[str]
    kb: KnowledgeBase | None = None
    class_names: str | None = None
    if_possible: bool = False
    """Pass over a benchmark that the data does not allow, in place of refusing it."""


@dataclass(frozen=True)
class Measured:
    """Scores, and for the report what they were computed from."""

    scores: Scores
    dataset: Dataset
    encoded: Encoded
    predicted: np.ndarray | None = None
    """Class that zero-shot answers for each encoded picture; None where it was not asked."""
    names: tuple[str, ...] = ()
    """What each class is called."""
    queries: np.ndarray | None = None
    """Vectors of what is not in `encoded`: of a benchmark's queries, or of captions."""


def measure(source: Vectors, name: str, dataset: Dataset, wanted: Wanted) -> Measured:
    """Returns what a dataset says of a model.

    Raises:
        InputError: too few of its pictures can be read, or a protocol needs what is not there.
    """
    if isinstance(dataset, RevisitedImages):
        return _revisited(source, name, dataset)
    if isinstance(dataset, CaptionedImages):
        return _captioned(source, name, dataset)
    if isinstance(dataset, AttackedImages):
        return _attacked(source, name, dataset)
    if dataset.layout == "gpr1200":
        return _gpr1200(source, name, dataset)
    return _labelled(source, name, dataset, wanted)


def _labelled(source: Vectors, name: str, dataset: LabelledImages, wanted: Wanted) -> Measured:
    encoded = _readable(source.images(dataset.places, name), name)
    classes = dataset.classes
    labels = dataset.codes(classes)[encoded.rows]
    parts, notes = [], {}
    gallery = _gallery(source, name, dataset, classes, wanted)
    if "retrieval" in wanted.benchmarks:
        parts.append(retrieval(encoded.vectors, labels))
    if "knn" in wanted.benchmarks:
        parts.append(knn(encoded.vectors, labels, *gallery))
    prompts, predicted = class_prompts(classes, dataset, wanted.kb, wanted.class_names), None
    if wanted.benchmarks & {"zero-shot", "typographic"} and isinstance(source, ModelVectors):
        texts = prompts.vectors(source.model)
        predicted = nearest(encoded.vectors, texts, 1, same=False)[0][:, 0]
        notes |= prompts.notes
        if "zero-shot" in wanted.benchmarks:
            parts.append(zero_shot(encoded.vectors, labels, texts))
        if "typographic" in wanted.benchmarks:
            attack = typographic(source, dataset, encoded, texts=texts, names=prompts.names)
            parts.append(attack)
    if "tagging" in wanted.benchmarks and isinstance(source, ModelVectors):
        shown = [dataset.labels[row] for row in encoded.rows]
        parts.append(_tagging(source, encoded, shown, wanted.kb))
    if "probe" in wanted.benchmarks and (gallery or not wanted.if_possible):
        parts.append(_probe(source, name, encoded, labels, gallery))
    scores = _scores(source, name, dataset.layout, encoded, dict(chain(*parts)), notes, classes)
    return Measured(scores, dataset, encoded, predicted, prompts.names)


def _gallery(
    source: Vectors, name: str, dataset: LabelledImages, classes: list[str], wanted: Wanted
) -> tuple[np.ndarray, np.ndarray] | tuple[()]:
    """Returns (vectors, classes) of the training pictures, if there are any and one asks."""
    if dataset.gallery is None or not wanted.benchmarks & {"knn", "probe"}:
        return ()
    encoded = source.images(dataset.gallery.places, f"{name} gallery")
    if not len(encoded.rows):
        raise InputError(f"None of the training pictures of {name!r} can be read.")
    return encoded.vectors, dataset.gallery.codes(classes)[encoded.rows]


def _tagging(
    source: ModelVectors, encoded: Encoded, shown: Sequence[str], kb: KnowledgeBase | None
) -> Iterator[tuple[str, float]]:
    """Yields tagging scores by the model's class head, else by the knowledge base's texts."""
    head = source.folder / FOLDER if source.folder else None
    if head is not None and head.is_dir():
        rows, ids = load_head_rows(head)
        if set(ids) & set(shown):
            yield from tagging(encoded.vectors, shown, rows.numpy(), ids, load_image_counts(head))
    elif (
        kb is not None and len(kb) <= _MOST_TAGGED and any(kb.row_of(s) is not None for s in shown)
    ):
        texts = source.texts(kb.entity_text(list(range(len(kb)))))
        yield from tagging(encoded.vectors, shown, texts, kb.ids.to_pylist(), {})


def _probe(
    source: Vectors,
    name: str,
    encoded: Encoded,
    labels: np.ndarray,
    gallery: tuple[np.ndarray, np.ndarray] | tuple[()],
) -> Iterator[tuple[str, float]]:
    if not gallery:
        raise InputError(
            f"A probe learns from training pictures, which {name!r} has not; expected train/ and "
            "test/ with class folders, or leave probe out of --benchmarks."
        )
    device = str(source.model.device) if isinstance(source, ModelVectors) else "cpu"
    yield from probe(encoded.vectors, labels, *gallery, device=device)


def _gpr1200(source: Vectors, name: str, dataset: LabelledImages) -> Measured:
    encoded = _whole(source.images(dataset.places, name), name)
    found = dict(gpr1200(encoded.vectors))
    scores = _scores(source, name, "gpr1200", encoded, found, {}, dataset.classes)
    return Measured(scores, dataset, encoded)


def _revisited(source: Vectors, name: str, dataset: RevisitedImages) -> Measured:
    gallery = _whole(source.images(dataset.gallery, f"{name} gallery"), name)
    queries = _whole(source.images(dataset.queries, f"{name} queries"), name)
    notes, blocks = {"queries": len(queries.rows)}, None
    if dataset.distractors is not None:
        notes["distractors"] = len(dataset.distractors.table)
        blocks = _distractors(source, name, dataset.distractors)
    found = dict(revisited(gallery.vectors, queries.vectors, dataset.truth, blocks))
    scores = _scores(source, name, "revisited", gallery, found, notes, [])
    return Measured(scores, dataset, gallery, queries=queries.vectors)


def _distractors(source: Vectors, name: str, places: Places) -> Iterator[np.ndarray]:
    """Yields the vectors of a million pictures, a part of them in the memory at a time."""
    for start in range(0, len(places.table), _DISTRACTORS):
        part = replace(places, table=places.table.slice(start, _DISTRACTORS))
        yield _whole(source.images(part, f"{name} distractors {start:,}+"), name).vectors


def _captioned(source: Vectors, name: str, dataset: CaptionedImages) -> Measured:
    model = _with_texts(source, name)
    encoded = _readable(model.images(dataset.places, name), name)
    captions = [dataset.captions[row] for row in encoded.rows]
    owner = np.repeat(np.arange(len(captions)), [len(texts) for texts in captions])
    texts = model.texts([text for several in captions for text in several])
    found = dict(recall(encoded.vectors, texts, owner))
    notes = {"captions": len(texts)}
    scores = _scores(source, name, "captions", encoded, found, notes, [])
    return Measured(scores, dataset, encoded, queries=texts)


def _attacked(source: Vectors, name: str, dataset: AttackedImages) -> Measured:
    model = _with_texts(source, name)
    encoded = _readable(model.images(dataset.places, name), name)
    found = dict(attack_robustness(encoded.vectors, dataset.take(encoded.rows), model.texts))
    classes = sorted({*dataset.objects, *(word for word in dataset.words if word)})
    scores = _scores(source, name, "attacks", encoded, found, {}, classes)
    return Measured(scores, dataset, encoded)


def _with_texts(source: Vectors, name: str) -> ModelVectors:
    if not isinstance(source, ModelVectors):
        raise InputError(
            f"{name!r} compares pictures with texts, which a file of vectors has not; pass the "
            "model in place of --embeddings."
        )
    return source


def _readable(encoded: Encoded, name: str) -> Encoded:
    if len(encoded.rows) < 2:
        raise InputError(f"Fewer than two pictures of {name!r} can be read.")
    return encoded


def _whole(encoded: Encoded, name: str) -> Encoded:
    """Refuses a benchmark of fixed size with pictures missing: its score would be another."""
    lost = sum(encoded.refused.values())
    if lost:
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in encoded.refused.items())
        raise InputError(
            f"{lost:,} pictures of {name!r} cannot be used ({reasons}), and its protocol counts "
            "every one; mend them."
        )
    return encoded


def _scores(
    source: Vectors,
    name: str,
    layout: str,
    encoded: Encoded,
    metrics: dict[str, float],
    notes: dict[str, Any],
    classes: Sequence[str],
) -> Scores:
    if encoded.refused:
        notes = notes | {"refused": encoded.refused}
    lost = sum(encoded.refused.values())
    return Scores(source.name, name, len(encoded.rows), len(classes), lost, metrics, layout, notes)
