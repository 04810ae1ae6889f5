"""All labels -> what a selection learns from them before it decides: weights, priors, a sample."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from openmofi.config import SelectSettings
from openmofi.corrections.standing import Standing
from openmofi.errors import SettingsError
from openmofi.kb import KnowledgeBase
from openmofi.label.joint_weights import Weighing, fit_weights
from openmofi.label.score import ScoreWeights, load_weights
from openmofi.select.blocks import LabelBlocks
from openmofi.select.choose import best_candidates
from openmofi.select.corrections import Corrections
from openmofi.select.evidence import RECORD_BYTES
from openmofi.select.image_priors import ImagePriors, learn_image_priors, prior_weight
from openmofi.select.learn_corrections import find_answered, learn_corrections
from openmofi.select.sample import MentionSample, sample_mentions


@dataclass(frozen=True)
class Learnt:
    """What all later steps go by."""

    weighing: Weighing | None
    """None unless the order is joint."""
    fit: Weighing | None
    """What `weighing` is without answers, if it was fitted to the labels."""
    priors: ImagePriors | None
    """None unless images teach the priors."""
    corrections: Corrections | None
    """What people said; None: nothing."""
    common_shift: float
    """Log odds by which answers say that labels are surer than they seem; see `certain_shift`."""
    about_answers: dict[str, Any]
    """How many there are, and what became of them; for the card."""
    splits: list[float]
    """Values that cut all evidence into parts that fit into memory, ascending."""

    @property
    def weights(self) -> ScoreWeights | None:
        """Weights of the joint score."""
        return self.weighing.weights if self.weighing else None


def learn(
    labels: LabelBlocks,
    settings: SelectSettings,
    kb: KnowledgeBase,
    i2e: Path,
    standing: Standing,
    fit: Weighing | None = None,
) -> Learnt:
    """Learns what the settings ask for.

    Args:
        labels: all labels.
        settings: see `config.SelectSettings`.
        kb: the knowledge base of the labels.
        i2e: folder of the labels.
        standing: what people said of the labels.
        fit: weights that were fitted to these labels before, so that no sample is needed.

    Raises:
        SettingsError: images cannot teach priors in this order.
    """
    order, weighing, priors, sample = settings.order, None, None, None
    if order == "joint" and settings.weights:
        weighing = Weighing(load_weights(settings.weights), None, 0.0, 0)
    elif order == "joint":
        if fit is None:
            sample = sample_mentions(labels, order)
            fit = weigh(sample)
        weighing = fit
    if settings.priors == "images":
        if weighing is None:
            raise SettingsError(f"--priors images needs --order joint, not {order}.")
        priors = learn_image_priors(labels, kb, weighing.weights, prior_weight(i2e))
        if not settings.weights and not priors.off:
            sample = sample_mentions(labels, order, priors)
            weighing = weigh(sample)
    fitted = None if settings.weights else weighing
    told = _corrected(labels, kb, standing, weighing, priors)
    weighing = told.weighing
    num_parts = labels.budget.num_parts(labels.num_candidates * RECORD_BYTES)
    splits: list[float] = []
    if num_parts > 1 and order != "caption-match":
        sample = sample or sample_mentions(labels, order, priors)
        splits = _splits(sample, order, weighing, num_parts)
    return Learnt(weighing, fitted, priors, told.corrections, told.common_shift, told.about, splits)


@dataclass(frozen=True)
class _Told:
    """What people said; see `Learnt`."""

    weighing: Weighing | None
    corrections: Corrections | None = None
    common_shift: float = 0.0
    about: dict[str, Any] = field(default_factory=dict)


def _corrected(
    labels: LabelBlocks,
    kb: KnowledgeBase,
    standing: Standing,
    weighing: Weighing | None,
    priors: ImagePriors | None,
) -> _Told:
    """Returns what answers teach."""
    if not standing:
        return _Told(weighing)
    corrections, unknown = Corrections.of(standing, kb)
    about = {
        "answers": len(standing.answers),
        "digest": standing.digest,
        "people": len({answer.by for answer in standing.answers}),
        "contradictions": standing.contradictions,
        "of_unknown_entities": unknown,
    }
    if weighing is None:
        return _Told(None, corrections, about=about)
    taught = learn_corrections(find_answered(labels, corrections, priors), weighing)
    about |= {"learnt_from": taught.num_answered, "common_shift": taught.common}
    about |= {"common_error": taught.common_error}
    corrections = replace(corrections, shifts=taught.shifts)
    return _Told(taught.weighing, corrections, taught.certain_shift, about)


def weigh(sample: MentionSample) -> Weighing:
    """Returns weights fitted to a sample of the mentions of all labels."""
    found = sample.found
    return fit_weights(
        found.text, found.clip_z, found.clip_z_other, found.begins, image=sample.image
    )


def _splits(
    sample: MentionSample, order: str, weighing: Weighing | None, num_parts: int
) -> list[float]:
    """Returns distinct values that cut the evidence of a sample into equal parts."""
    weights = weighing.weights if weighing else None
    best, evidence_other = best_candidates(sample.found, order, weights)
    values = np.concatenate([best.evidence, evidence_other.ravel()])
    values = np.sort(values[~np.isnan(values)])
    at = np.arange(1, num_parts) * len(values) // num_parts
    return np.unique(values[at]).tolist() if len(values) else []
