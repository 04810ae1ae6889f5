"""A knowledge base as parts, as if its sources had been read again: what `kb build --onto` keeps.

In: a knowledge base, and the part files of new sources. Out: for each source that it was built
from, the entities whose ids no new source has, and their names. They are in the order of its rows,
which for equal priors is the order of reading, so that the merge ranks them as it did. A name has
one record where its entity writes it in several ways; `spelling` says which.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from openmofi.arrays.mapped import one_chunk
from openmofi.config import KBSettings, as_dict
from openmofi.errors import MismatchError
from openmofi.kb.classes import CLASSES
from openmofi.kb.read.parts import CLASS_PARTS, ENTITY_PARTS, KINDS, NAME_PARTS, Done, PartFiles
from openmofi.kb.store import KnowledgeBase

_SAME = ("languages", "prior_gamma", "alias_weight", "language_weight")
"""Settings that decided which names and priors were kept."""
_AGAIN = ("redirects", "anchors", "overrides")
"""Files whose lines are not kept, only what followed from them."""
_SOURCE_NAMES = KINDS.index("anchor")
"""Kinds of names below this come from sources, the others from the user's files."""
_MAX_PRIOR = 1e30
SPELLED_NAMES = pa.schema([*NAME_PARTS, ("spelling", pa.int8())])


@dataclass(frozen=True)
class KeptEntities:
    """What stays of a knowledge base."""

    parts: list[PartFiles]
    """One per source that it was built from, in their order."""
    sources: list[str]
    """Their names."""
    kept: int
    replaced: int
    """Entities of which a new source has the id."""
    card: dict[str, Any]
    """Which knowledge base it was, and the inputs that it was built from."""


def keep_entities(
    kb: KnowledgeBase, new: Sequence[PartFiles], settings: KBSettings
) -> KeptEntities:
    """Returns the entities that the new sources do not replace.

    Args:
        kb: the knowledge base.
        new: finished part files of the new sources.
        settings: of the new build, see `check_onto`.
    """
    replaced = _replaced(kb, new)
    table = kb.entities(["source"])["source"].combine_chunks().dictionary_encode()
    names = table.dictionary.to_pylist()
    inputs = [Path(path).name for path in _inputs(kb)]
    order = sorted(names, key=lambda name: [*inputs, name].index(name))
    number = table.indices.to_numpy()
    parts: list[PartFiles] = []
    for name in order:
        mine = (number == names.index(name)) & ~replaced
        parts.append(_ExistingPart(kb, mine, settings.prior_gamma))
    card = {"path": str(kb.path), "fingerprint": kb.fingerprint, "inputs": _inputs(kb)}
    return KeptEntities(parts, order, int((~replaced).sum()), int(replaced.sum()), card)


def check_onto(kb: KnowledgeBase, settings: KBSettings) -> None:
    """Checks that entities of a knowledge base can be merged with new ones as they once were.

    Raises:
        MismatchError: another setting decided which names it has, a file that it was built with is
            not given again, or its priors were scaled.
    """
    before, now = _card(kb)["settings"], as_dict(settings)
    for name in _SAME:
        old = before[name]
        if list(old) != list(now[name]) if isinstance(old, list) else old != now[name]:
            text = ",".join(old) if isinstance(old, list) else f"{old:g}"
            flag = f"--{name.replace('_', '-')} {text}"
            raise MismatchError(
                f"{str(kb.path)!r} was built with {flag}; give the same with --onto."
            )
    for name in _AGAIN:
        if before.get(name) and not now[name]:
            raise MismatchError(
                f"{str(kb.path)!r} was built with --{name} {before[name]}; give that file, or a "
                "newer one, with --onto, since a knowledge base does not keep its lines."
            )
    highest = kb.entities(["prior"])["prior"]
    if settings.prior_gamma == 0 or not len(highest):
        return
    if highest[0].as_py() >= _MAX_PRIOR * (1 - 1e-6):
        raise MismatchError(
            f"{str(kb.path)!r} has priors that were scaled down to fit, so that new ones cannot be "
            "compared with them; build it from all sources instead."
        )


def _card(kb: KnowledgeBase) -> dict[str, Any]:
    return json.loads((kb.path / "card.json").read_text(encoding="utf-8"))


def _inputs(kb: KnowledgeBase) -> list[str]:
    """Returns the paths of all sources, those of the knowledge bases below it first."""
    card = _card(kb)
    return [*card.get("onto", {}).get("inputs", []), *(i["path"] for i in card["inputs"])]


def _replaced(kb: KnowledgeBase, new: Sequence[PartFiles]) -> np.ndarray:
    """Returns for each row of a knowledge base whether a new source has its id."""
    found = np.zeros(len(kb), bool)
    for files in new:
        for batch in files.entities():
            rows = kb.find_rows(batch["id"])
            known = np.flatnonzero(rows >= 0)
            ids = kb.ids.take(pa.array(rows[known])).cast(pa.string())
            same = pc.equal(ids, batch["id"].take(pa.array(known)))  # and no redirected id
            found[rows[known[same.to_numpy(zero_copy_only=False)]]] = True
    return found


class _ExistingPart(PartFiles):
    """Some entities of a knowledge base, as the part files of a source."""

    def __init__(self, kb: KnowledgeBase, mine: np.ndarray, gamma: float):
        self.folder, self._kb, self._gamma = kb.path, kb, gamma
        self._mine, self._position = mine, np.cumsum(mine, dtype=np.int32) - 1
        count = int(mine.sum())
        self.done = Done(finished=True, num_parts=1, num_entities=count, num_names=kb.meta["names"])

    def entities(self) -> Iterator[pa.RecordBatch]:
        """Yields the entities in the order of their rows."""
        begin = 0
        for table in _groups(self._kb.path / "entities.parquet"):
            mine = self._mine[begin : begin + len(table)]
            kept = table.filter(pa.array(mine))
            columns = {name: kept[name] for name in kept.column_names}
            columns["popularity"] = _popularity(kept["prior"].to_numpy(), self._gamma)
            columns["line"] = np.flatnonzero(mine) + begin + 1
            begin += len(table)
            arrays = [_column(columns[field.name], field.type) for field in ENTITY_PARTS]
            yield pa.RecordBatch.from_arrays(arrays, schema=ENTITY_PARTS)

    def names(self) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Yields their names, and at the end, with none, the number of all entities."""
        for table in _groups(self._kb.path / "names.parquet"):
            entity = table["entity"].to_numpy()
            kind = pc.index_in(table["kind"], pa.array(KINDS)).to_numpy()
            kept = self._mine[entity] & (kind < _SOURCE_NAMES)
            rows = table.filter(pa.array(kept))
            columns = {
                "entity": self._position[entity[kept]],
                "position": np.zeros(len(rows), np.int32),
                "key": rows["key"],
                "raw": rows["raw"],
                "language": rows["language"],
                "kind": kind[kept],
                "spelling": rows["spelling"],
            }
            arrays = [_column(columns[field.name], field.type) for field in SPELLED_NAMES]
            yield 0, pa.RecordBatch.from_arrays(arrays, schema=SPELLED_NAMES)
        nobody = [pa.array([], field.type) for field in SPELLED_NAMES]
        count = self.done.num_entities
        yield count, pa.RecordBatch.from_arrays(nobody, schema=SPELLED_NAMES)

    def classes(self) -> Iterator[pa.RecordBatch]:
        """Yields what is known of types that are no entities."""
        file = self._kb.path / CLASSES
        if file.is_file():
            yield from pq.read_table(file, schema=CLASS_PARTS).to_batches()

    def rejects(self) -> Iterator[dict[str, Any]]:
        """Yields nothing: what earlier builds refused stays with them."""
        yield from ()


def _groups(path: Path) -> Iterator[pa.Table]:
    with pq.ParquetFile(path) as file:
        for number in range(file.num_row_groups):
            yield file.read_row_group(number)


def _column(values: Any, kind: pa.DataType) -> pa.Array:
    if isinstance(values, pa.ChunkedArray):
        return one_chunk(values).cast(kind)
    return pa.array(values, kind)


def _popularity(prior: np.ndarray, gamma: float) -> np.ndarray:
    """Returns popularities that have these priors.

    The tables have priors of 24 bits. Where those are no whole numbers, the shortest decimal number
    is taken of all that are rounded to it, which a catalogue will have had.
    """
    exact = prior.astype(np.float64)
    broken = np.flatnonzero(exact != np.floor(exact))
    if gamma == 1 and len(broken):
        exact[broken] = prior[broken].astype(str).astype(np.float64)
    if gamma in (0, 1):
        return exact - 1
    return exact ** (1 / gamma) - 1
