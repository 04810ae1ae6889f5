"""Fusion: a mention of which the linear score is not sure is read again, with all its candidates.

The linear score (disambiguate.py) compares each candidate with the caption alone. A reader sees
the caption, the mention and all candidates at once (Fusion Entity Decoding, arXiv 2404.01626), and
costs a network. So it reads only mentions that the linear score gets wrong with more than a given
probability, and only once where captions repeat.

In: candidates with the evidence of the linear score. Out: what to add to their logits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Int

from openmofi.arrays.runs import run_starts
from openmofi.kb.store import KnowledgeBase
from openmofi.link.weights import TERMS, LinkWeights

NUM_FEATURES = len(TERMS) + 1
"""The evidence of each term, and the linear logit."""
_MOST_REMEMBERED = 1 << 16


@dataclass(frozen=True)
class HardMentions:
    """Mentions to read, and what each may mean; candidates in runs, in order of mention."""

    texts: list[str]
    """The caption of each mention."""
    start: Int[np.ndarray, " m"]
    """Code points of the caption."""
    end: Int[np.ndarray, " m"]
    item: Int[np.ndarray, " c"]
    """Position of each candidate's mention."""
    entity: Int[np.ndarray, " c"]
    """Row of the knowledge base."""
    features: Float[np.ndarray, "c features"]
    """float32, see `features_of`."""

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def begin(self) -> Int[np.ndarray, " m1"]:
        """First candidate of every mention, and the number of candidates."""
        return np.searchsorted(self.item, np.arange(len(self) + 1))

    def only(self, kept: Int[np.ndarray, " k"]) -> HardMentions:
        """Returns some of the mentions, in the given order, which is ascending."""
        place = np.full(len(self), -1)
        place[kept] = np.arange(len(kept))
        own = place[self.item] >= 0
        return HardMentions(
            [self.texts[i] for i in kept.tolist()],
            self.start[kept],
            self.end[kept],
            place[self.item[own]],
            self.entity[own],
            self.features[own],
        )


@dataclass(frozen=True)
class CandidateTexts:
    """What a reader may read of entities, one item for each."""

    ids: list[str]
    labels: list[str]
    described: list[str]
    """label (types): description."""

    def __len__(self) -> int:
        return len(self.ids)


def texts_of(kb: KnowledgeBase, rows: Int[np.ndarray, " n"]) -> CandidateTexts:
    """Returns the texts of rows of a knowledge base."""
    at = pa.array(rows, pa.int64())
    ids, labels = kb.ids.take(at).to_pylist(), kb.texts.label.take(at).to_pylist()
    return CandidateTexts(ids, labels, kb.text_with_types(rows))


class FusionReader(Protocol):
    """Reads mentions together with their candidates, such as model.pointer.PointerReader."""

    @property
    def weights(self) -> LinkWeights:
        """The weights of the linear score to which it adds."""
        ...

    def read(self, mentions: HardMentions, /) -> Float[np.ndarray, " c"]:
        """Returns what to add to each candidate's logit, relative to NIL, whatever else is read."""
        ...


def features_of(
    evidence: Mapping[str, np.ndarray], logit: Float[np.ndarray, " c"], nil: float
) -> Float[np.ndarray, "c features"]:
    """Returns what a reader is told of each candidate, float32.

    Args:
        evidence: the summands of the linear score, as `disambiguate.evidence_of` gives them.
        logit: their weighted sum.
        nil: the logit of NIL.
    """
    features = np.zeros((len(logit), NUM_FEATURES), np.float32)
    for column, name in enumerate(TERMS):
        if name in evidence:
            features[:, column] = evidence[name]
    features[:, -1] = logit - nil
    return features


def least_certain(
    probability: Float[np.ndarray, " c"], item: Int[np.ndarray, " c"], above: float
) -> Int[np.ndarray, " hard"]:
    """Returns the mentions whose best meaning, NIL included, is wrong with a probability > above.

    Args:
        probability: of each candidate, within its mention and NIL.
        item: number of each candidate's mention, ascending.
        above: 0 takes every mention that is not certain.
    """
    begin = run_starts(item)
    if not len(begin):
        return begin
    best = np.maximum.reduceat(probability, begin)
    nil = 1 - np.add.reduceat(probability, begin)
    return item[begin[1 - np.maximum(best, nil) > above]]


class Remembering:
    """A reader that reads equal mentions in equal captions once."""

    def __init__(self, reader: FusionReader):
        self._reader = reader
        self._known: dict[tuple[str, int, int, bytes], np.ndarray] = {}
        self.num_read = 0
        """Mentions that the reader saw."""

    @property
    def weights(self) -> LinkWeights:
        """Those of the reader."""
        return self._reader.weights

    def read(self, mentions: HardMentions) -> Float[np.ndarray, " c"]:
        """Returns what the reader returns."""
        # The candidates' features depend on the caption's other mentions, too.
        told = (part.tobytes() for part in np.split(mentions.features, mentions.begin[1:-1]))
        spans = mentions.start.tolist(), mentions.end.tolist()
        keys = list(zip(mentions.texts, *spans, told, strict=True))
        first = {key: i for i, key in reversed(list(enumerate(keys))) if key not in self._known}
        new = np.array(sorted(first.values()), np.int64)
        if len(self._known) + len(new) > _MOST_REMEMBERED:
            wanted = set(keys)
            self._known = {key: value for key, value in self._known.items() if key in wanted}
        if len(new):
            self.num_read += len(new)
            part = mentions.only(new)
            each = np.split(self._reader.read(part), part.begin[1:-1])
            for i, found in zip(new, each, strict=True):
                self._known[keys[i]] = found
        return np.concatenate([np.zeros(0), *(self._known[key] for key in keys)])


def read_again(
    reader: FusionReader,
    probability: Float[np.ndarray, " c"],
    mentions: HardMentions,
    above: float,
) -> Float[np.ndarray, " c"]:
    """Returns what a reader adds to the logits of all candidates; NaN where it did not read.

    Args:
        reader: the reader.
        probability: of each candidate by the linear score.
        mentions: all mentions and candidates.
        above: see `least_certain`.
    """
    added = np.full(len(mentions.item), np.nan)
    hard = least_certain(probability, mentions.item, above)
    if len(hard):
        is_hard = np.zeros(len(mentions), bool)
        is_hard[hard] = True
        added[is_hard[mentions.item]] = reader.read(mentions.only(hard))
    return added
