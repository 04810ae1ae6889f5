"""What people said of labels -> what becomes of the candidates of a labels file.

Three things, in this order. Rules: a name never, or always, means an entity. Shifts: what answers
taught of a name and an entity moves the log odds of both everywhere (`learn_corrections.py`).
Answers about a pair: the candidate that is right is kept whatever its score, others go.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from openmofi.corrections.answers import FILE, WITHOUT_ENTITY, add_answers, read_answers
from openmofi.corrections.keys import find, name_keys, pair_keys, text_keys
from openmofi.corrections.standing import NameAnswer, Place, Standing, standing_of
from openmofi.kb import KnowledgeBase
from openmofi.kb.text import canonical
from openmofi.select.choose import ScoredCandidates
from openmofi.select.shifts import Shifts

SHIFTS_FILE = "shifts.parquet"


@dataclass(frozen=True)
class Corrections:
    """Everything that a selection goes by."""

    standing: Standing
    """What holds, with the ids of the knowledge base."""
    given: Standing = field(default_factory=Standing)
    """The same as people said it."""
    shifts: Shifts = field(default_factory=Shifts)
    found: dict[tuple[Path, int | None], dict[int, dict[str, NameAnswer]]] = field(
        default_factory=dict, repr=False, compare=False
    )
    """What `rows_in` found before, since several passes ask."""

    @classmethod
    def of(cls, standing: Standing, kb: KnowledgeBase) -> tuple[Corrections, int]:
        """Returns (what holds of a knowledge base, answers that name entities it lacks)."""
        listed = sorted({answer.entity for answer in standing.answers if answer.entity})
        rows = kb.find_rows(pa.array(listed, pa.string()))
        known = np.flatnonzero(rows >= 0)
        ids = kb.ids.take(pa.array(rows[known])).to_pylist()
        current = dict(zip([listed[i] for i in known], ids, strict=True))  # an id may be redirected
        answers = [
            msgspec.structs.replace(answer, entity=current.get(answer.entity, ""))
            for answer in standing.answers
            if answer.entity in current or answer.kind in WITHOUT_ENTITY
        ]
        unknown = len(standing.answers) - len(answers)
        return cls(standing_of(answers), standing), unknown

    def save(self, folder: Path) -> None:
        """Writes them into the folder of a selection."""
        add_answers(folder / FILE, self.given.answers)
        pq.write_table(self.shifts.table, folder / SHIFTS_FILE)

    @classmethod
    def read(cls, folder: Path, kb: KnowledgeBase) -> Corrections | None:
        """Returns those of a selection; None if it was made without any."""
        if not (folder / FILE).is_file():
            return None
        found, _ = cls.of(standing_of(read_answers(folder / FILE).rows), kb)
        return replace(found, shifts=Shifts.of_table(pq.read_table(folder / SHIFTS_FILE)))

    @property
    def digest(self) -> str:
        """Identifies the answers."""
        return self.given.digest

    def touches(self, surfaces: pa.StringArray, ids: pa.StringArray) -> np.ndarray:
        """Returns which candidates a rule or a shift is about, given the names as written."""
        names = name_keys(surfaces)
        pairs = pair_keys(names, text_keys(ids))
        ruled = find(self._never, pairs)[1] | find(self._always[0], names)[1]
        return ruled | (self.shifts.of(names, pairs) != 0)

    def are_about(self, keys: pa.StringArray, shards: pa.StringArray) -> np.ndarray:
        """Returns which pairs answers are about; without their captions, by key and shard."""
        hashes, places = self._places
        found = find(hashes, text_keys(keys))[1]
        for row in np.flatnonzero(found).tolist():
            here = places.get(keys[row].as_py(), ())
            found[row] = any(place.shard == shards[row].as_py() for place in here)
        return found

    def shift_of(self, named: list[tuple[str, str]]) -> np.ndarray:
        """Returns the shift of a few candidates, given each one's name as it is written and id."""
        surfaces, ids = (pa.array([pair[i] for pair in named], pa.string()) for i in (0, 1))
        names = name_keys(surfaces)
        return self.shifts.of(names, pair_keys(names, text_keys(ids)))

    @cached_property
    def _never(self) -> np.ndarray:
        return np.sort(_pairs([*self.standing.never]))

    @cached_property
    def _always(self) -> tuple[np.ndarray, np.ndarray]:
        """The keys of names that mean one thing, sorted, and those of the pairs."""
        rules = [*self.standing.always.items()]
        names = text_keys(pa.array([name for name, _ in rules], pa.string()))
        order = np.argsort(names)
        return names[order], _pairs(rules)[order]

    @cached_property
    def _places(self) -> tuple[np.ndarray, dict[str, list[Place]]]:
        """The sorted hashes of the keys of pairs that answers are about, and the pairs by key."""
        places: dict[str, list[Place]] = {}
        for place in self.standing.names:
            places.setdefault(place.key, []).append(place)
        return np.sort(text_keys(pa.array([*places], pa.string()))), places

    def rows_in(self, path: Path, group: int | None) -> dict[int, dict[str, NameAnswer]]:
        """Returns the rows of a labels file that answers are about, with the answers by name.

        Args:
            path: the labels file.
            group: the row group to look at, whose rows are counted from 0; None: all.
        """
        if not self.standing.names:
            return {}
        if (path, group) not in self.found:
            self.found[path, group] = self._rows_in(path, group)
        return self.found[path, group]

    def _rows_in(self, path: Path, group: int | None) -> dict[int, dict[str, NameAnswer]]:
        hashes, places = self._places
        with pq.ParquetFile(path) as file:
            keys = _read(file, group, ["key"])["key"].combine_chunks().fill_null("")
            at = np.flatnonzero(find(hashes, text_keys(keys))[1])
            if not len(at):
                return {}
            about = _read(file, group, ["key", "shard", "caption"]).take(pa.array(at)).to_pylist()
        found: dict[int, dict[str, NameAnswer]] = {}
        for row, pair in zip(at.tolist(), about, strict=True):
            texts = [pair[name] or "" for name in ("key", "shard", "caption")]
            if any(place.fits(*texts) for place in places.get(texts[0], ())):
                found[row] = self.standing.of_pair(*texts)
        return found

    def apply(
        self, found: ScoredCandidates, path: Path, group: int | None = None
    ) -> ScoredCandidates:
        """Returns the candidates of a labels file as these corrections leave them."""
        if not len(found.row):
            return found
        assert found.ids is not None
        assert found.surfaces is not None
        names = name_keys(found.surfaces)[found.item]
        entities = text_keys(found.ids.dictionary)[found.ids.indices.to_numpy()]
        pairs = pair_keys(names, entities)
        drop = find(self._never, pairs)[1]
        of_names, of_pairs = self._always
        if len(of_names):
            at, ruled = find(of_names, names)
            meant = ruled & (of_pairs[at] == pairs)
            # Only where the entity is a candidate.
            drop |= ruled & ~meant & _any(meant, found.begins)[found.item]
        shift = self.shifts.of(names, pairs)
        given = _Given.of(found, self.rows_in(path, group))
        drop = (drop | given.drop) & ~given.keep
        return _cut(replace(found, shift=shift), drop, given)


@dataclass(frozen=True)
class _Given:
    """What answers say of the pairs of a file."""

    drop: np.ndarray
    """Per candidate."""
    keep: np.ndarray
    """Per candidate: stays, whatever rules say."""
    known: np.ndarray
    """Per mention: see `ScoredCandidates.known`."""
    ids: dict[int, str]
    """Candidates that stand for another entity, which the caption did not offer."""

    @staticmethod
    def of(found: ScoredCandidates, rows: dict[int, dict[str, NameAnswer]]) -> _Given:
        """Goes through the mentions of the rows."""
        assert found.ids is not None
        assert found.surfaces is not None
        count = len(found.row)
        drop, keep = np.zeros(count, bool), np.zeros(count, bool)
        known, ids = np.zeros(len(found.begins), np.int8), {}
        ends = np.append(found.begins[1:], count)
        first_rows = found.row[found.begins]
        for row, answers in rows.items():
            nowhere = set().union(*(answer.wrong for answer in answers.values()))
            low, high = np.searchsorted(first_rows, [row, row + 1])
            for mention in range(low, high):
                begin, end = int(found.begins[mention]), int(ends[mention])
                mine = found.ids[begin:end].to_pylist()
                answer = answers.get(canonical(found.surfaces[mention].as_py()))
                drop[begin:end] = [one in nowhere for one in mine]
                if answer is None:
                    continue
                if answer.not_shown:
                    drop[begin:end], known[mention] = True, -1
                elif answer.entity is not None:
                    place = begin + mine.index(answer.entity) if answer.entity in mine else begin
                    drop[begin:end], keep[place], known[mention] = True, True, 1
                    if answer.entity not in mine:
                        ids[place] = answer.entity
        return _Given(drop, keep, known, ids)


def _cut(found: ScoredCandidates, drop: np.ndarray, given: _Given) -> ScoredCandidates:
    """Drops candidates; a mention that loses all keeps its first one, and is known as wrong."""
    lost = ~_any(~drop, found.begins)
    known = np.where(lost, -1, given.known).astype(np.int8)
    if not drop.any():
        return replace(found, known=known)
    kept = ~drop
    kept[found.begins[lost]] = True
    ids = _replaced(found.ids, given.ids)
    begins = np.cumsum(kept)[found.begins] - kept[found.begins]
    per_candidate = ("row", "text", "clip_z", "clip_z_other", "prior", "priors", "shift")
    taken = {
        name: values[kept] for name in per_candidate if (values := getattr(found, name)) is not None
    }
    return replace(found, begins=begins, ids=ids.filter(pa.array(kept)), known=known, **taken)


def _any(mask: np.ndarray, begins: np.ndarray) -> np.ndarray:
    """Returns for each mention whether any of its candidates is marked."""
    return np.logical_or.reduceat(mask, begins)


def _replaced(ids: pa.DictionaryArray | None, others: dict[int, str]) -> pa.DictionaryArray:
    """Returns ids of which some are others."""
    assert ids is not None
    if not others:
        return ids
    texts = [*ids.dictionary.to_pylist(), *others.values()]
    codes = ids.indices.to_numpy().copy()
    codes[list(others)] = np.arange(len(ids.dictionary), len(texts))
    return pa.DictionaryArray.from_arrays(pa.array(codes), pa.array(texts, ids.type.value_type))


def _pairs(pairs: list[tuple[str, str]]) -> np.ndarray:
    names, ids = (pa.array([pair[i] for pair in pairs], pa.string()) for i in (0, 1))
    return pair_keys(text_keys(names), text_keys(ids))


def _read(file: pq.ParquetFile, group: int | None, columns: list[str]) -> pa.Table:
    return file.read(columns) if group is None else file.read_row_group(group, columns)
