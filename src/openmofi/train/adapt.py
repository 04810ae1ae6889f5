"""Adapting an encoder on its cached vectors: two linear maps in minutes, without a GPU.

    vectors + labels (+ texts) -> maps.safetensors, adapt.json, metrics.jsonl, entity_head/, model/

Part of the vectors is held out (adapt_score.py). There the strength of the pull towards the
identity and the number of steps are chosen, and there the maps must beat the identity by more than
chance; otherwise they are not used. Then all vectors are trained on in the way that was chosen.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from openmofi.config import AdaptSettings, override
from openmofi.errors import InputError, MismatchError, OpenMOFIError
from openmofi.files.folders import check_replaceable, local_path, new_folder
from openmofi.model import MofiModel, load_model
from openmofi.progress import Progress, progress
from openmofi.train.adapt_data import Cached, read_cached, read_labels, read_texts
from openmofi.train.adapt_files import (
    AdaptSummary,
    is_ours,
    write_card,
    write_mapped,
    write_maps,
    write_model,
)
from openmofi.train.adapt_score import (
    MOST_SCORED,
    HeldOutScore,
    at_most,
    harms,
    is_better,
    score,
    split,
)
from openmofi.train.folding import can_fold
from openmofi.train.linear_maps import EntityTexts, Examples, Fit, Maps, apply_map

PULLS = (0.3, 1.0, 3.0, 10.0)
"""Strengths of the pull that are tried, where none is given."""
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
    pull: float | None = None
    steps: int = 0

    @property
    def adapted(self) -> bool:
        """Whether it beats the identity by more than chance."""
        return self.steps > 0 and is_better(self.after, self.before)


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
        labels: a CSV or Parquet file, see `adapt_data.read_labels`; may be left out where the
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
    fit, ids = _train_on_all(labelled, chosen, choice)
    if encoder is not None and not can_fold(encoder):
        note = (
            f"{type(encoder.network).__name__} does not end in two projections without bias, so "
            "the maps are not folded into a checkpoint."
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
            zero_shot = compared or not choice.adapted
            about = summary, _name(cached, model)
            write_model(folder / "model", encoder, fit.maps, *about, zero_shot=zero_shot)
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


def _choose(labelled: Labelled, settings: AdaptSettings, log: list[dict[str, Any]]) -> Choice:
    """Tries the pulls on part of the vectors, and scores them on the rest."""
    targets = labelled.targets[:, 0]
    parts = split(targets, labelled.ids, share=settings.holdout, seed=settings.seed)
    known, unseen = (at_most(p, targets, MOST_SCORED // 2) for p in (parts.known, parts.unseen))
    scored = np.concatenate([known, unseen])
    vectors = labelled.cached.vectors[labelled.rows[scored]]

    def score_of(maps: Maps) -> HeldOutScore:
        mapped = apply_map(vectors, maps.image_DD.detach())
        return score(mapped, targets[scored], num_known=len(known))

    before = score_of(Maps.identity(vectors.shape[1]))
    if math.isnan(before.mean):
        raise InputError("No held-out entity has two vectors; label more vectors per entity.")
    choice = Choice(before, before)
    log.append({"step": 0, **_named(before)})
    pulls = PULLS if settings.identity_pull is None else (settings.identity_pull,)
    examples, _ = labelled.examples(parts.train)
    with progress("adapt", total=settings.steps * (len(pulls) + 1), unit="steps") as bar:
        for pull in pulls:
            _try(Fit(examples, settings, pull=pull), choice, score_of, log, bar)
    return choice


def _try(
    fit: Fit,
    choice: Choice,
    score_of: Callable[[Maps], HeldOutScore],
    log: list[dict[str, Any]],
    bar: Progress,
) -> None:
    """Trains with one pull, and notes the best score in the choice; stops when there is none."""
    settings, best, waited = fit.settings, -math.inf, 0

    def watch(step: int, terms: dict[str, float]) -> bool:
        nonlocal best, waited
        bar.advance()
        if step % settings.evaluate_every and step != settings.steps:
            return False
        found = score_of(fit.maps)
        log.append({"step": step, "identity_pull": fit.pull, **_rounded(terms), **_named(found)})
        if found.mean > choice.after.mean and not harms(found, choice.before):
            choice.after, choice.pull, choice.steps = found, fit.pull, step
        best, waited = max(best, found.mean), 0 if found.mean > best else waited + 1
        return waited >= settings.patience

    fit.run(settings.steps, watch)


def _train_on_all(
    labelled: Labelled, settings: AdaptSettings, choice: Choice
) -> tuple[Fit, list[str]]:
    """Trains on all vectors as was chosen; without a choice, the class rows are the means."""
    examples, ids = labelled.examples(np.arange(len(labelled.rows)))
    fit = Fit(examples, settings, pull=choice.pull or 0.0)
    with progress("train on all", total=choice.steps, unit="steps") as bar:
        if choice.adapted:
            fit.run(choice.steps, lambda step, terms: bool(bar.advance()))
    fit.maps = fit.maps.copy()
    return fit, ids


def _named(found: HeldOutScore) -> dict[str, float]:
    named = {"known": found.known, "unseen": found.unseen, "mean": found.mean}
    return _rounded({name: value for name, value in named.items() if not math.isnan(value)})


def _rounded(values: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 5) for name, value in values.items()}
