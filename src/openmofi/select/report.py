"""`openmofi inspect`: a selection -> one HTML file that shows what was kept, refused, and why."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from openmofi.errors import InputError
from openmofi.kb import KnowledgeBase
from openmofi.pairs import ImageReader
from openmofi.select.choose import choose
from openmofi.shards import committed_files
from openmofi.thumbnails import thumbnail

_PER_ENTITY = 6
_SHOWN_CANDIDATES = 4


@dataclass(frozen=True)
class _Look:
    """What the page is drawn from."""

    labels: list[Path]
    keep: pa.Table
    refused: pa.Table
    vocabulary: pa.Table
    card: dict[str, Any]
    kb: KnowledgeBase
    reader: ImageReader
    images: int


def inspect(
    i2e: Path | str, *, name: str = "default", out: Path | str | None = None, images: int = 60
) -> Path:
    """Writes the page and returns its path.

    Args:
        i2e: output of `label`.
        name: of the selection.
        out: HTML file; None puts inspect.html into the selection's folder.
        images: pictures per section.

    Raises:
        InputError: there is no such selection.
    """
    from jinja2 import Environment

    look = _open(Path(i2e), name, images)
    template = (files("openmofi.select") / "report.html").read_text()
    page = (
        Environment(autoescape=True)
        .from_string(template)
        .render(
            name=name,
            card=look.card,
            funnel=_funnel(look.card["funnel"]),
            entities=_entity_counts(look),
            gallery=list(_gallery(look)),
            disagreements=list(_disagreements(look)),
            refusals=list(_refusals(look)),
        )
    )
    path = Path(out) if out else Path(i2e) / "select" / name / "inspect.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")
    return path


def _open(i2e: Path, name: str, images: int) -> _Look:
    folder = i2e / "select" / name
    if not (folder / "card.json").is_file():
        raise InputError(
            f"{str(i2e)!r} has no selection {name!r}; run `openmofi select {i2e} --name {name}`."
        )
    card = json.loads((folder / "card.json").read_text())
    keep, refused, vocabulary = (
        pq.read_table(folder / f"{part}.parquet") for part in ("keep", "refused", "vocabulary")
    )
    reader = ImageReader(card["input"])
    kb = KnowledgeBase.open(Path(card["kb"]))
    return _Look(committed_files(i2e), keep, refused, vocabulary, card, kb, reader, images)


def _funnel(funnel: dict[str, Any]) -> list[dict[str, Any]]:
    total = max(funnel["pairs"], 1)
    rows = [("pairs", funnel["pairs"], "all")]
    rows += [(reason, count, "refused") for reason, count in funnel["refused"].items()]
    rows.append(("kept", funnel["kept_images"], "kept"))
    return [
        {"name": n, "count": count, "percent": 100 * count / total, "kind": kind}
        for n, count, kind in rows
    ]


def _entity_counts(look: _Look) -> list[dict[str, Any]]:
    rows = look.vocabulary.slice(0, 400).to_pylist()
    most = max((row["images"] for row in rows), default=1)
    return [{**row, "percent": 100 * row["images"] / most} for row in rows]


def _gallery(look: _Look) -> Iterator[dict[str, Any]]:
    """Yields entities spread over the whole range of frequencies, with their best images."""
    wanted = max(look.images // _PER_ENTITY, 1)
    step = max(len(look.vocabulary) // wanted, 1)
    first = pc.list_element(look.keep["classes"], 0).to_numpy()
    score = pc.list_element(look.keep["scores"], 0).to_numpy()
    for number in range(0, len(look.vocabulary), step)[:wanted]:
        rows = (first == number).nonzero()[0]
        rows = rows[(-score[rows]).argsort(kind="stable")][:_PER_ENTITY]
        taken = look.keep.take(pa.array(rows)).to_pylist()
        yield {
            **look.vocabulary.slice(number, 1).to_pylist()[0],
            "pictures": [_picture(look, row) | {"score": row["scores"][0]} for row in taken],
        }


def _disagreements(look: _Look) -> Iterator[dict[str, Any]]:
    """Yields images for which text alone and text with picture choose different entities."""
    threshold, wanted = look.card["threshold"] or 0, look.images // 2
    for path in look.labels:
        text, both = choose(path, "text-first"), choose(path, "joint")
        changed = pc.not_equal(text.ids, both.ids).to_numpy(zero_copy_only=False)
        rows = np.unique(both.row[changed & (both.clip_z >= threshold)])[:wanted]
        if not len(rows):
            continue
        wanted -= len(rows)
        for row in pq.read_table(path).take(pa.array(rows)).to_pylist():
            by_text, by_both, mention = _contested(row["entities"], threshold)
            mention.sort(key=lambda candidate: -candidate["score"])
            yield _picture(look, row) | {
                "text": _named(look, by_text),
                "both": _named(look, by_both),
                "candidates": [_named(look, c) for c in mention[:_SHOWN_CANDIDATES]],
            }


def _contested(
    entities: list[dict[str, Any]], threshold: float
) -> tuple[dict[str, Any], dict[str, Any], list[dict[str, Any]]]:
    """Returns (choice by text, choice with the picture, candidates) of the mention that changed."""
    mentions: dict[int, list[dict[str, Any]]] = {}
    for candidate in entities:
        mentions.setdefault(candidate["start"], []).append(candidate)
    for mention in mentions.values():
        by_text = max(mention, key=lambda candidate: candidate["text_score"])
        by_both = max(mention, key=lambda candidate: candidate["score"])
        if by_text["id"] != by_both["id"] and by_both["clip_z"] >= threshold:
            return by_text, by_both, mention
    raise AssertionError("the row was picked for a mention that changed")


def _refusals(look: _Look) -> Iterator[dict[str, Any]]:
    """Yields a few refused images per reason, spread over the input."""
    per_reason = max(look.images // max(len(look.card["funnel"]["refused"]), 1), 4)
    picks = {
        reason: _spread(look.refused.filter(pc.equal(look.refused["reason"], reason)), per_reason)
        for reason in look.card["funnel"]["refused"]
    }
    places = _places(look, [row for rows in picks.values() for row in rows])
    for reason, rows in picks.items():
        pictures = [_picture(look, places[row["shard"], row["row"]]) for row in rows]
        count = look.card["funnel"]["refused"][reason]
        yield {"reason": reason, "count": count, "pictures": pictures}


def _spread(rows: pa.Table, wanted: int) -> list[dict[str, Any]]:
    picks = range(0, len(rows), max(len(rows) // wanted, 1))[:wanted]
    return rows.take(pa.array(picks, pa.int64())).to_pylist()


def _places(look: _Look, wanted: list[dict[str, Any]]) -> dict[tuple[str, int], dict[str, Any]]:
    """Returns where the pictures of some refused rows lie, by (shard, row)."""
    rows_of: dict[str, list[int]] = {}
    for row in wanted:
        rows_of.setdefault(row["shard"], []).append(row["row"])
    columns = ["shard", "offset", "size", "path", "caption", "key"]
    places = {}
    for path in look.labels:
        with pq.ParquetFile(path) as file:
            first = next(file.iter_batches(1, columns=["shard"]), None)
            rows = rows_of.get(first["shard"][0].as_py()) if first else None
            if rows:
                found = file.read(columns).take(pa.array(rows)).to_pylist()
                places |= {(r["shard"], row): r for row, r in zip(rows, found, strict=True)}
    return places


def _picture(look: _Look, row: dict[str, Any]) -> dict[str, Any]:
    url = thumbnail(look.reader, row) if row["offset"] >= 0 or row["path"] else ""
    return {"url": url, "caption": row["caption"], "key": row["key"]}


def _named(look: _Look, candidate: dict[str, Any]) -> dict[str, Any]:
    row = look.kb.row_of(candidate["id"])
    assert row is not None
    texts = look.kb.texts
    label, description = texts.label[row].as_py(), texts.description[row].as_py()
    return {**candidate, "label": label, "description": description}
