"""The arithmetic of entity-linking scores: gold and predicted mentions -> counts -> figures.

Conventions are ELEVANT's (https://github.com/ad-freiburg/elevant, mode "ignored"): a prediction is
right if span and id are right; a wrong id on a right span is a miss and a false alarm; gold
mentions without an entity (NIL) are never misses, but a prediction on them is a false alarm; dates,
quantities and other optional mentions are neither; counts are summed over documents (micro
average). One thing differs: ELEVANT asks whether a prediction on a date is itself a date; here it
does not count, because a knowledge base may not know.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from openmofi.evaluate.linking_data import GoldDocument, GoldMention

RECALL_AT = (1, 5, 30)
FREQUENCIES = ("0", "1-9", "10-99", "100+", "not_in_kb")
AMBIGUITIES = ("1", "2-5", "6-30", "31+", "unknown_name")


@dataclass(frozen=True)
class Prediction:
    """A linker's answer for a span."""

    start: int
    end: int
    id: str
    candidates: int = 1
    """How many entities have the name."""
    score: float = 1.0


@dataclass(frozen=True)
class PrecisionRecall:
    """Micro-averaged precision and recall; a division by 0 gives 0, as in ELEVANT."""

    precision: float
    recall: float
    f1: float
    true_positives: int
    false_positives: int
    false_negatives: int


def precision_recall(hits: int, false_alarms: int, misses: int) -> PrecisionRecall:
    """Returns precision, recall and F1 from counts."""
    precision = hits / (hits + false_alarms) if hits + false_alarms else 0.0
    recall = hits / (hits + misses) if hits + misses else 0.0
    f1 = 2 * precision * recall / (precision + recall) if hits else 0.0
    return PrecisionRecall(precision, recall, f1, hits, false_alarms, misses)


def share(part: int, whole: int) -> float:
    """Returns part / whole; NaN if the whole is 0."""
    return part / whole if whole else math.nan


def frequency_bucket(sitelinks: int | None) -> str:
    """Returns the bucket of an entity by its sitelinks; None means that the KB lacks it."""
    if sitelinks is None:
        return "not_in_kb"
    return FREQUENCIES[min(len(str(sitelinks)), 3)] if sitelinks else "0"


def ambiguity_bucket(candidates: int) -> str:
    """Returns the bucket of a mention by the number of its candidates."""
    if not candidates:
        return "unknown_name"
    return AMBIGUITIES[sum(candidates > most for most in (1, 5, 30))]


@dataclass
class Outcomes:
    """Hits, false alarms and misses."""

    hits: list[tuple[GoldMention, Prediction]] = field(default_factory=list)
    false_alarms: list[Prediction] = field(default_factory=list)
    misses: list[GoldMention] = field(default_factory=list)

    def counts(self) -> tuple[int, int, int]:
        """Returns the three numbers."""
        return len(self.hits), len(self.false_alarms), len(self.misses)


def match_exactly(gold: GoldDocument, predicted: Iterable[Prediction]) -> Outcomes:
    """Compares predictions with the gold mentions of a document; spans must be equal."""
    wanted = {(m.start, m.end, m.id): m for m in gold.required}
    found = {(p.start, p.end, p.id): p for p in _counted(gold, predicted)}
    return Outcomes(
        hits=[(wanted[key], p) for key, p in found.items() if key in wanted],
        false_alarms=[p for key, p in found.items() if key not in wanted],
        misses=[m for key, m in wanted.items() if key not in found],
    )


def match_overlaps(gold: GoldDocument, predicted: Iterable[Prediction]) -> Outcomes:
    """Compares predictions with the gold mentions of a document; spans must share a character.

    Each mention matches at most one prediction; the pairing has as many hits as possible.
    """
    found = list({(p.start, p.end, p.id): p for p in _counted(gold, predicted)}.values())
    wanted = list({(m.start, m.end, m.id): m for m in gold.required}.values())
    partner = _pair(wanted, found)
    return Outcomes(
        hits=[(wanted[i], found[j]) for i, j in partner.items()],
        false_alarms=[p for j, p in enumerate(found) if j not in partner.values()],
        misses=[m for i, m in enumerate(wanted) if i not in partner],
    )


def _pair(wanted: Sequence[GoldMention], found: Sequence[Prediction]) -> dict[int, int]:
    """Returns {mention: prediction} of a maximum bipartite matching."""
    pairs = [
        (i, j)
        for i, mention in enumerate(wanted)
        for j, prediction in enumerate(found)
        if mention.id == prediction.id
        and mention.start < prediction.end
        and prediction.start < mention.end
    ]
    if not pairs:
        return {}
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import maximum_bipartite_matching

    rows, columns = zip(*pairs, strict=True)
    shape = (len(wanted), len(found))
    partner = maximum_bipartite_matching(
        csr_array(([1] * len(pairs), (rows, columns)), shape=shape), perm_type="column"
    )
    return {i: int(j) for i, j in enumerate(partner) if j >= 0}


def _counted(gold: GoldDocument, predicted: Iterable[Prediction]) -> list[Prediction]:
    """Drops predictions outside the annotated part, and correct ones of optional mentions."""
    low, high = gold.evaluated or (0, len(gold.text))
    optional = {(m.start, m.end, m.id) for m in gold.mentions if m.optional}
    return [
        p
        for p in predicted
        if low <= p.start
        and p.end <= high
        and not optional & {(p.start, p.end, p.id), (p.start, p.end, None)}
    ]


@dataclass(frozen=True)
class Disambiguated:
    """A gold mention with an entity, and what the linker offers for exactly that span."""

    candidates: int
    by_prior: int | None
    """Rank of the gold entity among the candidates by prior, from 0; None if it is not one."""
    right: bool
    """Whether the best candidate by score is the gold entity."""
    frequency: str
    in_kb: bool


@dataclass(frozen=True)
class Slice:
    """Figures of some of the mentions."""

    mentions: int
    """Gold mentions with an entity."""
    recall_at: dict[str, float]
    """Share of mentions whose gold entity is among the first k candidates by prior."""
    accuracy: float
    """Share of mentions whose best candidate by score is the gold entity, given their spans."""
    end_to_end: PrecisionRecall
    """With spans found by the linker; a false alarm belongs to the predicted entity's slice."""


def make_slice(spans: Sequence[Disambiguated], counts: tuple[int, int, int]) -> Slice:
    """Returns the figures of some mentions and their counts of hits, false alarms and misses."""
    recall_at = {
        str(k): share(sum(s.by_prior is not None and s.by_prior < k for s in spans), len(spans))
        for k in RECALL_AT
    }
    accuracy = share(sum(s.right for s in spans), len(spans))
    return Slice(len(spans), recall_at, accuracy, precision_recall(*counts))


def harmonic_mean(*values: float) -> float:
    """Returns the harmonic mean of values from 0 to 1; 0 if one of them is 0.

    OVEN's score (arXiv 2302.11154) is the harmonic mean of the accuracies on seen and unseen
    entities.
    """
    return len(values) / sum(1 / value for value in values) if all(values) else 0.0
