"""How names are written: small (turkey), with a capital (Turkey), in capitals only (US); accents.

In: names as their sources write them. Out: one bit for each way. The bits of several spellings of
a name are combined, so an entity called "crane" and "Crane" may be written either way.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from openmofi.kb.codepoints import FIRST_ACCENT, LAST_ACCENT, WITH_ACCENT

SMALL, LARGE, CAPITALS, PLAIN, ACCENTED = 1, 2, 4, 8, 16
"""SMALL has no capital; LARGE has small letters and capitals, or a single capital; CAPITALS has at
least two capitals and no small letter. A name without case, such as 東京, is LARGE. PLAIN has no
accent, and no letter such as ø; ACCENTED has."""
CASE = SMALL | LARGE | CAPITALS
_LARGE = "".join(c.upper() for c in WITH_ACCENT if len(c.upper()) == 1 and not c.upper().isascii())
# Not (?i), for which the iota below is an iota.
_ACCENT = f"[{FIRST_ACCENT}-{LAST_ACCENT}{WITH_ACCENT}{_LARGE}ẞ]"


def spellings(names: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """Returns how each name is written, int8 [n]: a bit for its case, and one for its accents."""
    is_small = pc.equal(names, pc.utf8_lower(names)).to_numpy(zero_copy_only=False)
    is_capital = pc.equal(names, pc.utf8_upper(names)).to_numpy(zero_copy_only=False)
    found = np.full(len(names), LARGE, np.int8)
    found[is_small & ~is_capital] = SMALL
    perhaps = np.flatnonzero(is_capital & ~is_small)
    several = pc.match_substring_regex(names.take(pa.array(perhaps)), r"\p{Lu}.*\p{Lu}")
    found[perhaps[several.to_numpy(zero_copy_only=False)]] = CAPITALS
    return found | np.where(_accented(names), ACCENTED, PLAIN).astype(np.int8)


def _accented(names: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """Returns which names have an accent, bool [n]."""
    found = ~pc.string_is_ascii(names).to_numpy(zero_copy_only=False)
    perhaps = np.flatnonzero(found)
    taken_apart = pc.utf8_normalize(names.take(pa.array(perhaps)), form="NFD")
    has_accent = pc.match_substring_regex(taken_apart, _ACCENT)
    found[perhaps] = has_accent.to_numpy(zero_copy_only=False)
    return found
