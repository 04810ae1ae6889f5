"""One dataset and the source of its vectors -> all scores for its layout."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from itertools import chain

import numpy as np

from openmofi.errors import InputError
from openmofi.evaluate.benchmarks import BENCHMARKS, CHOICES, LABELLED
from openmofi.evaluate.classes_learnt import classes_learnt
from openmofi.evaluate.data import AttackedImages, LabelledImages
from openmofi.evaluate.layouts import Dataset
from openmofi.evaluate.results import Scores
from openmofi.evaluate.subject import Subject, Wanted
from openmofi.evaluate.vectors import Encoded, Vectors


@dataclass(frozen=True)
class Measured:
    """Scores and, for the report, what they were computed from."""

    scores: Scores
    dataset: Dataset
    encoded: Encoded
    predicted: np.ndarray | None
    """Class that zero-shot answers for each encoded image; None if it was not run."""
    names: tuple[str, ...]
    """Name of each class."""
    queries: np.ndarray | None
    """Vectors that are not in `encoded`: of a benchmark's queries, or of captions."""


def measure(source: Vectors, name: str, dataset: Dataset, wanted: Wanted) -> Measured:
    """Measures a model on one dataset.

    Raises:
        InputError: too few images can be read, or a protocol lacks something that it needs.
    """
    fitting = [b for b in BENCHMARKS if dataset.layout in b.layouts]
    asked = [b for b in fitting if b.name in wanted.benchmarks or b.name not in CHOICES]
    counts_all = any(benchmark.counts_all for benchmark in asked)
    subject = Subject(source, name, dataset, wanted, counts_all=counts_all)
    # Refuse names that do not fit the classes before anything is encoded.
    names = subject.prompts.names if dataset.layout in LABELLED else ()
    encoded = subject.encoded
    possible = [b for b in asked if b.is_possible(dataset, reads_texts=source.reads_texts)]
    metrics = dict(chain.from_iterable(b.scores(subject) for b in possible))
    refused = {"refused": encoded.refused} if encoded.refused else {}
    scores = Scores(
        source.name,
        name,
        images=len(encoded.rows),
        classes=len(dataset.classes),
        unreadable=sum(encoded.refused.values()),
        metrics=metrics,
        layout=dataset.layout,
        notes=subject.notes | refused,
        classes_learnt=classes_learnt(source.folder) if source.folder else None,
    )
    return Measured(scores, dataset, encoded, subject.predicted, names, subject.queries)


def check_possible(
    name: str, dataset: Dataset, wanted: Wanted, *, reads_texts: bool, model: str = ""
) -> None:
    """Checks, before anything is encoded, that the chosen benchmarks can be run.

    Args:
        name: of the dataset.
        dataset: what is to be measured on.
        wanted: the chosen benchmarks.
        reads_texts: whether the source of vectors has texts, too.
        model: name of a model that is the source; "" for a file of vectors.

    Raises:
        InputError: a probe has no training images, or a file of vectors would have to encode texts.
    """
    if not isinstance(dataset, LabelledImages):
        fitting = [b for b in BENCHMARKS if dataset.layout in b.layouts]
        if not all(b.is_possible(dataset, reads_texts=reads_texts) for b in fitting):
            who, remedy = _without_texts(model)
            raise InputError(
                f"{name!r} compares images with texts, which {who} does not have; {remedy}."
            )
        if isinstance(dataset, AttackedImages) and (wanted.kb or wanted.class_names):
            print(f"{name}: --kb and --class-names do not count for attacks", file=sys.stderr)
        return
    if wanted.if_possible:
        return
    chosen = [b for b in BENCHMARKS if b.name in wanted.benchmarks]
    lacking = [b for b in chosen if not b.is_possible(dataset, reads_texts=reads_texts)]
    texts = sorted(b.name for b in lacking if b.needs == "model")
    if texts:
        who, remedy = _without_texts(model)
        who = who[0].upper() + who[1:]
        raise InputError(f"{who} has no texts and no class head, which {texts[0]} needs; {remedy}.")
    if lacking:
        raise InputError(
            f"A {lacking[0].name} learns from training images, which {name!r} does not have; "
            "expected train/ and test/ with class folders, or leave "
            f"{lacking[0].name} out of --benchmarks."
        )


def _without_texts(model: str) -> tuple[str, str]:
    """Returns (what has no texts, what to do about it)."""
    if model:
        return f"{model!r}, an image encoder,", "give it a text encoder with `openmofi pair`"
    return "a file of vectors", "pass the model instead of --embeddings"
