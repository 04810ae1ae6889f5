"""The decision: i2e/labels -> i2e/select/<name>/{keep, refused, vocabulary}.parquet, card.json.

Reads the labels, in passes that fit into memory, and never changes them. It is a funnel of steps,
each with its reason, in this order:

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
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

import openmofi
from openmofi.config import SelectSettings, as_dict
from openmofi.corrections.answers import answers_path, read_answers
from openmofi.corrections.standing import standing_of
from openmofi.errors import SettingsError
from openmofi.files.folders import lock_file, new_folder
from openmofi.kb import KnowledgeBase
from openmofi.label.joint_weights import Weighing
from openmofi.label.score import ScoreWeights
from openmofi.select.blocks import label_blocks
from openmofi.select.calibrate import Calibration
from openmofi.select.denied_types import check_types
from openmofi.select.digest import AUDITS
from openmofi.select.excluded_images import hash_images
from openmofi.select.image_priors import FILE as PRIORS_FILE
from openmofi.select.learn import learn
from openmofi.select.outputs import write_rows, write_shards, write_vocabulary
from openmofi.select.passes import Decided, Passes
from openmofi.select.steps import in_order
from openmofi.shards import commits_of, planned_shards


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


def select(
    i2e: Path | str,
    *,
    name: str = "default",
    settings: SelectSettings | None = None,
    fit: Weighing | None = None,
) -> SelectSummary:
    """Decides which labels and images to keep.

    Args:
        i2e: output of `label`.
        name: name of the selection; an existing one with this name is replaced.
        settings: see `config.SelectSettings`.
        fit: weights that were fitted to these labels before (`fit` of a selection's card.json).

    Raises:
        InputError: there are no labels, none of them passes, they lack what a setting needs, or
            another run is making this selection.
        MismatchError: a labels file is gone.
        SettingsError: the name is invalid, two settings contradict each other, or the memory is too
            little.
    """
    settings = settings or SelectSettings()
    i2e = Path(i2e)
    _check(name, settings)
    done = commits_of(i2e, "labels")
    run = json.loads((i2e / "run.json").read_text())
    kb = KnowledgeBase.open(Path(run["kb_path"]))
    files = [i2e / commit.file for commit in done]
    labels = label_blocks(files, gigabytes=settings.memory, num_entities=len(kb))
    check_types(kb, settings.deny_types)  # before the slow steps
    known = hash_images(settings.exclude) if settings.exclude else None
    out = i2e / "select" / name
    with alone_at(out), new_folder(out) as partial, _workspace(partial) as work:
        answers = read_answers(answers_path(i2e)).rows if settings.corrections else ()
        learnt = learn(labels, settings, kb, i2e, standing_of(answers), fit)
        passes = Passes(labels, settings, kb, i2e, learnt, known, work)
        decision = passes.decide()
        class_of = write_vocabulary(partial, decision.counts, kb)
        kept = passes.judge(class_of)
        taught = learnt.priors is not None and not learnt.priors.off
        write_rows(partial, labels, passes.verdicts, known, taught=taught)
        pairs = labels.sums_of_files([piece.num_rows for piece in labels.pieces])
        write_shards(partial, done, pairs, kept.images_of_files)
        summary = SelectSummary(
            out,
            images=labels.num_images,
            kept=int(kept.images_of_files.sum()),
            labels=kept.labels,
            classes=int((class_of >= 0).sum()),
            refused=in_order(kept.refused),
            threshold=decision.threshold,
            calibration=decision.calibration,
            weights=learnt.weights,
            looked=decision.threshold is not None,
            unreadable_excluded=known.unreadable if known else 0,
            missing_shards=planned_shards(i2e) - len(files),
        )
        card = _card(summary, decision, settings, run, i2e)
        if learnt.fit is not None:
            card["fit"] = learnt.fit.stored()
        if learnt.corrections is not None:
            card["corrections"] = learnt.about_answers
            learnt.corrections.save(partial)
        if learnt.priors is not None:
            priors = learnt.priors
            card["priors"] = {"off": priors.off, "passes": priors.passes, "moved": priors.moved()}
            pq.write_table(priors.table, partial / PRIORS_FILE)
        (partial / "card.json").write_text(json.dumps(card, indent=2, ensure_ascii=False) + "\n")
        if (
            out / AUDITS
        ).is_dir():  # hours of a person's work; they say which labels they are about
            shutil.copytree(out / AUDITS, partial / AUDITS)
    return summary


@contextmanager
def alone_at(out: Path) -> Iterator[None]:
    """Keeps other runs away from a selection while this one makes it."""
    i2e = out.parents[1]
    with (i2e / f".select-{out.name}.lock").open("ab") as lock:
        busy = (
            f"Another run is making the selection {out.name!r}; wait for it, or give this one "
            "another --name."
        )
        lock_file(lock, out, busy=busy)
        yield


@contextmanager
def _workspace(folder: Path) -> Iterator[Path]:
    """Yields a folder for what lies on disk between the passes."""
    work = folder / ".passes"
    work.mkdir()
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


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


def _card(
    summary: SelectSummary, decision: Decided, settings: SelectSettings, run: dict, i2e: Path
) -> dict[str, Any]:
    calibration = asdict(summary.calibration) if summary.calibration else None
    chosen = as_dict(settings)
    del chosen["memory"]  # which changes nothing
    if settings.priors == "labels":  # cards of earlier versions say nothing about it either
        del chosen["priors"]
    if settings.corrections:  # likewise
        del chosen["corrections"]
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
