"""The sections of the page that show images: the rows that they show, and their texts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from openmofi.images.look import fetch, look
from openmofi.images.thumbnails import thumbnail
from openmofi.kb.text import canonical
from openmofi.pairs import ImageReader
from openmofi.refused import Refused
from openmofi.select.choose import choose
from openmofi.select.selection import Selection

_PER_ENTITY = 6
_SHOWN_CANDIDATES = 6
_SIDE = 144
_FILES_LOOKED_INTO = 100
_LONGEST_CAPTION = 300
_LOOKED_THROUGH = 100
"""Kept images of an entity, the surest first, among which those of a name are searched."""


@dataclass
class SelectionAlbum:
    """Provides the images and the entities' names for the sections."""

    selection: Selection
    images: int
    """Images per section."""
    _readers: dict[str, ImageReader] = field(default_factory=dict)

    def card(self, row: dict[str, Any], **more: Any) -> dict[str, Any]:
        """Returns what the page shows of a row of the labels."""
        caption = row.get("caption") or ""
        short = caption[:_LONGEST_CAPTION] + (" …" if len(caption) > _LONGEST_CAPTION else "")
        shown = {"caption": short, "key": row["key"], "shard": row["shard"], **self.image(row)}
        shown["boxes"] = row.get("text_boxes") or []
        shown["candidates"] = self.candidates(row.get("entities") or [])
        return shown | more

    def image(self, row: dict[str, Any], root: str = "") -> dict[str, str]:
        """Returns the image's data URL, or the reason why there is none."""
        if row["offset"] < 0 and not row["path"]:
            return {"url": "", "why": row.get("error") or "no_image"}
        root = root or self.selection.card["input"]
        reader = self._readers.setdefault(root, ImageReader(root))
        url = thumbnail(reader.read, row, side=_SIDE)
        why = "" if url else row.get("error") or ""
        if not url and not why:
            data = fetch(reader.read, row)
            seen = data if isinstance(data, Refused) else look(data, None)
            why = seen.reason if isinstance(seen, Refused) else "cannot_be_drawn"
        return {"url": url, "why": why}

    def candidates(self, entities: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
        """Returns the most probable candidates of all mentions, with their names."""
        order = sorted(entities, key=lambda c: (c["start"], -_surety(c)))
        return [self.named(candidate) for candidate in order[:_SHOWN_CANDIDATES]]

    def named(self, candidate: dict[str, Any]) -> dict[str, Any]:
        """Adds the entity's label and description."""
        row = self.selection.kb.row_of(candidate["id"])
        assert row is not None
        texts = self.selection.kb.texts
        label, description = texts.label[row].as_py(), texts.description[row].as_py()
        return {**candidate, "label": label, "description": description}


def _surety(candidate: dict[str, Any]) -> float:
    return candidate["text_score"] if candidate["score"] is None else candidate["score"]


def _spread(count: int, wanted: int) -> np.ndarray:
    """Returns numbers below `count`, evenly spread."""
    return np.unique(np.linspace(0, count - 1, min(count, wanted)).round().astype(int))


def gallery(album: SelectionAlbum) -> Iterator[dict[str, Any]]:
    """Yields entities across the whole range of frequencies, with their surest images."""
    vocabulary = album.selection.vocabulary
    first, score = album.selection.first_classes()
    for number in _spread(len(vocabulary), max(album.images // _PER_ENTITY, 1)).tolist():
        rows = np.flatnonzero(first == number)
        rows = rows[np.argsort(-score[rows], kind="stable")][:_PER_ENTITY]
        found = album.selection.kept(rows.tolist())
        cards = [album.card(row, score=float(score[i])) for i, row in zip(rows, found, strict=True)]
        yield vocabulary.slice(number, 1).to_pylist()[0] | {"cards": cards}


def disagreements(album: SelectionAlbum) -> Iterator[dict[str, Any]]:
    """Yields images for which the text alone and text with image choose different entities."""
    selection, wanted = album.selection, max(album.images // 2, 1)
    threshold = selection.card["threshold"] or 0
    per_file = max(wanted // max(min(len(selection.shards), _FILES_LOOKED_INTO) // 4, 1), 1)
    for _, number in zip(range(_FILES_LOOKED_INTO), selection.spread_files(), strict=False):
        file = selection.files[number]
        text = choose(file, "text-first")
        both = choose(file, "joint", selection.weights, selection.priors)
        changed = pc.not_equal(text.ids.cast(pa.string()), both.ids.cast(pa.string()))
        rows = both.row[changed.to_numpy(zero_copy_only=False) & (both.evidence >= threshold)]
        rows = np.unique(rows)
        for row in selection.read(number, rows[_spread(len(rows), min(per_file, wanted))].tolist()):
            by_text, by_both, mention = _contested(row["entities"])
            said = {"text": album.named(by_text), "both": album.named(by_both)}
            yield album.card(row | {"entities": mention}, **said)
            wanted -= 1
        if wanted <= 0:
            return


def _contested(
    entities: list[dict[str, Any]],
) -> tuple[dict[str, Any], dict[str, Any], list[dict[str, Any]]]:
    """Returns (choice by text, choice with the image, candidates) of the mention that changed."""
    mentions: dict[int, list[dict[str, Any]]] = {}
    for candidate in entities:
        mentions.setdefault(candidate["start"], []).append(candidate)
    chosen = [
        (max(mention, key=lambda c: c["text_score"]), max(mention, key=_surety), mention)
        for mention in mentions.values()
    ]
    changed = [choice for choice in chosen if choice[0]["id"] != choice[1]["id"]]
    return max(changed or chosen, key=lambda choice: _surety(choice[1]))


def moved_names(album: SelectionAlbum) -> Iterator[dict[str, Any]]:
    """Yields names whose meaning the images moved, with kept images of both meanings."""
    selection, each = album.selection, _PER_ENTITY // 2
    classes = {id_: number for number, id_ in enumerate(selection.vocabulary["id"].to_pylist())}
    first, score = selection.first_classes()
    moved = selection.card.get("priors", {}).get("moved", [])
    for name in moved[: max(album.images // _PER_ENTITY, 1)]:
        shown = {"name": name["name"], "mentions": name["mentions"]}
        for side in ("before", "after"):
            meaning = name[side]
            rows = np.flatnonzero(first == classes.get(meaning["id"], -1))
            rows = rows[np.argsort(-score[rows], kind="stable")][:_LOOKED_THROUGH]
            found = [
                row
                for row in selection.kept(rows.tolist())
                if any(
                    entity["id"] == meaning["id"] and canonical(entity["surface"]) == name["name"]
                    for entity in row["entities"]
                )
            ]
            shown[side] = album.named(meaning) | {"cards": [album.card(r) for r in found[:each]]}
        yield shown


def refusals(album: SelectionAlbum) -> Iterator[dict[str, Any]]:
    """Yields a few refused images per reason, spread over the input."""
    funnel = album.selection.card["funnel"]["refused"]
    per_reason = max(album.images // max(len(funnel), 1), min(album.images, 4))
    place = album.selection.reasons()
    for number, (reason, count) in enumerate(funnel.items()):
        rows = np.flatnonzero(place == number)
        rows = rows[_spread(len(rows), per_reason)] if len(rows) else rows
        cards = [album.card(row) for row in album.selection.refused(rows.tolist())]
        yield {"reason": reason, "count": count, "cards": cards}


def duplicates(album: SelectionAlbum) -> Iterator[dict[str, Any]]:
    """Yields some refused duplicates for each reason, with the images that they repeat."""
    table = pq.read_table(album.selection.folder / "duplicates.parquet")
    reasons = pc.unique(table["reason"]).to_pylist()
    for reason in reasons:
        mine = table.filter(pc.equal(table["reason"], reason))
        mine = mine.take(pc.sort_indices(mine, [("bits", "descending")]))
        picks = _spread(len(mine), max(album.images // 3 // len(reasons), 1))
        for row in mine.take(pa.array(picks)).to_pylist():
            other = {name: row[f"of_{name}"] for name in ("key", "shard", "offset", "size", "path")}
            yield {
                "reason": reason,
                "bits": row["bits"],
                "refused": album.image(row) | {"key": row["key"]},
                "kept": album.image(other, row["of_root"]) | {"key": other["key"]},
                "elsewhere": row["of_root"],
            }


def text_regions(album: SelectionAlbum) -> list[dict[str, Any]]:
    """Returns images with text, from the least to the most."""
    selection, found = album.selection, []
    for _, number in zip(range(_FILES_LOOKED_INTO), selection.spread_files(), strict=False):
        with pq.ParquetFile(selection.files[number]) as file:
            area = file.read(["text_area"])["text_area"].fill_null(0).to_numpy()
        rows = np.flatnonzero(area > 0)
        rows = rows[np.argsort(area[rows], kind="stable")]
        found += [(area[row], number, row) for row in rows[_spread(len(rows), 8)]]
        if len(found) >= 20 * album.images:
            break
    found.sort()
    limit = selection.card["settings"]["max_text_area"]
    cards = []
    for i in _spread(len(found), max(album.images // 4, 1)) if found else []:
        area, number, place = found[i]
        [row] = selection.read(int(number), [int(place)])
        refused = limit is not None and area > limit
        cards.append(album.card(row, area=float(area), refused=refused))
    return cards
