"""The decision: i2e/labels -> i2e/select/<name>/{keep, refused, vocabulary}.parquet, card.json.

Reads the labels and never changes them; a new selection with other thresholds takes seconds. It is
a funnel of steps, each with its reason, in this order:

    the pair itself    corrupt_image, no_caption, ... (what `label` found)
    the caption        no_mention
    the image alone    text_in_picture, evaluation_duplicate
    the entity         type_denied
    text and image     picture_disagrees; the threshold is calibrated on what has come this far
    the selection      duplicate_exact, duplicate_near: only among images that would be kept, so
                       that no good one is refused for a refused one; the surest label is kept
                       entity_too_rare: counts what is left without duplicates
                       entity_has_enough
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

import openmofi
from openmofi.config import SelectSettings, as_dict
from openmofi.errors import InputError, SettingsError
from openmofi.files.folders import new_folder
from openmofi.kb import KnowledgeBase
from openmofi.label.score import ScoreWeights, load_weights
from openmofi.select import steps
from openmofi.select.calibrate import Calibration, calibrate
from openmofi.select.chosen_labels import ChosenLabels, read_chosen
from openmofi.select.denied_types import check_types, denied_entities
from openmofi.select.excluded_images import KnownImages, hash_images
from openmofi.select.funnel import Funnel
from openmofi.select.image_priors import FILE as PRIORS_FILE
from openmofi.select.image_priors import learn_image_priors, prior_weight
from openmofi.select.joint_weights import Weighing, weigh
from openmofi.select.outputs import write_rows, write_shards, write_vocabulary
from openmofi.select.repeats import Repeats, refuse_known, refuse_repeated
from openmofi.shards import commits_of, planned_shards

_HISTOGRAM_BINS = 80


@dataclass(frozen=True)
class SelectSummary:
    """What was kept, what was refused, and why."""

    out: Path
    images: int
    """Number of pairs in the labels."""
    kept: int
    labels: int
    classes: int
    refused: dict[str, int]
    """Counts by reason, in the order of the steps."""
    threshold: float | None
    """Least evidence of a label: log odds of its score (joint), or clip_z (text-first)."""
    calibration: Calibration | None
    weights: ScoreWeights | None
    """Weights of the joint score."""
    looked: bool
    """Whether images were taken into account: not without an encoder or for caption-match."""
    unreadable_excluded: int
    """Images of --exclude that could not be read; their duplicates may have been kept."""
    missing_shards: int
    """Shards of the input that are not labelled yet or failed."""


@dataclass(frozen=True)
class _Decision:
    """What the steps found, apart from the funnel."""

    weights: ScoreWeights | None
    threshold: float | None
    calibration: Calibration | None
    histogram: dict[str, Any] | None
    repeats: list[Repeats]
    known: KnownImages | None


def select(
    i2e: Path | str, *, name: str = "default", settings: SelectSettings | None = None
) -> SelectSummary:
    """Decides which labels and images to keep.

    Args:
        i2e: output of `label`.
        name: name of the selection; an existing one with this name is replaced.
        settings: see `config.SelectSettings`.

    Raises:
        InputError: there are no labels, none of them passes, or they lack what a setting needs.
        SettingsError: the name is invalid, or two settings contradict each other.
    """
    settings = settings or SelectSettings()
    i2e = Path(i2e)
    _check(name, settings)
    done = commits_of(i2e, "labels")
    run = json.loads((i2e / "run.json").read_text())
    files, kb = [i2e / commit.file for commit in done], KnowledgeBase.open(Path(run["kb_path"]))
    weighing = None
    if settings.order == "joint" and settings.weights:
        weighing = Weighing(load_weights(settings.weights), None, 0.0, 0)
    elif settings.order == "joint":
        weighing = weigh(files)
    priors = None
    if settings.priors == "images":
        if weighing is None:
            raise SettingsError(f"--priors images needs --order joint, not {settings.order}.")
        priors = learn_image_priors(files, kb, weighing.weights, prior_weight(i2e))
        if not settings.weights and not priors.off:
            weighing = weigh(files, priors)
    weights = weighing.weights if weighing else None
    check_types(kb, settings.deny_types)  # before the slow steps
    known = hash_images(settings.exclude) if settings.exclude else None
    funnel = Funnel(read_chosen(files, settings.order, weights, priors))
    decision = _decide(funnel, settings, weighing, known, kb, i2e)
    out = i2e / "select" / name
    with new_folder(out) as partial:
        class_of = write_vocabulary(partial, funnel, kb)
        write_rows(partial, files, funnel, class_of, decision.repeats, decision.known)
        write_shards(partial, done, funnel)
        summary = SelectSummary(
            out,
            images=funnel.chosen.num_images,
            kept=int((funnel.code == 0).sum()),
            labels=len(funnel.labels),
            classes=len(np.unique(funnel.labels.entity)),
            refused=funnel.counts(),
            threshold=decision.threshold,
            calibration=decision.calibration,
            weights=decision.weights,
            looked=decision.threshold is not None,
            unreadable_excluded=decision.known.unreadable if decision.known else 0,
            missing_shards=planned_shards(i2e) - len(files),
        )
        card = _card(summary, decision, settings, run, i2e)
        if priors is not None:
            card["priors"] = {"off": priors.off, "passes": priors.passes, "moved": priors.moved()}
            pq.write_table(priors.table, partial / PRIORS_FILE)
        (partial / "card.json").write_text(json.dumps(card, indent=2, ensure_ascii=False) + "\n")
    return summary


def _check(name: str, settings: SelectSettings) -> None:
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise SettingsError(
            f"A selection cannot be called {name!r}; use letters, digits, '-', '_' and '.'."
        )
    if settings.max_images is not None and settings.max_images < settings.min_images:
        raise SettingsError(
            f"--max-images {settings.max_images} is below --min-images {settings.min_images}, so "
            "that no entity could have enough; raise the one or lower the other."
        )


def _decide(
    funnel: Funnel,
    settings: SelectSettings,
    weighing: Weighing | None,
    known: KnownImages | None,
    kb: KnowledgeBase,
    i2e: Path,
) -> _Decision:
    """Runs the steps in the order given in this module's docstring."""
    repeats, num_mentions = [], len(funnel.labels)
    steps.refuse_damaged(funnel)
    steps.refuse_unnamed(funnel)
    if not len(funnel.labels):
        raise InputError(
            f"No caption of {str(i2e)!r} names an entity of the knowledge base; label with one "
            "that holds the things your captions speak of."
        )
    if settings.max_text_area is not None:
        steps.refuse_text(funnel, settings.max_text_area, i2e)
    if known is not None:
        repeats = refuse_known(funnel, known, settings.duplicate_bits)
    if settings.deny_types:
        denied = denied_entities(kb, settings.deny_types, funnel.chosen.ids)
        steps.refuse_types(funnel, denied)
    calibration, threshold = _threshold(funnel.labels, settings, weighing, i2e)
    histogram = None if threshold is None else _histogram(funnel.labels)
    if threshold is not None:
        steps.refuse_disagreeing(funnel, threshold)
    num_agreed = len(funnel.labels)
    steps.keep_best_entities(funnel, settings.max_entities)
    if settings.duplicates != "keep":
        bits = settings.duplicate_bits if settings.duplicates == "near" else None
        repeats += refuse_repeated(funnel, bits)
    steps.refuse_rare(funnel, settings.min_images)
    if settings.max_images is not None:
        steps.refuse_beyond_cap(funnel, settings.max_images)
    if not len(funnel.labels):
        raise InputError(
            f"No label of {str(i2e)!r} passes: of {num_mentions:,} names in captions "
            f"{num_agreed:,} agree with their image, and no entity has "
            f"{settings.min_images} images; lower --min-images or raise --false-label-rate."
        )
    weights = weighing.weights if weighing else None
    return _Decision(weights, threshold, calibration, histogram, repeats, known)


def _threshold(
    labels: ChosenLabels, settings: SelectSettings, weighing: Weighing | None, i2e: Path
) -> tuple[Calibration | None, float | None]:
    """Returns (how the threshold was calibrated, or None; the threshold, or None without images).

    Raises:
        InputError: a threshold is given, but the images were not looked at.
        SettingsError: a given threshold for the joint score is not between 0 and 1.
    """
    if settings.order == "caption-match":
        return None, None
    if len(labels) and np.isnan(labels.evidence).all():
        if settings.threshold is not None:
            raise InputError(
                f"--threshold {settings.threshold:g} needs clip_z, but {str(i2e)!r} was labelled "
                "without looking at the images; label with --model, or leave --threshold out."
            )
        return None, None
    if settings.threshold is not None:
        if settings.order != "joint":
            return None, settings.threshold
        if not 0 < settings.threshold < 1:
            raise SettingsError(
                f"--threshold {settings.threshold:g} is not a score; expected a number between 0 "
                "and 1, or --order text-first, whose threshold is on clip_z."
            )
        return None, math.log(settings.threshold / (1 - settings.threshold))
    calibration = calibrate(
        labels.evidence,
        labels.evidence_other,
        false_label_rate=settings.false_label_rate,
        confused=labels.confused,
        unshown_share=weighing.unshown_share if weighing else None,
        unshown_error=weighing.unshown_error if weighing else 0.0,
        image=labels.image,
    )
    return calibration, calibration.threshold


def _histogram(labels: ChosenLabels) -> dict[str, Any]:
    """Returns the histograms of observed and mismatched evidence that `inspect` draws."""
    known = [z[~np.isnan(z)] for z in (labels.evidence, labels.evidence_other)]
    both = np.concatenate(known)
    low, high = np.percentile(both, (0.05, 99.95)) if len(both) else (0.0, 1.0)
    edges = np.linspace(low, max(high, low + 1e-3), _HISTOGRAM_BINS + 1)
    observed, mismatched = (np.histogram(np.clip(z, low, edges[-1]), edges)[0] for z in known)
    return {
        "low": float(low),
        "high": float(edges[-1]),
        "observed": observed.tolist(),
        "mismatched": mismatched.tolist(),
    }


def _card(
    summary: SelectSummary, decision: _Decision, settings: SelectSettings, run: dict, i2e: Path
) -> dict[str, Any]:
    calibration = asdict(summary.calibration) if summary.calibration else None
    chosen = as_dict(settings)
    if settings.priors == "labels":  # cards of earlier versions say nothing about it either
        del chosen["priors"]
    return {
        "openmofi": openmofi.__version__,
        "input": run["input"],
        "i2e": str(i2e.resolve()),
        "kb": run["kb_path"],
        "model": run.get("model"),
        "settings": chosen,
        "looked": summary.looked,
        "weights": asdict(summary.weights) if summary.weights else None,
        "threshold": summary.threshold,
        "calibration": calibration,
        "histogram": decision.histogram,
        "unreadable_excluded": summary.unreadable_excluded,
        "missing_shards": summary.missing_shards,
        "funnel": {
            "pairs": summary.images,
            "refused": summary.refused,
            "kept_images": summary.kept,
            "kept_labels": summary.labels,
            "entities": summary.classes,
        },
    }
