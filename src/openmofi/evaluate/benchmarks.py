"""Every benchmark: what it measures, on which data, and how its scores are named elsewhere.

To add one, write a file such as knn.py and an entry in BENCHMARKS.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from openmofi.errors import InputError
from openmofi.evaluate.attacks import attack_robustness
from openmofi.evaluate.data import AttackedImages, CaptionedImages, LabelledImages
from openmofi.evaluate.gpr1200 import gpr1200
from openmofi.evaluate.knn import knn
from openmofi.evaluate.layouts import Dataset
from openmofi.evaluate.probe import fit_probe, probe_scores
from openmofi.evaluate.probe_solvers import solver_on
from openmofi.evaluate.prompts import entity_ids
from openmofi.evaluate.recall import recall
from openmofi.evaluate.retrieval import retrieval
from openmofi.evaluate.revisited import RevisitedImages, revisited
from openmofi.evaluate.subject import Subject
from openmofi.evaluate.tagging import tagging
from openmofi.evaluate.typographic import typographic
from openmofi.evaluate.vectors import ModelVectors
from openmofi.evaluate.zeroshot import zero_shot
from openmofi.kb import KnowledgeBase
from openmofi.model.class_rows import FOLDER, load_head_rows, load_image_counts

LABELLED = ("labelled", "world")
"""Layouts whose benchmarks users choose by name."""
_DISTRACTORS = 65_536
"""Number of distractors whose vectors are in memory at once."""
_MOST_TAGGED = 200_000
"""Largest knowledge base whose entities are all encoded as candidates for tagging."""

ScoresOf = Iterator[tuple[str, float]]


@dataclass(frozen=True)
class Benchmark:
    """A benchmark."""

    name: str
    scores: Callable[[Subject], ScoresOf]
    """Yields (name, value)."""
    layouts: tuple[str, ...] = LABELLED
    """Layouts of the data that it measures."""
    default: bool = True
    """Whether it runs if users do not choose."""
    needs: Literal["model", "gallery"] | None = None
    """model: texts or a class head, which a file of vectors lacks; gallery: training images."""
    counts_all: bool = False
    """Whether every image counts, so that an unusable one is an error."""
    bars: str | None = None
    """Prefix of the scores that the report draws as one bar chart."""
    curve: str | None = None
    """The score that is drawn by the number of classes that the models learnt."""
    task: str | None = None
    """CLIP_benchmark's name of the task."""
    names: Mapping[str, str] = field(default_factory=dict)
    """Our names of scores -> CLIP_benchmark's."""
    no_shares: tuple[str, ...] = ()
    """Scores that are not shares of 1 but counts or chosen settings."""

    def is_possible(self, dataset: Dataset, *, reads_texts: bool) -> bool:
        """Returns whether data and vectors have what it needs."""
        if self.needs == "gallery":
            return isinstance(dataset, LabelledImages) and dataset.gallery is not None
        return reads_texts or self.needs is None


def _tagging(subject: Subject) -> ScoresOf:
    """Yields tagging scores, or nothing if none of the shown entities is a candidate."""
    dataset, kb = subject.dataset, subject.wanted.kb
    ids = entity_ids(dataset.classes, dataset, kb)
    shown = [ids.get(dataset.labels[row], "") for row in subject.encoded.rows]
    found = _entities(subject.model, shown, kb)
    if found is not None:
        yield from tagging(subject.vectors, shown, *found)
    elif not subject.wanted.if_possible:
        raise InputError(
            "Tagging chooses among the entities of a class head or of --kb (up to "
            f"{_MOST_TAGGED:,}), but neither knows the labels of {subject.name!r}; leave tagging "
            "out of --benchmarks."
        )


def _entities(
    source: ModelVectors, shown: Sequence[str], kb: KnowledgeBase | None
) -> tuple[np.ndarray, list[str], dict[str, int]] | None:
    """Returns (vectors, ids, training images by id) of the class head, else of the KB's texts."""
    head = source.folder / FOLDER if source.folder else None
    if head is not None and head.is_dir():
        rows, ids = load_head_rows(head)
        return (rows.numpy(), ids, load_image_counts(head)) if set(ids) & set(shown) else None
    if kb is None or len(kb) > _MOST_TAGGED or all(kb.row_of(s) is None for s in set(shown)):
        return None
    return source.texts(kb.entity_text(list(range(len(kb))))), kb.ids.to_pylist(), {}


def _probe(subject: Subject) -> ScoresOf:
    source = subject.source
    device = str(source.model.device) if isinstance(source, ModelVectors) else "cpu"
    vectors, labels = subject.gallery
    fitted = fit_probe(vectors, labels, solver=solver_on(device))
    subject.notes["probe"] = {
        "solver": fitted.solver,
        "tolerance": fitted.tolerance,
        "iterations": fitted.iterations,
    }
    yield from probe_scores(fitted, subject.vectors, subject.labels, np.unique(labels))


def _revisited(subject: Subject) -> ScoresOf:
    dataset: RevisitedImages = subject.dataset
    gallery, queries = subject.vectors, subject.images(dataset.queries, "queries").vectors
    subject.queries = queries
    subject.notes |= {"truth": dataset.truth_name, "queries": len(queries)}
    blocks = None
    if (places := dataset.distractors) is not None:
        subject.notes["distractors"] = len(places.table)
        starts = range(0, len(places.table), _DISTRACTORS)
        parts = ((at, replace(places, table=places.table.slice(at, _DISTRACTORS))) for at in starts)
        # A generator: of a million images, the vectors of one part at a time are in memory.
        blocks = (subject.images(part, f"distractors {at:,}+").vectors for at, part in parts)
    yield from revisited(gallery, queries, dataset.truth, blocks)


def _captions(subject: Subject) -> ScoresOf:
    dataset: CaptionedImages = subject.dataset
    captions = [dataset.captions[row] for row in subject.encoded.rows]
    owner = np.repeat(np.arange(len(captions)), [len(texts) for texts in captions])
    texts = subject.model.texts([text for several in captions for text in several])
    subject.queries, subject.notes["captions"] = texts, len(texts)
    yield from recall(subject.vectors, texts, owner)


def _attacks(subject: Subject) -> ScoresOf:
    dataset: AttackedImages = subject.dataset
    subject.notes["prompts"] = (
        "the names in SCAM's 32 templates; --kb and --class-names do not count here"
    )
    images = dataset.take(subject.encoded.rows)
    yield from attack_robustness(subject.vectors, images, subject.model.texts)


BENCHMARKS = (
    Benchmark("retrieval", lambda s: retrieval(s.vectors, s.labels), curve="retrieval_map"),
    Benchmark("knn", lambda s: knn(s.vectors, s.labels, *s.gallery)),
    Benchmark(
        "zero-shot",
        lambda s: zero_shot(s.vectors, s.labels, s.texts),
        needs="model",
        task="zeroshot_classification",
        names={
            "zero_shot": "acc1",
            "zero_shot_top5": "acc5",
            "zero_shot_per_class": "mean_per_class_recall",
        },
    ),
    Benchmark(
        "tagging", _tagging, needs="model", bars="tag_top1_", no_shares=("tag_unknown_entities",)
    ),
    Benchmark(
        "probe",
        _probe,
        default=False,  # it fits dozens of classifiers
        needs="gallery",
        task="linear_probe",
        names={
            "probe": "lp_acc1",
            "probe_top5": "lp_acc5",
            "probe_per_class": "lp_mean_per_class_recall",
        },
        no_shares=("probe_c", "probe_converged", "probe_unseen_classes"),
    ),
    Benchmark(
        "typographic",
        lambda s: typographic(s.model, s.dataset, s.encoded, texts=s.texts, names=s.prompts.names),
        default=False,  # it encodes every image again
        needs="model",
        bars="typographic_",
    ),
    Benchmark(
        "gpr1200",
        lambda s: gpr1200(s.vectors),
        ("gpr1200",),
        counts_all=True,
        bars="gpr1200_",
        curve="gpr1200_all",
    ),
    Benchmark(
        "revisited",
        _revisited,
        ("revisited",),
        counts_all=True,
        bars="map_",
        curve="map_medium",
    ),
    Benchmark(
        "captions",
        _captions,
        ("captions",),
        needs="model",
        task="zeroshot_retrieval",
        names={
            name: name
            for side in ("image", "text")
            for name in (f"{side}_retrieval_recall@{k}" for k in (1, 5, 10))
        },
    ),
    Benchmark("attacks", _attacks, ("attacks",), needs="model", bars="attack_"),
)
CHOICES = tuple(b.name for b in BENCHMARKS if b.layouts == LABELLED)
"""The benchmarks that users may choose."""
DEFAULTS = tuple(b.name for b in BENCHMARKS if b.name in CHOICES and b.default)
