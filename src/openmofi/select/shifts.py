"""Log odds that answers add to names, and to names as one entity, wherever they stand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from openmofi.corrections.keys import find, pair_keys, text_keys

_SCHEMA = pa.schema(
    [
        ("name", pa.string()),  # canonical form
        ("id", pa.string()),  # null: whatever the name means
        ("shift", pa.float64()),  # log odds
    ]
)


@dataclass(frozen=True)
class _Table:
    """Values by 64-bit keys, see corrections/keys.py."""

    keys: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint64))
    """Sorted."""
    values: np.ndarray = field(default_factory=lambda: np.zeros(0))

    @classmethod
    def of(cls, keys: np.ndarray, values: np.ndarray) -> _Table:
        order = np.argsort(keys)
        return cls(keys[order], values[order])

    def get(self, wanted: np.ndarray) -> np.ndarray:
        """Returns the value of each key; 0 if there is none."""
        if not len(self.keys):
            return np.zeros(len(wanted))
        at, known = find(self.keys, wanted)
        return np.where(known, self.values[at], 0.0)


@dataclass(frozen=True)
class Shifts:
    """Shifts by name, and by name and entity; they add up."""

    of_names: _Table = _Table()
    of_pairs: _Table = _Table()
    table: pa.Table = field(default_factory=_SCHEMA.empty_table)
    """All of them, largest first."""

    @classmethod
    def of_texts(
        cls,
        names: Mapping[str, float],
        pairs: Mapping[tuple[str, str], float],
    ) -> Shifts:
        """Returns shifts by canonical name, and by name and id."""
        rows: list[dict[str, Any]] = []
        rows += [{"name": name, "id": None, "shift": shift} for name, shift in names.items()]
        rows += [{"name": n, "id": e, "shift": shift} for (n, e), shift in pairs.items()]
        rows.sort(key=lambda row: (-abs(row["shift"]), row["name"] or "", row["id"] or ""))
        return cls.of_table(pa.Table.from_pylist(rows, _SCHEMA))

    @classmethod
    def of_table(cls, table: pa.Table) -> Shifts:
        """Returns the shifts in a stored table."""
        names, ids = table["name"].combine_chunks(), table["id"].combine_chunks()
        values, name = table["shift"].to_numpy(), text_keys(names)
        pair = pair_keys(name, text_keys(ids.fill_null("")))
        general = ids.is_null().to_numpy(zero_copy_only=False)
        return cls(
            _Table.of(name[general], values[general]),
            _Table.of(pair[~general], values[~general]),
            table,
        )

    def of(self, names: np.ndarray, pairs: np.ndarray) -> np.ndarray:
        """Returns the whole shift of each candidate, given the keys of its name and pair."""
        return self.of_names.get(names) + self.of_pairs.get(pairs)
