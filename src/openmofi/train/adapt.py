"""Adapting an encoder on its cached vectors: two linear maps in minutes, without a GPU.

    vectors + labels (+ texts) -> maps.safetensors, adapt.json, metrics.jsonl, entity_head/, model/

Part of the vectors is held out (adapt_score.py). There the best closed form is found
(closed_forms.py), and from it on the strength of the pull back to it and the number of steps are
chosen. There the maps must also beat the identity by more than chance; otherwise they are not used.
Then everything is done once more in the way that was chosen, with all vectors.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from openmofi.config import AdaptSettings, override
from openmofi.errors import InputError, MismatchError, OpenMOFIError
from openmofi.files.folders import check_replaceable, local_path, new_folder
from openmofi.model import MofiModel, load_model
from openmofi.model.class_rows import FOLDER
from openmofi.progress import Progress, progress
from openmofi.train.adapt_data import Cached, read_cached, read_labels
from openmofi.train.adapt_files import (
    AdaptSummary,
    is_ours,
    write_card,
    write_mapped,
    write_maps,
    write_model,
)
from openmofi.train.adapt_score import (
    FEW,
    MOST_SCORED,
    Favour,
    HeldOutScore,
    at_most,
    harms,
    is_better,
    joined,
    num_folds,
    rounded,
    score,
    split,
)
from openmofi.train.closed_forms import CENTRED, POWERS, ClosedForm, closed_forms, moments
from openmofi.train.folding import can_fold
from openmofi.train.labels import read_texts
from openmofi.train.linear_maps import EntityTexts, Examples, Fit, Maps, unit_floats

PULLS = (10.0, 3.0, 1.0)
"""Strengths of the pull towards the start that are tried, where none is given."""
_CHUNK = 16_384


@dataclass(frozen=True)
class Labelled:
    """Vectors with the entities they show."""

    cached: Cached
    rows: np.ndarray
    """Vectors that have a label."""
    targets: np.ndarray
    """[rows, K] numbers of `ids`, the target first, -1 where there are fewer."""
    ids: list[str]
    texts: EntityTexts | None

    def examples(self, chosen: np.ndarray) -> tuple[Examples, list[str]]:
        """Returns some of the rows as examples, and the ids of the classes among their targets."""
        targets = self.targets[chosen]
        classes = np.unique(targets[:, 0])
        number = np.full(len(self.ids) + 1, -1, np.int64)  # the last stands for -1
        number[classes] = np.arange(len(classes))
        texts = self.texts
        if texts is not None:
            texts = replace(
                texts,
                vectors_TND=texts.vectors_TND[:, classes],
                groups_TN=texts.groups_TN[:, classes],
            )
        examples = Examples(
            self.cached.vectors, self.rows[chosen], number[targets], len(classes), texts
        )
        return examples, [self.ids[c] for c in classes]


@dataclass
class Choice:
    """The best that was found on the held-out part."""

    before: HeldOutScore
    after: HeldOutScore
    favour: Favour = "both"
    start: str = "identity"
    """The closed form that the maps begin from."""
    pull: float | None = None
    steps: int = 0
    centred: HeldOutScore | None = None
    """Of the mean alone, where that gains something and harms nothing."""

    def consider(
        self, found: HeldOutScore, form: ClosedForm, pull: float | None = None, steps: int = 0
    ) -> None:
        """Takes a way to maps if it is better than the best so far, and harms nothing."""
        if found.value(self.favour) <= self.after.value(self.favour):
            return
        if self.favour == "both" and harms(found, self.before):
            return
        if not self.only_plain or (form.plain and not steps):
            self.after, self.start, self.pull, self.steps = found, form.name, pull, steps
        if form.name == CENTRED and not steps:
            self.centred = found

    @property
    def only_plain(self) -> bool:
        """Whether too few entities are held out to tell what raising directions does to others."""
        return self.favour != "known" and len(self.before.per_entity[1]) < FEW

    def settle(self) -> None:
        """Goes back to the mean alone, or to the identity, unless the gain is more than chance.

        The mean needs no such proof, since no label can mislead it.
        """
        if not is_better(self.after, self.before, self.favour):
            found = self.centred or self.before
            self.after, self.start = found, CENTRED if self.centred else "identity"
            self.pull, self.steps = None, 0

    @property
    def adapted(self) -> bool:
        """Whether the maps are not the identity."""
        return self.start != "identity"


def adapt(
    embeddings: Path | str,
    *,
    labels: Path | str | None = None,
    out: Path | str,
    model: Path | str | MofiModel | None = None,
    texts: Path | str | None = None,
    kb: Path | str | None = None,
    settings: AdaptSettings | None = None,
    changes: Mapping[str, Any] | None = None,
    write_embeddings: bool = False,
    device: str = "auto",
) -> AdaptSummary:
    """Trains linear maps on cached vectors, and folds them into the encoder where it allows.

    Args:
        embeddings: output of `embed`, or an .npy [n, dim].
        labels: a CSV or Parquet file, see `labels.join_labels`; may be left out where the
            vectors' file names entities.
        out: folder to write.
        model: encoder of the vectors; the default is the one that the vectors' file names.
        texts: CSV with the columns id, name and description of the entities.
        kb: knowledge base with the same, if there is no such CSV.
        settings: of the training; the defaults suit most data.
        changes: settings to change, as `config.parse_assignments` gives them.
        write_embeddings: write the adapted vectors of the whole file, too.
        device: where the encoder computes; the maps are trained on the CPU.

    Raises:
        InputError: a file is missing or empty, or does not fit the others.
        MismatchError: the encoder has another width than the vectors.
    """
    out = local_path(out)
    check_replaceable(out, is_ours, "the output of `openmofi adapt`")
    chosen: AdaptSettings = override(settings or AdaptSettings(), dict(changes or {}))
    cached = read_cached(embeddings)
    given, dropped = read_labels(cached, labels)
    encoder, note = _encoder(cached, model, device, needed=bool(texts or kb))
    labelled = _labelled(cached, given, encoder, texts=texts, kb=kb)
    log: list[dict[str, Any]] = []
    choice = _choose(labelled, chosen, log)
    choice.settle()
    fit, ids = _train_on_all(labelled, chosen, choice)
    if encoder is not None and not can_fold(encoder):
        note = (
            f"{type(encoder.network).__name__} does not end in two projections without bias and "
            "cannot be taken apart, so the maps are not folded into a checkpoint."
        )
        encoder = None
    if not choice.adapted:
        note = f"No map was better than the identity on the held-out part, so it was kept. {note}"
    summary = AdaptSummary(
        out=out,
        adapted=choice.adapted,
        vectors=len(labelled.rows),
        entities=len(ids),
        dropped=dropped,
        start=choice.start,
        pull=choice.pull,
        steps=choice.steps,
        before=_named(choice.before),
        after=_named(choice.after),
        model=str(out / "model") if encoder is not None else None,
        note=note.strip(),
    )
    with new_folder(out) as folder:
        inputs = {"embeddings": embeddings, "labels": labels, "texts": texts, "kb": kb}
        write_card(folder, summary, chosen, inputs)
        write_maps(folder, fit, ids)
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log))
        if encoder is not None:
            compared = chosen.contrastive > 0 and bool(texts or kb)
            zero_shot = encoder.reads_texts and (compared or not choice.adapted)
            about = summary, _name(cached, model)
            write_model(folder / "model", encoder, fit.maps, *about, zero_shot=zero_shot)
            if not encoder.reads_texts:  # only by their rows can it name entities
                shutil.copytree(folder / FOLDER, folder / "model" / FOLDER)
        if write_embeddings:
            write_mapped(folder, cached, fit.maps, summary.model)
    return summary


def _name(cached: Cached, model: Path | str | MofiModel | None) -> str:
    """Returns what the encoder is called."""
    if isinstance(model, MofiModel):
        return str(model.network.name_or_path) or type(model.network).__name__
    return str(model or cached.model)


def _encoder(
    cached: Cached, model: Path | str | MofiModel | None, device: str, *, needed: bool
) -> tuple[MofiModel | None, str]:
    """Returns the encoder of the vectors, or None and why there is none."""
    if isinstance(model, MofiModel):
        encoder = model
    elif model is None and not cached.model:
        if needed:
            raise InputError(
                f"{str(cached.file)!r} does not name its encoder, which must encode the texts; "
                "pass --model."
            )
        return None, "The encoder is not known (--model), so the maps are not folded into one."
    else:
        try:
            encoder = load_model(model or cached.model, device=device)
        except OpenMOFIError as error:
            if model is not None or needed:
                raise
            return None, f"The maps are not folded into the vectors' encoder: {error}"
    width = cached.vectors.shape[1]
    if encoder.dim != width:
        raise MismatchError(
            f"The vectors in {str(cached.file)!r} have {width} dimensions but the encoder has "
            f"{encoder.dim}; pass as --model the one that made them."
        )
    return encoder, ""


def _labelled(
    cached: Cached,
    given: list[list[str]],
    encoder: MofiModel | None,
    *,
    texts: Path | str | None,
    kb: Path | str | None,
) -> Labelled:
    rows = np.array([row for row, found in enumerate(given) if found], np.int64)
    ids = sorted({entity for found in given for entity in found})
    if len(ids) < 2:
        raise InputError(
            f"The labels name {len(ids)} entities ({', '.join(ids) or 'none'}); expected at least "
            "three, with two vectors each."
        )
    number = {entity: i for i, entity in enumerate(ids)}
    targets = np.full((len(rows), max(map(len, given))), -1, np.int64)
    for i, row in enumerate(rows):
        targets[i, : len(given[row])] = [number[entity] for entity in given[row]]
    known = read_texts(ids, texts=texts, kb=kb)
    encoded = _encode_texts(encoder, *known) if encoder is not None and known else None
    return Labelled(cached, rows, targets, ids, encoded)


def _encode_texts(encoder: MofiModel, names: list[str], descriptions: list[str]) -> EntityTexts:
    """Encodes "name" and "name: description" of each entity, every text once."""
    full = [
        f"{name}: {text}" if name and text else name
        for name, text in zip(names, descriptions, strict=True)
    ]
    distinct = sorted({*names, *full} - {""})
    vectors = np.zeros((len(distinct) + 1, encoder.dim), np.float16)  # the last: no text
    with progress("encode texts", total=len(distinct), unit="texts") as bar:
        for start in range(0, len(distinct), _CHUNK):
            part = distinct[start : start + _CHUNK]
            vectors[start : start + len(part)] = encoder.encode_texts(part)
            bar.advance(len(part))
    place = {text: i for i, text in enumerate(distinct)}
    groups = np.array([[place.get(text, -1) for text in kind] for kind in (names, full)])
    scale = min(float(encoder.logit_scale.detach().float().exp()), 100.0)
    return EntityTexts(vectors[groups], groups, scale)


@dataclass(frozen=True)
class Fold:
    """One way to hold out a part of the vectors."""

    examples: Examples
    vectors: np.ndarray
    """Held out; those of known entities first."""
    targets: np.ndarray
    num_known: int
    known_alone: bool

    def score(self, maps: Maps) -> HeldOutScore:
        """Measures maps on the held-out vectors."""
        mapped, alone = maps.apply_to_images(self.vectors), self.known_alone
        return score(mapped, self.targets, num_known=self.num_known, known_alone=alone)


def _folds(labelled: Labelled, settings: AdaptSettings) -> list[Fold]:
    targets, folds = labelled.targets[:, 0], []
    for number in range(num_folds(targets, share=settings.holdout)):
        parts = split(
            targets, labelled.ids, share=settings.holdout, seed=settings.seed, fold=number
        )
        known, unseen = (at_most(p, targets, MOST_SCORED // 2) for p in (parts.known, parts.unseen))
        scored = np.concatenate([known, unseen])
        vectors = labelled.cached.vectors[labelled.rows[scored]]
        examples, _ = labelled.examples(parts.train)
        alone = settings.favour == "known"
        folds.append(Fold(examples, vectors, targets[scored], len(known), alone))
    return folds


def _choose(labelled: Labelled, settings: AdaptSettings, log: list[dict[str, Any]]) -> Choice:
    """Tries the closed forms and the pulls on part of the vectors, and scores them on the rest."""
    folds = _folds(labelled, settings)
    identity = Maps.identity(labelled.cached.vectors.shape[1])
    before = joined([fold.score(identity) for fold in folds])
    if math.isnan(before.mean):
        raise InputError("No held-out entity has two vectors; label more vectors per entity.")
    choice = Choice(before, before, settings.favour)
    starts: dict[bool, tuple[float, tuple[ClosedForm, ...]]] = {}  # the best of either kind
    for forms in zip(*(_closed_forms(fold.examples) for fold in folds), strict=True):
        found = joined([fold.score(f.maps) for fold, f in zip(folds, forms, strict=True)])
        log.append({"step": 0, "start": forms[0].name, **_named(found)})
        choice.consider(found, forms[0])
        value = found.value(settings.favour)
        if forms[0].plain not in starts or value > starts[forms[0].plain][0]:
            starts[forms[0].plain] = (value, forms)
    if choice.only_plain:
        return choice
    if settings.favour != "both":  # one score: one form is the best
        starts = dict([max(starts.items(), key=lambda item: item[1][0])])
    pulls = PULLS if settings.pull is None else (settings.pull,)
    total = settings.steps * len(pulls) * len(starts)
    with progress("adapt", total=total, unit="steps") as bar:
        for value, forms in starts.values():
            reached = value
            for number, pull in enumerate(pulls):
                fits = [
                    Fit(fold.examples, settings, pull=pull, start=form.maps)
                    for fold, form in zip(folds, forms, strict=True)
                ]
                best = _try(fits, folds, forms[0], choice, log, bar)
                bar.skip(settings.steps - fits[0].steps)
                if best <= reached:  # a weaker pull leads farther in the same direction
                    bar.skip(settings.steps * (len(pulls) - number - 1))
                    break
                reached = best
    return choice


def _try(
    fits: list[Fit],
    folds: list[Fold],
    form: ClosedForm,
    choice: Choice,
    log: list[dict[str, Any]],
    bar: Progress,
) -> float:
    """Trains with one pull on every fold; stops when the held-out score no longer rises.

    Returns the highest value of what is favoured.
    """
    settings, best, waited = fits[0].settings, -math.inf, 0
    while fits[0].steps < settings.steps and waited < settings.patience:
        ahead = min(settings.evaluate_every, settings.steps - fits[0].steps)
        terms = [fit.advance(ahead) for fit in fits]
        bar.advance(ahead)
        step = fits[0].steps
        found = joined([fold.score(fit.maps) for fold, fit in zip(folds, fits, strict=True)])
        line = {"step": step, "start": form.name, "pull": fits[0].pull}
        log.append({**line, **rounded(terms[0]), **_named(found)})
        choice.consider(found, form, fits[0].pull, step)
        value = found.value(settings.favour)
        best, waited = max(best, value), 0 if value > best else waited + 1
    return best


def _closed_forms(examples: Examples) -> Iterator[ClosedForm]:
    """Yields the closed forms of examples, by their first labels."""
    classes = examples.targets_MK[:, 0]
    texts = examples.texts
    for power in POWERS:
        text_mean = None
        if texts is not None:
            known = texts.vectors_TND[texts.groups_TN >= 0]
            text_mean = unit_floats(known, power).double().mean(0).numpy() if len(known) else None
        found = moments(examples.vectors, examples.rows, classes, power=power)
        yield from closed_forms(found, text_mean, power=power)


def _train_on_all(
    labelled: Labelled, settings: AdaptSettings, choice: Choice
) -> tuple[Fit, list[str]]:
    """Trains on all vectors as was chosen; without a choice, the class rows are the means."""
    examples, ids = labelled.examples(np.arange(len(labelled.rows)))
    start = None
    if choice.adapted:
        start = next(f.maps for f in _closed_forms(examples) if f.name == choice.start)
    fit = Fit(examples, settings, pull=choice.pull or 0.0, start=start)
    steps = choice.steps if choice.adapted else 0
    with progress("train on all", total=steps, unit="steps") as bar:
        fit.advance(steps)
        bar.advance(steps)
    fit.maps = fit.maps.copy()
    return fit, ids


def _named(found: HeldOutScore) -> dict[str, float]:
    named = {"known": found.known, "unseen": found.unseen, "mean": found.mean}
    return rounded({name: value for name, value in named.items() if not math.isnan(value)})
