"""The passes of a selection over the blocks of the labels, and what they decide.

Only a few numbers per entity are in memory for all blocks together; what is known of images and
labels lies on disk between the passes.
"""

from __future__ import annotations

import math
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from openmofi.config import SelectSettings
from openmofi.errors import InputError, SettingsError
from openmofi.kb import KnowledgeBase
from openmofi.select import steps
from openmofi.select.blocks import Block, LabelBlocks
from openmofi.select.calibrate import Calibration, calibrate
from openmofi.select.caps import Caps
from openmofi.select.chosen_labels import read_chosen, read_images
from openmofi.select.denied_types import denied_entities
from openmofi.select.evidence import EvidenceBlock, LabelEvidence
from openmofi.select.excluded_images import KnownImages
from openmofi.select.funnel import Funnel
from openmofi.select.learn import Learnt
from openmofi.select.repeats import Repeats, RepeatSearch, refuse_known
from openmofi.select.verdicts import write_verdicts

_MOST_RATE = 0.99


@dataclass(frozen=True)
class Decided:
    """What the passes found."""

    threshold: float | None
    calibration: Calibration | None
    histogram: dict[str, Any] | None
    counts: np.ndarray
    """Kept images of each entity of the knowledge base."""


@dataclass(frozen=True)
class Kept:
    """How much is kept."""

    images_of_files: np.ndarray
    labels: int
    refused: dict[str, int]


@dataclass(frozen=True)
class _Read:
    """What the first pass found in a block."""

    mentions: int
    named: int
    """Images whose caption names something."""
    measured: bool
    """Whether the text regions of any image were measured."""
    left: int
    """Labels that are left."""


class Passes:
    """One selection; the order of the steps is that of `select.py`."""

    def __init__(
        self,
        labels: LabelBlocks,
        settings: SelectSettings,
        kb: KnowledgeBase,
        i2e: Path,
        learnt: Learnt,
        known: KnownImages | None,
        work: Path,
    ):
        """Begins; `work` is an empty folder for what lies on disk in between."""
        self._labels, self._settings, self._kb, self._i2e = labels, settings, kb, i2e
        self._learnt, self._known = learnt, known
        self.verdicts, self._states, self._work = work / "verdicts", work / "states", work
        self.verdicts.mkdir()
        self._states.mkdir()
        self._repeats = Repeats(work / "repeats", labels)
        self._caps: Caps | None = None
        self._counts = np.zeros(0, np.int64)

    def decide(self) -> Decided:
        """Runs all steps.

        Raises:
            InputError: no label passes, or the labels lack what a setting needs.
            SettingsError: a given threshold for the joint score is not between 0 and 1.
        """
        settings = self._settings
        evidence = LabelEvidence(
            self._work / "evidence", self._learnt.splits, threads=self._labels.budget.threads
        )
        read = list(self._labels.run(lambda block: self._read(block, evidence), "read labels"))
        self._check_read(read)
        calibration, threshold = self._threshold(evidence, sum(found.left for found in read))
        histogram = None if threshold is None else _histogram(evidence)
        shutil.rmtree(self._work / "evidence")  # more than half of what lies on disk
        agreed = self._compare(threshold, sum(found.named for found in read))
        mentions = sum(found.mentions for found in read)
        counts = self._counts = self._count()
        counts[counts < settings.min_images] = 0
        if settings.max_images is not None:
            self._limit(settings.max_images)
            counts = np.minimum(counts, settings.max_images)
        if not counts.any():
            raise InputError(
                f"No label of {str(self._i2e)!r} passes: of {mentions:,} names in captions "
                f"{agreed:,} agree with their image, and no entity has {settings.min_images} "
                "images; lower --min-images or raise --false-label-rate."
            )
        return Decided(threshold, calibration, histogram, counts)

    def judge(self, class_of: np.ndarray) -> Kept:
        """Writes the verdicts on all rows, after `decide`.

        Args:
            class_of: row of the vocabulary of each entity, or -1.
        """

        def judged(block: Block) -> tuple[np.ndarray, int, dict[str, int]]:
            funnel = self._common(block)
            if self._caps:
                self._caps.refuse(funnel, read_images(block), block)
            write_verdicts(self.verdicts, block, funnel, class_of, self._repeats)
            kept = np.append(0, np.cumsum(funnel.code == 0))[block.begins]
            return np.diff(kept), len(funnel.labels), funnel.counts()

        kept, num_labels, refused = zip(*self._labels.run(judged, "decide"), strict=True)
        return Kept(
            self._labels.sums_of_files(np.concatenate(kept)),
            sum(num_labels),
            dict(sum(map(Counter, refused), Counter())),
        )

    def _state(self, block: Block) -> Path:
        return self._states / f"{block.number}.npz"

    def _read(self, block: Block, evidence: LabelEvidence) -> _Read:
        """Chooses an entity of each mention, and refuses what it can without a threshold."""
        settings, learnt = self._settings, self._learnt
        told = learnt.weights, learnt.priors, learnt.corrections
        chosen = read_chosen(block, self._kb, settings.order, *told)
        images = read_images(block)
        funnel = Funnel(chosen, block.num_rows)
        steps.refuse_damaged(funnel, images)
        steps.refuse_unnamed(funnel)
        named = int((funnel.code == 0).sum())
        if settings.max_text_area is not None:
            steps.refuse_text(funnel, images, settings.max_text_area)
        if self._known is not None:
            bits = settings.duplicate_bits
            self._repeats.add(refuse_known(funnel, images, block, self._known, bits))
        if settings.deny_types:
            steps.refuse_types(funnel, self._denied)
        steps.refuse_corrected(funnel)
        labels = funnel.labels
        if settings.order != "caption-match":
            guessed = labels.take(labels.known == 0)  # what people said is certain
            told = guessed.evidence, guessed.evidence_other, guessed.confused, guessed.image
            evidence.add(EvidenceBlock(*told))
        funnel.labels = labels.without("evidence_other", "confused", "known")
        funnel.save(self._state(block))
        measured = not np.isnan(images.text_area).all()
        return _Read(len(chosen), named, measured, len(labels))

    @cached_property
    def _denied(self) -> np.ndarray:
        return denied_entities(self._kb, self._settings.deny_types)

    def _check_read(self, read: Sequence[_Read]) -> None:
        if not any(found.named for found in read):
            raise InputError(
                f"No caption of {str(self._i2e)!r} names an entity of the knowledge base; label "
                "with one that holds the things your captions speak of."
            )
        area = self._settings.max_text_area
        if area is not None and not any(found.measured for found in read):
            raise InputError(
                f"--max-text-area {area:g} needs the text regions of the images, which "
                f"{str(self._i2e)!r} does not hold; label again with --text-regions and another "
                "--out."
            )

    def _threshold(
        self, evidence: LabelEvidence, num_labels: int
    ) -> tuple[Calibration | None, float | None]:
        """Returns (how the threshold was calibrated, or None; it, or None without images)."""
        settings, weighing = self._settings, self._learnt.weighing
        given = settings.threshold
        if settings.order == "caption-match":
            return None, None
        if num_labels and not evidence.counts.observed:
            if given is not None:
                raise InputError(
                    f"--threshold {given:g} needs clip_z, but {str(self._i2e)!r} was labelled "
                    "without looking at the images; label with --model, or leave --threshold out."
                )
            return None, None
        if given is None:
            # Answers may have found more, or fewer, labels wrong than the scores say.
            more = math.exp(-self._learnt.common_shift)
            calibration = calibrate(
                evidence,
                false_label_rate=min(settings.false_label_rate / more, _MOST_RATE),
                unshown_share=weighing.unshown_share if weighing else None,
                unshown_error=weighing.unshown_error if weighing else 0.0,
            )
            return calibration.times(more), calibration.threshold
        if settings.order != "joint":
            return None, given
        if not 0 < given < 1:
            raise SettingsError(
                f"--threshold {given:g} is not a score; expected a number between 0 and 1, or "
                "--order text-first, whose threshold is on clip_z."
            )
        return None, math.log(given / (1 - given))

    def _compare(self, threshold: float | None, num_images: int) -> int:
        """Refuses what images do not confirm, and copies; returns how many labels agree.

        Args:
            threshold: the least evidence, or None.
            num_images: images that are left, at most.
        """
        settings, search = self._settings, None
        if settings.duplicates != "keep":
            bits = settings.duplicate_bits if settings.duplicates == "near" else None
            search = RepeatSearch(self._work / "search", self._labels, num_images, bits)

        def compared(block: Block) -> int:
            funnel = Funnel.load(self._state(block))
            if threshold is not None:
                steps.refuse_disagreeing(funnel, threshold)
            num_agreed = len(funnel.labels)
            steps.keep_best_entities(funnel, settings.max_entities, self._kb.id_ranks)
            if search:
                search.add(funnel, read_images(block), block)
            funnel.labels = funnel.labels.without("evidence")
            funnel.save(self._state(block))
            return num_agreed

        agreed = sum(self._labels.run(compared, "keep what agrees"))
        if search:
            search.search(self._repeats)
        return agreed

    def _count(self) -> np.ndarray:
        """Returns the images of each entity, without copies."""
        counts = np.zeros(len(self._kb), np.int64)

        def counted(block: Block) -> tuple[np.ndarray, np.ndarray]:
            funnel = Funnel.load(self._state(block))
            self._repeats.refuse(funnel, block)
            funnel.save(self._state(block))
            return np.unique(funnel.labels.entity, return_counts=True)

        for entity, images in self._labels.run(counted, "count"):
            counts[entity] += images
        return counts

    def _limit(self, max_images: int) -> None:
        """Finds which labels of entities that have too many are kept."""
        caps = self._caps = Caps(self._work / "caps", self._labels, self._counts, max_images)

        def add(block: Block) -> None:
            caps.add(self._common(block), read_images(block), block)

        for _ in self._labels.run(add, "draw images"):
            pass
        caps.cut()

    def _common(self, block: Block) -> Funnel:
        """Returns the funnel of a block without copies and rare entities."""
        funnel = Funnel.load(self._state(block))
        steps.refuse_rare(funnel, self._counts, self._settings.min_images)
        return funnel


def _histogram(evidence: LabelEvidence) -> dict[str, Any]:
    """Returns the histograms of observed and mismatched evidence that `inspect` draws."""
    observed, mismatched = evidence.histogram.tolist()
    low, high = evidence.edges[[0, -1]].tolist()
    return {"low": low, "high": high, "observed": observed, "mismatched": mismatched}
