"""Mention -> candidates: the entities that bear its name, most probable first.

In: mentions. Out: one row per mention and entity with p(entity | name).
"""

from dataclasses import dataclass

import numpy as np

from openmofi.kb.index import NameIndex
from openmofi.link.mentions import Mentions


@dataclass(frozen=True)
class Candidates:
    """Arrays of one item per candidate, mention after mention."""

    mention: np.ndarray
    """Index into the mentions."""
    rank: np.ndarray
    """0 = best."""
    entity: np.ndarray
    """Row of entities.parquet."""
    prior: np.ndarray
    """float64 p(entity | name); sums to 1 over a mention's candidates."""

    def __len__(self) -> int:
        return len(self.mention)


def find_candidates(mentions: Mentions, *, index: NameIndex, max_candidates: int) -> Candidates:
    """Returns the most probable entities of every mention."""
    low, high = index.offsets[mentions.key], index.offsets[mentions.key + 1]
    counts = np.minimum(high - low, max_candidates).astype(np.int64)
    mention = np.repeat(np.arange(len(mentions)), counts)
    begin = np.cumsum(counts) - counts
    rank = np.arange(len(mention)) - begin[mention]
    position = low[mention] + rank
    weight = index.weights[position].astype(np.float64)
    total = np.add.reduceat(weight, begin) if len(begin) else weight
    return Candidates(
        mention=mention,
        rank=rank,
        entity=index.rows[position],
        prior=weight / total[mention],
    )
