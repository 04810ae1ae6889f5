"""Opens a knowledge base: lookups by id and by name, for people and for the linker.

In: a folder written by `build.py`. Out: `KnowledgeBase`. Opening reads one small JSON file; arrays
are memory-mapped and tables are read when they are first asked for.
"""

import json
import string
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from openmofi.errors import InputError, MismatchError
from openmofi.kb.build import FORMAT, FORMAT_VERSION
from openmofi.kb.hashing import HASH_VERSION, Hasher
from openmofi.kb.index import NameIndex, hash_text, open_array
from openmofi.kb.text import CANONICAL_VERSION, canonical


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
    """exact, prefix (of a longer name) or similar (one letter differs)."""


@dataclass(frozen=True)
class EntityView:
    """All that is known about an entity."""

    id: str
    label: str
    description: str
    row: int
    """Popularity rank; 0 is the most popular."""
    prior: float
    num_aliases: int
    sitelinks: int
    types: list[str]
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
            MismatchError: another version of OpenMOFI built it, whose names differ.
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
            if meta[name] != version:
                raise MismatchError(
                    f"{path} has {name.replace('_', ' ')} {meta[name]}, this OpenMOFI needs "
                    f"{version}; build it again with: openmofi kb build SOURCE --out {path}"
                )
        return cls(path, meta)

    def __len__(self) -> int:
        return self.meta["entities"]

    @property
    def fingerprint(self) -> str:
        """Identifies the content: equal for equal entities, names and priors."""
        return self.meta["fingerprint"]

    @cached_property
    def index(self) -> NameIndex:
        """The lookup of names."""
        return NameIndex.open(self.path / "index")

    @cached_property
    def entities(self) -> pa.Table:
        """Columns of `schema.ENTITIES`; the row number is the popularity rank."""
        return pq.read_table(self.path / "entities.parquet", memory_map=True).combine_chunks()

    @cached_property
    def names(self) -> pa.Table:
        """Columns of `schema.NAMES`, sorted by key."""
        return pq.read_table(self.path / "names.parquet", memory_map=True).combine_chunks()

    @cached_property
    def ids(self) -> pa.StringArray:
        """The ids of all entities by row, memory-mapped."""
        offsets, data = (self._array(name) for name in ("id_offsets", "id_bytes"))
        buffers = pa.py_buffer(offsets), pa.py_buffer(data)
        return pa.StringArray.from_buffers(len(self), *buffers)

    def _array(self, name: str) -> np.ndarray:
        return open_array(self.path / "index" / f"{name}.npy")

    @cached_property
    def _id_index(self) -> tuple[np.ndarray, np.ndarray]:
        return self._array("id_hashes"), self._array("id_rows")

    def row_of(self, identifier: str) -> int | None:
        """Returns the row of an entity, or None."""
        hashes, rows = self._id_index
        wanted = hash_text(self.hasher, identifier)[0]
        at = int(np.searchsorted(hashes, wanted))
        if at == len(hashes) or hashes[at] != wanted:
            return None
        row = int(rows[at])
        return row if self.ids[row].as_py() == identifier else None

    def rows_of(self, identifiers: Sequence[str]) -> list[int]:
        """Returns the rows of entities that are known to be in this knowledge base.

        Raises:
            InputError: one of them is not.
        """
        rows = [self.row_of(identifier) for identifier in identifiers]
        for identifier, row in zip(identifiers, rows, strict=True):
            if row is None:
                raise InputError(f"{str(self.path)!r} has no entity {identifier!r}.")
        return [row for row in rows if row is not None]

    def entity_text(self, rows: Sequence[int] | np.ndarray) -> list[str]:
        """Returns "label: description" of entities, or the label where there is no more."""
        selected = pa.array(np.asarray(rows, np.int64))
        labels = self.entities["label"].take(selected).to_pylist()
        descriptions = self.entities["description"].take(selected).to_pylist()
        pairs = zip(labels, descriptions, strict=True)
        return [f"{label}: {text}" if text else label for label, text in pairs]

    def show(self, identifier: str) -> EntityView:
        """Returns all that is known about an entity.

        Raises:
            InputError: there is no such id.
        """
        row = self.row_of(identifier)
        if row is None:
            raise InputError(
                f"{self.path} has no entity {identifier!r}; "
                "find ids by name with: openmofi kb query NAME --kb DIR"
            )
        columns = self.entities.slice(row, 1).to_pylist()[0]
        of_entity = self.names.filter(pc.equal(self.names["entity"], row))
        names: dict[str, list[str]] = {}
        for name in of_entity.sort_by([("weight", "descending")]).to_pylist():
            names.setdefault(name["language"], []).append(name["raw"])
        return EntityView(row=row, names=names, **columns)

    def query(self, name: str, *, limit: int = 10) -> list[Candidate]:
        """Returns the entities that a name may mean, most probable first.

        Where no entity has the name, names that begin with it follow, then those that differ from
        it by one letter.
        """
        key = canonical(name)
        if not key:
            return []
        found = self._of_keys([key], "exact", limit)
        found = found or self._of_keys(self._longer_keys(key, 50 * limit), "prefix", limit)
        return found or self._of_keys(self._similar_keys(key), "similar", limit)

    def _of_keys(self, keys: list[str], match: str, limit: int) -> list[Candidate]:
        """Returns the candidates of several keys by weight, each entity once."""
        found: dict[int, tuple[float, float, dict[str, Any]]] = {}
        for key in keys:
            rows = self._rows_of_key(key)
            total = sum(row["weight"] for row in rows)
            for row in rows:
                prior, weight = row["weight"] / total, row["weight"]
                if row["entity"] not in found or weight > found[row["entity"]][0]:
                    found[row["entity"]] = weight, prior, row
        best = sorted(found.values(), key=lambda item: (-item[0], item[2]["entity"]))[:limit]
        return [self._candidate(row, prior, match) for _, prior, row in best]

    def _candidate(self, name: dict[str, Any], prior: float, match: str) -> Candidate:
        entity = self.entities.slice(name["entity"], 1).to_pylist()[0]
        return Candidate(
            id=entity["id"],
            label=entity["label"],
            description=entity["description"],
            prior=prior,
            name=name["raw"],
            kind=name["kind"],
            match=match,
        )

    def _rows_of_key(self, key: str) -> list[dict[str, Any]]:
        keys = _SortedKeys(self.names["key"])
        low = bisect_left(keys, key.encode())
        high = bisect_left(keys, key.encode() + b"\0", lo=low)
        return self.names.slice(low, high - low).to_pylist()

    def _longer_keys(self, key: str, limit: int) -> list[str]:
        low = bisect_left(_SortedKeys(self.names["key"]), key.encode())
        following = self.names["key"].slice(low, limit).to_pylist()
        return list(dict.fromkeys(k for k in following if k.startswith(key)))

    def _similar_keys(self, key: str) -> list[str]:
        """Returns the keys at edit distance 1: all edits are made and looked up at once."""
        edits = sorted(_edits(key))
        hashes = self.hasher.strings(pa.array(edits, pa.string()))
        return [edits[i] for i in np.flatnonzero(self.index.find(hashes) >= 0)]


class _SortedKeys(Sequence):
    """Lets bisect compare keys as bytes, the order in which Arrow sorts strings."""

    def __init__(self, keys: pa.ChunkedArray):
        self._keys = keys

    def __len__(self) -> int:
        return len(self._keys)

    def __getitem__(self, i: Any) -> Any:
        return self._keys[i].as_py().encode()


def _edits(word: str) -> set[str]:
    """Returns the strings one deletion, transposition, replacement or insertion away."""
    splits = [(word[:i], word[i:]) for i in range(len(word) + 1)]
    letters = string.ascii_lowercase + string.digits + " "
    deleted = {a + b[1:] for a, b in splits if b}
    transposed = {a + b[1] + b[0] + b[2:] for a, b in splits if len(b) > 1}
    replaced = {a + c + b[1:] for a, b in splits if b for c in letters}
    inserted = {a + c + b for a, b in splits for c in letters}
    return deleted | transposed | replaced | inserted
