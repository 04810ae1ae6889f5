"""How names are written: small (turkey), with a capital (Turkey), or in capitals only (US).

In: names as their sources write them. Out: one bit for each way. The bits of several spellings of
a name are combined, so an entity called "crane" and "Crane" may be written either way.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

SMALL, LARGE, CAPITALS = 1, 2, 4
"""SMALL has no capital; LARGE has small letters and capitals, or a single capital; CAPITALS has at
least two capitals and no small letter. A name without case, such as 東京, is LARGE."""


def spellings(names: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """Returns how each name is written, int8 [n]."""
    is_small = pc.equal(names, pc.utf8_lower(names)).to_numpy(zero_copy_only=False)
    is_capital = pc.equal(names, pc.utf8_upper(names)).to_numpy(zero_copy_only=False)
    found = np.full(len(names), LARGE, np.int8)
    found[is_small & ~is_capital] = SMALL
    perhaps = np.flatnonzero(is_capital & ~is_small)
    several = pc.match_substring_regex(names.take(pa.array(perhaps)), r"\p{Lu}.*\p{Lu}")
    found[perhaps[several.to_numpy(zero_copy_only=False)]] = CAPITALS
    return found
