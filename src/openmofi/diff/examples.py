"""A few changes of every cause, drawn evenly from all, whatever the order of the pairs."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
import pyarrow as pa

from openmofi.diff.causes import Cause
from openmofi.diff.rules import hashes

_LEAST_PER_CAUSE = 4


class ChangeExamples:
    """Keeps the changes with the smallest hashes."""

    def __init__(self, images: int):
        """Takes the number of examples of all causes together."""
        self._each = max(images // len(Cause), _LEAST_PER_CAUSE) if images else 0
        self._kept: dict[str, list[tuple[int, dict[str, Any]]]] = defaultdict(list)

    def add(self, changes: pa.Table) -> None:
        """Looks through schema.CHANGES."""
        if not self._each or not len(changes):
            return
        draw = hashes(changes["key"].combine_chunks())
        causes = changes["cause"].combine_chunks().dictionary_encode()
        codes = causes.indices.to_numpy()
        for number, cause in enumerate(causes.dictionary.to_pylist()):
            mine = np.flatnonzero(codes == number)
            mine = mine[np.argsort(draw[mine], kind="stable")[: self._each]]
            kept = self._kept[cause]
            kept += zip(draw[mine].tolist(), changes.take(pa.array(mine)).to_pylist(), strict=True)
            kept.sort(key=lambda item: item[0])
            del kept[self._each :]

    def of(self, cause: str) -> list[dict[str, Any]]:
        """Returns the examples of a cause."""
        return [change for _, change in self._kept[cause]]
