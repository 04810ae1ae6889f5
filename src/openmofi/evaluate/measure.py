"""One dataset and where its vectors come from -> all scores that its layout allows."""

from __future__ import annotations

import sys
from collections import Counter
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
from openmofi.evaluate.probe import fit_probe, probe_scores
from openmofi.evaluate.probe_solvers import solver_on
from openmofi.evaluate.prompts import class_prompts, entity_ids
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
    classes, alone = dataset.classes, dataset.gallery is None
    prompts, predicted = class_prompts(classes, dataset, wanted.kb, wanted.class_names), None
    encoded = _readable(_images(source, dataset.places, name, alone=alone), name)
    labels = dataset.codes(classes)[encoded.rows]
    parts, notes = [], {}
    gallery = _gallery(source, name, dataset, classes, wanted, notes)
    if "retrieval" in wanted.benchmarks:
        parts.append(retrieval(encoded.vectors, labels))
    if "knn" in wanted.benchmarks:
        parts.append(knn(encoded.vectors, labels, *gallery))
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
        entities = entity_ids(classes, dataset, wanted.kb)
        shown = [entities.get(dataset.labels[row], "") for row in encoded.rows]
        parts.append(_tagging(source, name, encoded, shown, wanted))
    if "probe" in wanted.benchmarks and gallery:
        parts.append(_probe(source, encoded, labels, gallery, notes))
    found = dict(chain(*parts))
    scores = _scores(source, name, dataset.layout, encoded, found, notes, classes)
    return Measured(scores, dataset, encoded, predicted, prompts.names)


def _gallery(
    source: Vectors,
    name: str,
    dataset: LabelledImages,
    classes: list[str],
    wanted: Wanted,
    notes: dict[str, Any],
) -> tuple[np.ndarray, np.ndarray] | tuple[()]:
    """Returns (vectors, classes) of the training pictures, if there are any and one asks."""
    if dataset.gallery is None or not wanted.benchmarks & {"knn", "probe"}:
        return ()
    encoded = _images(source, dataset.gallery.places, f"{name} gallery", alone=False)
    if not len(encoded.rows):
        raise InputError(f"None of the training pictures of {name!r} can be read.")
    notes["gallery"] = len(encoded.rows)
    if encoded.refused:
        notes["gallery_refused"] = encoded.refused
    return encoded.vectors, dataset.gallery.codes(classes)[encoded.rows]


def _tagging(
    source: ModelVectors, name: str, encoded: Encoded, shown: Sequence[str], wanted: Wanted
) -> Iterator[tuple[str, float]]:
    """Yields tagging scores, or nothing where no entity that is shown can be answered."""
    found = _entities(source, shown, wanted.kb)
    if found is not None:
        yield from tagging(encoded.vectors, shown, *found)
    elif not wanted.if_possible:
        raise InputError(
            f"Tagging answers with entities of a class head or of --kb (up to {_MOST_TAGGED:,}), "
            f"but neither knows the labels of {name!r}; leave tagging out of --benchmarks."
        )


def _entities(
    source: ModelVectors, shown: Sequence[str], kb: KnowledgeBase | None
) -> tuple[np.ndarray, list[str], dict[str, int]] | None:
    """Returns (vectors, ids, training images) of the class head, else of the KB's texts."""
    head = source.folder / FOLDER if source.folder else None
    if head is not None and head.is_dir():
        rows, ids = load_head_rows(head)
        return (rows.numpy(), ids, load_image_counts(head)) if set(ids) & set(shown) else None
    if kb is None or len(kb) > _MOST_TAGGED or all(kb.row_of(s) is None for s in set(shown)):
        return None
    return source.texts(kb.entity_text(list(range(len(kb))))), kb.ids.to_pylist(), {}


def check_possible(name: str, dataset: Dataset, wanted: Wanted, *, reads_texts: bool) -> None:
    """Refuses, before anything is encoded, what was asked for by name and cannot be measured.

    Raises:
        InputError: a probe without training pictures, or texts asked of a file of vectors.
    """
    if not reads_texts and isinstance(dataset, (CaptionedImages, AttackedImages)):
        raise InputError(
            f"{name!r} compares pictures with texts, which a file of vectors has not; pass the "
            "model in place of --embeddings."
        )
    if isinstance(dataset, AttackedImages) and (wanted.kb or wanted.class_names):
        print(f"{name}: --kb and --class-names do not count for attacks", file=sys.stderr)
    if wanted.if_possible or not isinstance(dataset, LabelledImages):
        return
    texts = sorted(wanted.benchmarks & {"zero-shot", "tagging", "typographic"})
    if texts and not reads_texts:
        raise InputError(
            f"A file of vectors knows no texts and no class head, which {texts[0]} needs; pass the "
            "model in place of --embeddings."
        )
    if "probe" in wanted.benchmarks and dataset.gallery is None:
        raise InputError(
            f"A probe learns from training pictures, which {name!r} has not; expected train/ and "
            "test/ with class folders, or leave probe out of --benchmarks."
        )


def _probe(
    source: Vectors,
    encoded: Encoded,
    labels: np.ndarray,
    gallery: tuple[np.ndarray, np.ndarray],
    notes: dict[str, Any],
) -> Iterator[tuple[str, float]]:
    device = str(source.model.device) if isinstance(source, ModelVectors) else "cpu"
    fitted = fit_probe(*gallery, solver=solver_on(device))
    notes["probe"] = {
        "solver": fitted.solver,
        "tolerance": fitted.tolerance,
        "iterations": fitted.iterations,
    }
    yield from probe_scores(fitted, encoded.vectors, labels, np.unique(gallery[1]))


def _gpr1200(source: Vectors, name: str, dataset: LabelledImages) -> Measured:
    encoded = _whole(_images(source, dataset.places, name), name)
    found = dict(gpr1200(encoded.vectors))
    scores = _scores(source, name, "gpr1200", encoded, found, {}, dataset.classes)
    return Measured(scores, dataset, encoded)


def _revisited(source: Vectors, name: str, dataset: RevisitedImages) -> Measured:
    gallery = _whole(_images(source, dataset.gallery, f"{name} gallery"), name)
    queries = _whole(_images(source, dataset.queries, f"{name} queries"), name)
    notes: dict[str, Any] = {"truth": dataset.truth_name, "queries": len(queries.rows)}
    blocks = None
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
    assert isinstance(source, ModelVectors), "see check_possible"
    encoded = _readable(_images(source, dataset.places, name), name)
    captions = [dataset.captions[row] for row in encoded.rows]
    owner = np.repeat(np.arange(len(captions)), [len(texts) for texts in captions])
    texts = source.texts([text for several in captions for text in several])
    found = dict(recall(encoded.vectors, texts, owner))
    notes = {"captions": len(texts)}
    scores = _scores(source, name, "captions", encoded, found, notes, [])
    return Measured(scores, dataset, encoded, queries=texts)


def _attacked(source: Vectors, name: str, dataset: AttackedImages) -> Measured:
    assert isinstance(source, ModelVectors), "see check_possible"
    encoded = _readable(_images(source, dataset.places, name), name)
    found = dict(attack_robustness(encoded.vectors, dataset.take(encoded.rows), source.texts))
    classes = sorted({*dataset.objects, *(word for word in dataset.words if word)})
    notes = {
        "prompts": "the names in SCAM's 32 templates; --kb and --class-names do not count here"
    }
    scores = _scores(source, name, "attacks", encoded, found, notes, classes)
    return Measured(scores, dataset, encoded)


def _images(source: Vectors, places: Places, title: str, *, alone: bool = True) -> Encoded:
    """Returns the vectors of pictures; what their shards lost counts among the refused."""
    encoded = source.images(places, title, alone=alone)
    refused = Counter(places.refused) + Counter(encoded.refused)
    return replace(encoded, refused=dict(refused))


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
