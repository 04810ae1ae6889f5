"""A dual encoder of any image encoder and any text encoder, in minutes and without a GPU.

    image encoder + text encoder + pairs -> vectors/ -> pair.json, metrics.jsonl, model/

Both encoders run once; their vectors are kept, so a second run, or one after a kill, goes on from
them. Two linear maps then bring them together (alignment.py). Captions are held out: there the best
closed form is found, and there every step of training must be better than it. Then all pairs are
learnt from in the way that was chosen.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

import openmofi
from openmofi.arrays.random_keys import Purpose, random_key
from openmofi.config import PairSettings, as_dict, override
from openmofi.embed import Places, find_places
from openmofi.errors import InputError
from openmofi.evaluate.cache import VectorCache, content_key
from openmofi.evaluate.recall import recall
from openmofi.evaluate.vectors import FileVectors, ModelVectors, Vectors
from openmofi.files.folders import check_replaceable, local_path, new_folder, replace_file
from openmofi.label.encoder import model_digest
from openmofi.label.engine import absolute_model
from openmofi.model import MofiModel, save_model
from openmofi.model.checkpoint import text_model
from openmofi.model.sides import EncoderSide, image_side, join, load_text_side
from openmofi.progress import progress
from openmofi.train.adapt_score import hashed, rounded
from openmofi.train.alignment import (
    Alignment,
    PairVectors,
    Refinement,
    best_scale,
    canonical_alignments,
    class_rows,
)
from openmofi.train.card import card_tags
from openmofi.train.head_files import save_head

_CARD = "pair.json"
_VECTORS = "vectors"
_WIDEST = 512
_MOST_HELD_OUT = 2000
_FEWEST = 40
"""Different captions below which nothing can be held out."""
_TEXTS_AT_ONCE = 1024


@dataclass(frozen=True)
class PairSummary:
    """What came of pairing two encoders."""

    out: Path
    images: int
    captions: int
    """Different ones."""
    entities: int
    dim: int
    held_out: int
    """Captions held out, each with one image."""
    ridge: float
    power: float
    steps: int
    """Steps of training after the closed form; 0: none was better."""
    logit_scale: float
    closed_form: dict[str, float]
    """Held-out recall@k of the best closed form, in both directions."""
    after: dict[str, float]
    """The same of what was chosen."""
    learnt: dict[str, float]
    """The same among as many pairs that were learnt from: far above `after`, they are known by
    heart, wrong captions included, so label other images than these."""
    refused: dict[str, int] = field(default_factory=dict)
    """Images that were not learnt from, by reason."""


def pair(
    image_encoder: str | Path,
    text_encoder: str | Path,
    *,
    data: Path | str,
    out: Path | str,
    settings: PairSettings | None = None,
    changes: Mapping[str, Any] | None = None,
    device: str = "auto",
    embeddings: Path | str | None = None,
) -> PairSummary:
    """Learns two linear maps that make one dual encoder of two encoders.

    Args:
        image_encoder: directory, hub id or .onnx file of an image encoder, or of a dual encoder,
            whose image side is taken.
        text_encoder: directory or hub id of a text encoder, sentence-transformers' or other.
        data: tars, Parquet files, a folder or a listing of images with captions; or the output of
            `select`, whose entities' names and descriptions are learnt from as well.
        out: folder to write.
        settings: of the training; the defaults suit most data.
        changes: settings to change, as `config.parse_assignments` gives them.
        device: where the encoders compute; the maps are trained on the CPU.
        embeddings: output of `embed` with the image encoder on the data; its vectors are taken
            instead of encoding the images here.

    Raises:
        InputError: an encoder, the data or the vectors cannot be read or do not belong together,
            or there are too few captions.
    """
    out = local_path(out)
    check_replaceable(out, _is_ours, "the output of `openmofi pair`")
    chosen: PairSettings = override(settings or PairSettings(), dict(changes or {}))
    places = find_places(data)
    source = ModelVectors(str(image_encoder), device=device, cache=out)
    image = image_side(source.model.network, source.model.transform)
    if image is None:
        raise InputError(
            f"{str(image_encoder)!r} cannot be taken apart; pass an image encoder, or a dual "
            "encoder of CLIP's or SigLIP's kind."
        )
    text = load_text_side(str(text_encoder))
    digests = {str(name): model_digest(str(name)) for name in (image_encoder, text_encoder)}
    texts = out / _VECTORS / f"texts-{digests[str(text_encoder)]}"
    made_by = digests[str(image_encoder)]
    vectors = source if embeddings is None else _stored(embeddings, source.name, made_by)
    on = str(source.model.device)
    pairs, ids, captions, refused = _encode(vectors, text, places, texts, device=on)
    train, held_out = _split(pairs, captions, chosen)
    dim = chosen.dim or min(pairs.images.shape[1], pairs.texts.shape[1], _WIDEST)
    dim = min(dim, pairs.images.shape[1], pairs.texts.shape[1])
    log: list[dict[str, Any]] = []
    choice = _choose(pairs, train, held_out, chosen, dim, log)
    alignment, head = _learn_from_all(pairs, chosen, dim, choice)
    summary = PairSummary(
        out=out,
        images=len(pairs.rows_M),
        captions=len(captions),
        entities=len(ids),
        dim=dim,
        held_out=len(held_out),
        ridge=choice.form[0],
        power=choice.form[1],
        steps=choice.steps,
        logit_scale=choice.scale,
        closed_form=choice.closed_form,
        after=choice.after,
        learnt=choice.learnt,
        refused=refused,
    )
    network = join(
        image.then(alignment.image_DI, alignment.image_mean_I),
        text.then(alignment.text_DJ, alignment.text_mean_J),
        dim=dim,
    )
    network.logit_scale.data.fill_(float(np.log(choice.scale)))
    model = MofiModel(network, text.reads, source.model.transform, str(source.model.device))
    with new_folder(out / "model") as folder:
        save_model(model, folder, card=_model_card(summary, digests))
        if head is not None:
            save_head(head, ids, folder / "entity_head")
    _write(out / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in log))
    card = {
        "openmofi": openmofi.__version__,
        "encoders": digests,
        "data": str(Path(data).resolve()),
        "settings": as_dict(chosen),
        **{n: getattr(summary, n) for n in PairSummary.__dataclass_fields__ if n != "out"},
    }
    _write(out / _CARD, json.dumps(card, indent=2, ensure_ascii=False) + "\n")
    return summary


def _is_ours(folder: Path) -> bool:
    vectors = folder / _VECTORS
    if (folder / _CARD).is_file() or any(vectors.glob("*/*.keys.npy")):
        return True
    if [*folder.iterdir()] != [vectors]:
        return False
    files = (path for path in vectors.rglob("*") if not path.is_dir())
    return all(path.name.endswith(".npy") for path in files)  # no vectors yet, or half a pair


def _write(path: Path, text: str) -> None:
    with replace_file(path) as partial:
        partial.write_text(text)


# ---- the vectors ---------------------------------------------------------------------------


def _stored(path: Path | str, encoder: str, digest: str) -> FileVectors:
    """Opens vectors that `embed` made with the image encoder.

    Files that do not tell the digest of their encoder must name the same directory or hub id.

    Raises:
        InputError: another encoder made them.
    """
    vectors = FileVectors(path)
    again = f"run `openmofi embed {encoder} DATA --out VECTORS` and pass that."
    is_named = vectors.name == absolute_model(encoder)
    if is_named and vectors.digest not in ("", digest):
        raise InputError(
            f"The vectors in {str(path)!r} were made before {encoder!r} was changed; {again}"
        )
    if not is_named and vectors.digest != digest:
        raise InputError(
            f"The vectors in {str(path)!r} are of {vectors.name!r}, not of {encoder!r}; {again}"
        )
    return vectors


def _encode(
    source: Vectors, text: EncoderSide, places: Places, cache: Path, *, device: str
) -> tuple[PairVectors, list[str], list[str], dict[str, int]]:
    """Returns (vectors, ids of the entities, captions, images that were refused by reason).

    Args:
        source: of the images' vectors.
        text: the text encoder.
        places: of the images, with their captions and entities.
        cache: folder of the texts' vectors.
        device: where the text encoder computes.
    """
    captions = [caption or "" for caption in places.table["caption"].to_pylist()]
    different = sorted(set(captions) - {""})
    if len(different) < _FEWEST:
        raise InputError(
            f"The data has {len(different)} different captions; expected at least {_FEWEST}, some "
            "to learn from and some to measure with."
        )
    named = _entity_texts(places)
    shown = [found[0] if found else "" for found in places.table["entities"].to_pylist()]
    ids = sorted(set(shown) - {""})
    number = {entity: n for n, entity in enumerate(ids)}
    classes = np.array([number.get(entity, -1) for entity in shown], np.int64)
    # Every different text once, captions first.
    others = sorted({words for pair_of_texts in named.values() for words in pair_of_texts})
    row = {words: n for n, words in enumerate(dict.fromkeys([*different, *others]))}
    table = np.full((len(captions), 3 if named else 1), -1, np.int64)
    table[:, 0] = [row.get(caption, -1) for caption in captions]
    for image_row, entity in enumerate(shown):
        for kind, words in enumerate(named.get(entity, ()), 1):
            table[image_row, kind] = row[words]
    encoded = source.images(places, "images")
    text_vectors = _text_vectors(text, list(row), cache, device)
    rows = np.flatnonzero((table[encoded.rows] >= 0).any(1))
    refused = dict(encoded.refused)
    if len(rows) < len(encoded.rows):
        refused["no_caption"] = len(encoded.rows) - len(rows)
    at = encoded.rows[rows]
    pairs = PairVectors(encoded.vectors, text_vectors, rows, table[at], classes[at], len(ids))
    return pairs, ids, different, refused


def _entity_texts(places: Places) -> dict[str, tuple[str, str]]:
    """Returns id -> (name, name with description) of a selection's entities."""
    if places.selection is None:
        return {}
    vocabulary = pq.read_table(
        places.selection / "vocabulary.parquet", columns=["id", "label", "description"]
    )
    rows = zip(*(column.to_pylist() for column in vocabulary.columns), strict=True)
    return {
        entity: (name, f"{name}: {description}" if description else name)
        for entity, name, description in rows
        if name
    }


def _text_vectors(text: EncoderSide, texts: list[str], folder: Path, device: str) -> np.ndarray:
    """Returns the vectors of texts; what an earlier run encoded is not encoded again."""
    model = text_model(text, device=device)
    cache = VectorCache(folder, model.dim)
    keys = [content_key(words.encode()) for words in texts]
    vectors = np.zeros((len(texts), model.dim), np.float32)
    missing = []
    for number, key in enumerate(keys):
        known = cache.get(key)
        if known is None:
            missing.append(number)
        else:
            vectors[number] = known
    with progress("encode texts", total=len(missing), unit="texts") as bar:
        for start in range(0, len(missing), _TEXTS_AT_ONCE):
            part = missing[start : start + _TEXTS_AT_ONCE]
            vectors[part] = model.encode_texts_alone([texts[n] for n in part])
            cache.put([keys[n] for n in part], vectors[part])
            bar.advance(len(part))
    return vectors


# ---- what is learnt ------------------------------------------------------------------------


@dataclass
class _Choice:
    """The best way that was found on the held-out part."""

    form: tuple[float, float]
    closed_form: dict[str, float]
    after: dict[str, float]
    learnt: dict[str, float]
    scale: float
    steps: int = 0


def _split(
    pairs: PairVectors, captions: Sequence[str], settings: PairSettings
) -> tuple[np.ndarray, np.ndarray]:
    """Returns (pairs to learn from, one pair of every caption that is held out)."""
    key = random_key(settings.seed, Purpose.PAIR_HELD_OUT)
    drawn = np.array([hashed(caption, key) for caption in captions])
    least = max(settings.holdout, _FEWEST / 2 / len(captions))
    most = np.sort(drawn)[min(_MOST_HELD_OUT, len(captions) - 1)]
    is_held_out = drawn < min(least, most)
    own = pairs.texts_MK[:, 0]
    held = (own >= 0) & is_held_out[np.maximum(own, 0)]
    _, first = np.unique(own[held], return_index=True)
    return np.flatnonzero(~held), np.flatnonzero(held)[first]


def _choose(
    pairs: PairVectors,
    train: np.ndarray,
    held_out: np.ndarray,
    settings: PairSettings,
    dim: int,
    log: list[dict[str, Any]],
) -> _Choice:
    """Tries the closed forms, and training from the best of them, on the held-out pairs."""
    own = pairs.texts_MK[train, 0]
    _, first = np.unique(own[own >= 0], return_index=True)
    again = train[own >= 0][first][:: max(len(first) // len(held_out), 1)][: len(held_out)]

    def measure(alignment: Alignment, chosen: np.ndarray) -> tuple[dict[str, float], float]:
        found = alignment.of_images(pairs.images[pairs.rows_M[chosen]])
        words = alignment.of_texts(pairs.texts[pairs.texts_MK[chosen, 0]])
        return dict(recall(found, words, np.arange(len(words)))), best_scale(found, words)

    learnt, best, start = pairs.take(train), None, None
    for form, alignment in canonical_alignments(learnt, dim):
        scores, scale = measure(alignment, held_out)
        log.append({"step": 0, "ridge": form[0], "power": form[1], **rounded(scores)})
        if best is None or _value(scores) > _value(best.after):
            best = _Choice(form, scores, scores, measure(alignment, again)[0], scale)
            start = alignment
    assert best is not None
    assert start is not None
    if not settings.steps:
        return best
    fit, waited, highest = Refinement(learnt, settings, start, scale=best.scale), 0, 0.0
    with progress("pair", total=settings.steps, unit="steps") as bar:
        while fit.steps < settings.steps and waited < settings.patience:
            ahead = min(settings.evaluate_every, settings.steps - fit.steps)
            terms = fit.advance(ahead)
            bar.advance(ahead)
            scores, scale = measure(fit.alignment, held_out)
            log.append({"step": fit.steps, **rounded(terms), **rounded(scores)})
            if _value(scores) > _value(best.after):
                best.after, best.scale, best.steps = scores, scale, fit.steps
                best.learnt = measure(fit.alignment, again)[0]
            waited = 0 if _value(scores) > highest else waited + 1
            highest = max(highest, _value(scores))
    return best


def _learn_from_all(
    pairs: PairVectors, settings: PairSettings, dim: int, choice: _Choice
) -> tuple[Alignment, Any]:
    """Returns the alignment learnt from all pairs as was chosen, and class rows if any."""
    every = canonical_alignments(pairs, dim)
    alignment = next(found for form, found in every if form == choice.form)
    if choice.steps:
        fit = Refinement(pairs, settings, alignment, scale=choice.scale)
        with progress("train on all", total=choice.steps, unit="steps") as bar:
            fit.advance(choice.steps)
            bar.advance(choice.steps)
        if fit.head is not None:
            return fit.alignment, fit.head
        alignment = fit.alignment
    head = class_rows(pairs, alignment, seed=settings.seed) if pairs.num_classes > 1 else None
    return alignment, head


def _value(scores: Mapping[str, float]) -> float:
    """Returns what is to be as high as possible: the mean of all recalls."""
    return float(np.mean(list(scores.values())))


# ---- what is written -----------------------------------------------------------------------


def _model_card(summary: PairSummary, digests: Mapping[str, str]) -> str:
    encoders = "".join(f"| {name} | `{digest}` |\n" for name, digest in digests.items())
    rows = "".join(
        f"| {name} | {summary.closed_form[name]:.4f} | {value:.4f} | {summary.learnt[name]:.4f} |\n"
        for name, value in summary.after.items()
    )
    return f"""---
{card_tags(zero_shot=True)}
---
# {" and ".join(Path(name).name for name in digests)}, paired by OpenMOFI {openmofi.__version__}

Two encoders that stayed as they were, with a linear map behind each, learnt from
{summary.images:,} images with {summary.captions:,} captions. Load it with
`openmofi.model.load_model(path)`. The licences are the encoders'.

| encoder | revision or digest |
|---|---|
{encoders}
Recall among {summary.held_out:,} held-out captions, before all pairs were learnt from:

| | closed form | as chosen ({summary.steps} steps) | among pairs learnt from |
|---|---|---|---|
{rows}"""
