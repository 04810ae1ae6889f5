"""Opens a knowledge base: lookups by id and by name, for people and for the linker.

In: a folder written by `build.py`. Out: `KnowledgeBase`. Opening reads one small JSON file; arrays
are memory-mapped and shared by all processes, tables are read piece by piece as needed.
"""

import json
import string
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from openmofi.arrays.hashing import HASH_VERSION, Hasher
from openmofi.errors import InputError, MismatchError
from openmofi.kb.classes import read_classes
from openmofi.kb.format import FORMAT, FORMAT_VERSION
from openmofi.kb.ids import Ids
from openmofi.kb.index import MAX_CANDIDATES, NameIndex
from openmofi.kb.names import NameTable
from openmofi.kb.text import CANONICAL_VERSION, canonical, canonical_batch
from openmofi.kb.text import Captions as Names
from openmofi.kb.texts import Texts
from openmofi.kb.words import WordCounts
from openmofi.schema import CANDIDATES

_LONGEST_TO_CORRECT = 64
"""Most characters of a name for which names that differ by one letter are searched."""
LINKABILITY = "linkability"
"""Folder in a knowledge base with counts of its names, see link/linkability.py."""


@dataclass(frozen=True)
class Candidate:
    """An entity that a name may mean."""

    id: str
    label: str
    description: str
    prior: float
    """p(entity | name); sums to 1 over the name's entities."""
    name: str
    """The name as its source writes it."""
    kind: str
    """label, title or alias."""
    match: str
    """exact, prefix (of a longer name) or similar (differs by one letter)."""


@dataclass(frozen=True)
class EntityView:
    """Everything that is known about an entity."""

    id: str
    label: str
    description: str
    row: int
    """Popularity rank; 0 is the most popular."""
    prior: float
    num_aliases: int
    sitelinks: int
    statements: int
    types: list[str]
    subclass_of: list[str]
    image: str
    enwiki: str
    source: str
    names: dict[str, list[str]] = field(default_factory=dict)
    """By language, in order of weight."""


class KnowledgeBase:
    """A knowledge base on disk; cheap to open, safe to open in many processes."""

    def __init__(self, path: Path, meta: dict[str, Any]):
        self.path, self.meta = path, meta
        self.hasher = Hasher(meta["seed"])

    @classmethod
    def open(cls, path: Path | str) -> "KnowledgeBase":
        """Opens the knowledge base in a folder.

        Raises:
            InputError: the folder is not a knowledge base.
            MismatchError: another version of OpenMOFI, whose names differ, built it.
        """
        path = Path(path)
        try:
            meta = json.loads((path / "meta.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            meta = {}
        if not isinstance(meta, dict) or meta.get("format") != FORMAT:
            raise InputError(
                f"{path} is not a knowledge base; build one with: "
                f"openmofi kb build SOURCE --out {path}"
            )
        current = {
            "format_version": FORMAT_VERSION,
            "canonical_version": CANONICAL_VERSION,
            "hash_version": HASH_VERSION,
        }
        for name, version in current.items():
            if meta.get(name) != version:
                raise MismatchError(
                    f"{path} has {name.replace('_', ' ')} {meta.get(name)}, this OpenMOFI needs "
                    f"{version}; build it again with: openmofi kb build SOURCE --out {path}"
                )
        return cls(path, meta)

    def __len__(self) -> int:
        return self.meta["entities"]

    @property
    def fingerprint(self) -> str:
        """Hash of the content: the same for equal entities, names, priors and counts."""
        counts = self.path / LINKABILITY / "card.json"
        counted = json.loads(counts.read_text())["fingerprint"] if counts.exists() else ""
        return self.meta["fingerprint"] + counted

    @property
    def languages(self) -> list[str]:
        """Codes of the languages whose names it was built with."""
        return self.meta["languages"]

    @cached_property
    def index(self) -> NameIndex:
        """The lookup of names."""
        return NameIndex.open(self.path / "index")

    @cached_property
    def names(self) -> NameTable:
        """Names as their sources write them."""
        return NameTable(self.path / "names.parquet")

    @cached_property
    def texts(self) -> Texts:
        """Labels, descriptions and types by row, memory-mapped."""
        return Texts(self.path / "texts")

    @cached_property
    def classes(self) -> dict[str, str]:
        """Labels of types that are no entities, by id."""
        return read_classes(self.path)

    @cached_property
    def words(self) -> WordCounts:
        """Rarity of the words in the entities' texts."""
        return WordCounts(self.path / "words")

    @property
    def ids(self) -> pa.LargeStringArray:
        """The ids of all entities by row, memory-mapped."""
        return self._ids.by_row

    @property
    def id_ranks(self) -> np.ndarray:
        """By row: the place of each entity's id, uint32, if all were sorted by their bytes."""
        return self._ids.ranks

    @cached_property
    def _ids(self) -> Ids:
        return Ids(self.path / "ids", len(self))

    @cached_property
    def _entities(self) -> pq.ParquetFile:
        return pq.ParquetFile(self.path / "entities.parquet")

    def entities(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Reads columns of `schema.ENTITIES`; the row number is the popularity rank."""
        return self._entities.read(columns=columns)

    def find_rows(self, identifiers: pa.Array) -> np.ndarray:
        """Returns the int64 row of each id, or of what it was redirected to; -1 for unknown ids."""
        return self._ids.rows(identifiers)

    def row_of(self, identifier: str) -> int | None:
        """Returns the row of an entity, or None."""
        try:
            row = int(self._ids.rows(pa.array([identifier]))[0])
        except UnicodeEncodeError:  # a lone surrogate, as in an argument that is not UTF-8
            return None
        return None if row < 0 else row

    def rows_of(self, identifiers: Sequence[str]) -> list[int]:
        """Returns the rows of entities.

        Raises:
            InputError: one of them is not in this knowledge base.
        """
        return self.entity_rows(pa.array(identifiers, pa.string())).tolist()

    def entity_rows(self, ids: pa.Array) -> np.ndarray:
        """Returns the int64 rows of entities, as `rows_of` does."""
        rows = self._ids.rows(ids)
        if len(rows) and rows.min() < 0:
            unknown = ids[int(rows.argmin())].as_py()
            raise InputError(f"{str(self.path)!r} has no entity {unknown!r}.")
        return rows

    def entity_text(self, rows: Sequence[int] | np.ndarray) -> list[str]:
        """Returns "label: description" of entities, or only the label without a description."""
        return self.texts.described(np.asarray(rows, np.int64)).to_pylist()

    def text_with_types(self, rows: Sequence[int] | np.ndarray) -> list[str]:
        """Returns "label (type, type): description" of entities, with their two nearest types."""
        return self.texts.of_kind(np.asarray(rows, np.int64)).to_pylist()

    def keys(self, names: Names) -> np.ndarray:
        """Returns the position of each name in the index, -1 for unknown ones."""
        return self.index.find(self.hasher.strings(canonical_batch(names)))

    def canonical_names(self, keys: np.ndarray) -> list[str]:
        """Returns the names at positions of the index; reads all names to find them."""
        found: dict[int, str] = {}
        for batch in self.names.all_keys():
            of_batch = self.index.find(self.hasher.strings(batch))
            for i in np.flatnonzero(np.isin(of_batch, keys)).tolist():
                found[int(of_batch[i])] = batch[i].as_py()
        return [found[key] for key in keys.tolist()]

    def lookup(self, names: Names, *, max_candidates: int = MAX_CANDIDATES) -> pa.Table:
        """Returns the entities that each of many names may mean, most probable first.

        Args:
            names: an Arrow array or a list of strings; unknown names give no row.
            max_candidates: entities per name, at most 30.

        Returns:
            Columns row (index of the name), id, rank (0 = best) and prior, p(entity | name).

        Raises:
            InputError: `names` is one string instead of many, or max_candidates is out of bounds.
        """
        if isinstance(names, str):
            raise InputError(f"lookup expects a list of names; write lookup([{names!r}]).")
        if not 1 <= max_candidates <= MAX_CANDIDATES:
            raise InputError(f"max_candidates cannot be {max_candidates}; expected 1 to 30.")
        found = self.index.candidates(self.keys(names), max_candidates)
        columns = {
            "row": found.item,
            "id": self.ids.take(pa.array(found.entity)),
            "rank": found.rank,
            "prior": found.prior,
        }
        return pa.table(
            [
                pa.array(column).cast(CANDIDATES.field(name).type)
                for name, column in columns.items()
            ],
            names=list(columns),
        )

    def show(self, identifier: str) -> EntityView:
        """Returns everything that is known about an entity.

        Raises:
            InputError: there is no such id.
        """
        row = self.row_of(identifier)
        if row is None:
            raise InputError(
                f"{self.path} has no entity {identifier!r}; "
                "find ids by name with: openmofi kb query NAME --kb DIR"
            )
        columns = self._entity(row)
        names: dict[str, list[str]] = {}
        for name in self.names.of_entity(row).to_pylist():
            of_language = names.setdefault(name["language"], [])
            if name["raw"] not in of_language:  # one with a barrier has two keys
                of_language.append(name["raw"])
        return EntityView(row=row, names=names, **columns)

    def _entity(self, row: int) -> dict[str, Any]:
        """Reads one row of entities.parquet."""
        begin = 0
        for i in range(self._entities.num_row_groups):
            size = self._entities.metadata.row_group(i).num_rows
            if row < begin + size:
                return self._entities.read_row_group(i).slice(row - begin, 1).to_pylist()[0]
            begin += size
        raise AssertionError(f"no row {row}")

    def query(self, name: str, *, limit: int = 10) -> list[Candidate]:
        """Returns the entities that a name may mean, most probable first.

        If no entity has the name, it returns those with a name that begins with it or else with a
        name that differs from it by one letter.
        """
        if limit < 1:
            raise InputError(f"The limit cannot be {limit}; expected at least 1.")
        key = canonical(name)
        if not key:
            return []
        found = self._of_keys([key], "exact", limit)
        found = found or self._of_keys(
            self.names.keys_with_prefix(key, 50 * limit), "prefix", limit
        )
        return found or self._of_keys(self._similar_keys(key), "similar", limit)

    def _of_keys(self, keys: list[str], match: str, limit: int) -> list[Candidate]:
        """Returns the candidates of several keys, each entity once, highest weight first."""
        found: dict[int, tuple[float, float, dict[str, Any]]] = {}
        for key in keys:
            rows = self.names.of_key(key).to_pylist()
            total = sum(row["weight"] for row in rows)
            for row in rows:
                prior, weight = row["weight"] / total, row["weight"]
                if row["entity"] not in found or weight > found[row["entity"]][0]:
                    found[row["entity"]] = weight, prior, row
        best = sorted(found.values(), key=lambda item: (-item[0], item[2]["entity"]))[:limit]
        return [self._candidate(row, prior, match) for _, prior, row in best]

    def _candidate(self, name: dict[str, Any], prior: float, match: str) -> Candidate:
        row = name["entity"]
        return Candidate(
            id=self.ids[row].as_py(),
            label=self.texts.label[row].as_py(),
            description=self.texts.description[row].as_py(),
            prior=prior,
            name=name["raw"],
            kind=name["kind"],
            match=match,
        )

    def _similar_keys(self, key: str) -> list[str]:
        """Returns the keys at edit distance 1, by looking up all edits of a key at once."""
        if len(key) > _LONGEST_TO_CORRECT:
            return []
        edits = sorted(_edits(key))
        hashes = self.hasher.strings(pa.array(edits, pa.string()))
        return [edits[i] for i in np.flatnonzero(self.index.find(hashes) >= 0)]


def _edits(word: str) -> set[str]:
    """Returns all strings that are one deletion, transposition, replacement or insertion away."""
    splits = [(word[:i], word[i:]) for i in range(len(word) + 1)]
    letters = string.ascii_lowercase + string.digits + " "
    deleted = {a + b[1:] for a, b in splits if b}
    transposed = {a + b[1] + b[0] + b[2:] for a, b in splits if len(b) > 1}
    replaced = {a + c + b[1:] for a, b in splits if b for c in letters}
    inserted = {a + c + b for a, b in splits for c in letters}
    return deleted | transposed | replaced | inserted
