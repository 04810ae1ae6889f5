"""Which candidate a mention means, if any: every piece of evidence, and their sum.

    score = softmax over a mention's candidates and NIL of  weights . terms

with the terms
    prior        log p(entity | name as it is written), relative to the name's most probable entity
    context      cos(text(caption), text(label: description (types)))
    coherence    cos(text(entity), the expected text vector of the caption's other mentions)
                 both standardised if the vectors of entities are stored, see `StoredVectors`
    type         log odds of the entity's types, from the data on which the weights were fitted
    linkability  log odds that the name is used as a name at all, from counted captions
    case         whether the mention is written as the entity's names are: turkey, Turkey
    detected     how sure a mention detector is of the span
Linkability and detected are nearly equal for all candidates of a mention and decide about NIL.

In: candidates, captions and any text encoder. Out: one array per term, and probabilities.
"""

from collections.abc import Callable
from typing import Protocol

import numpy as np

from openmofi.arrays.compiled import compiled
from openmofi.arrays.runs import repeat_runs
from openmofi.kb.index import Candidates
from openmofi.kb.spelling import CAPITALS, CASE, LARGE, SMALL
from openmofi.link.mentions import Mentions
from openmofi.link.weights import LinkWeights

_MOST_REMEMBERED = 1 << 15
HARDLY_EVER = -4
"""The case term of a single word whose names have a capital, if it is written small by someone who
uses capitals. Of 2,425 such words that people linked, 3 were small, of 21,300 others a third: log
odds of -5; in tweets, of -1.5."""


class TextEncoder(Protocol):
    """Turns texts into vectors; `model.MofiModel` is one."""

    def encode_texts(self, texts: list[str], /) -> np.ndarray:
        """Returns float32 [n, dim]."""
        ...


class StoredVectors(Protocol):
    """Vectors of entities that outlive the linker; `label.EntityVectors` is one."""

    def of(self, rows: np.ndarray, /) -> np.ndarray:
        """Returns float32 unit vectors [n, dim] of rows of the knowledge base."""
        ...

    def unrelated(self) -> tuple[float, float]:
        """Returns mean and standard deviation of the cosines of entities drawn at random."""
        ...


class RememberedVectors:
    """Vectors of entities' texts, in memory."""

    def __init__(self, encoder: TextEncoder, entity_text: Callable[[np.ndarray], list[str]]):
        self._encoder, self._entity_text = encoder, entity_text
        self._known = np.zeros(0, np.int64)  # rows of entities, sorted
        self._slot = np.zeros(0, np.int64)  # of each known entity in `_vectors`
        self._vectors: np.ndarray | None = None

    def of(self, rows: np.ndarray) -> np.ndarray:
        """Returns the unit vectors of entities' texts [n, dim]."""
        needed = np.unique(rows)
        new = np.setdiff1d(needed, self._known, assume_unique=True)
        if len(self._known) + len(new) > _MOST_REMEMBERED:
            self._known, self._slot, self._vectors, new = new[:0], new[:0], None, needed
        if len(new):
            self._learn(new)
        assert self._vectors is not None
        return self._vectors[self._slot[np.searchsorted(self._known, rows)]]

    def _learn(self, new: np.ndarray) -> None:
        vectors = unit_vectors(self._encoder, self._entity_text(new))
        old = vectors[:0] if self._vectors is None else self._vectors
        self._vectors = np.concatenate([old, vectors])
        known = np.concatenate([self._known, new])
        slots = np.concatenate([self._slot, len(old) + np.arange(len(new))])
        order = np.argsort(known)
        self._known, self._slot = known[order], slots[order]


def unit_vectors(encoder: TextEncoder, texts: list[str]) -> np.ndarray:
    """Returns L2-normalised vectors of texts, float32 [n, dim]."""
    vectors = encoder.encode_texts(texts).astype(np.float32, copy=False)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.maximum(lengths, np.finfo(np.float32).tiny)


class TextComparison:
    """Compares captions and entities by their texts.

    Where the vectors of entities are stored, cosines are standardised: how many standard deviations
    two texts are closer than entities drawn at random. So weights depend on the encoder's scale
    only a little: texts that have nothing in common have a cosine of .1 for one encoder and of .7
    for another.
    """

    def __init__(self, encoder: TextEncoder, entities: RememberedVectors | StoredVectors):
        self._encoder, self._entities = encoder, entities
        self._scale = None if isinstance(entities, RememberedVectors) else entities.unrelated()

    def terms(
        self, captions: list[str], candidates: Candidates, mentions: Mentions
    ) -> dict[str, np.ndarray]:
        """Returns the terms context and coherence of every candidate."""
        entity, entity_of = np.unique(candidates.entity, return_inverse=True)
        vectors = self._entities.of(entity)[entity_of]
        used, slot = np.unique(mentions.row[candidates.item], return_inverse=True)
        of_captions = unit_vectors(self._encoder, [captions[row] for row in used.tolist()])
        context = np.einsum("ij,ij->i", of_captions[slot], vectors)
        among = coherence(candidates, mentions, vectors)
        if self._scale is not None:
            mean, spread = self._scale
            context = (context - mean) / spread
            is_alone = np.bincount(mentions.row)[mentions.row] == 1
            among = np.where(is_alone[candidates.item], 0, (among - mean) / spread)
        return {"context": context, "coherence": among}


def coherence(candidates: Candidates, mentions: Mentions, vectors: np.ndarray) -> np.ndarray:
    """Returns each candidate's cosine with the expected meaning of the caption's other mentions.

    The expectation is over their priors; it is 0 if the caption has no other mention.
    """
    return _coherence(candidates.item, candidates.prior, mentions.row, vectors)


@compiled
def _coherence(item, prior, row, vectors):
    found = np.zeros(len(item), np.float32)
    dim = vectors.shape[1]
    expected = np.zeros((8, dim), np.float32)  # by mention of a caption
    begin = 0
    while begin < len(item):
        end = begin
        first, caption = item[begin], row[item[begin]]
        while end < len(item) and row[item[end]] == caption:
            end += 1
        count = item[end - 1] - first + 1
        if count > len(expected):
            expected = np.zeros((2 * count, dim), np.float32)
        expected[:count] = 0
        for c in range(begin, end):
            expected[item[c] - first] += np.float32(prior[c]) * vectors[c]
        total = expected[:count].sum(axis=0)
        for c in range(begin, end if count > 1 else begin):
            others = (total - expected[item[c] - first]) / np.float32(count - 1)
            found[c] = (vectors[c] * others).sum()
        begin = end
    return found


def case_agreement(candidates: Candidates, mentions: Mentions) -> np.ndarray:
    """Returns how well each candidate's name fits the way its mention is written, int8.

    By the spellings of the candidate's names, for a mention written
        small by someone who uses capitals: 1 with a small spelling; without, -1, or -4 for a single
            word, which is about the log odds;
        small in a caption without capitals: 0; but -1 without a small spelling if another
            candidate's names have one;
        with a capital that its place does not require: -1 if all spellings are small, 0 if some
            are, otherwise 1; but for names in capitals only: 1 if the mention is in capitals,
            where other names get 0, otherwise -1;
    and 0 if the writing is not evidence: no case, first word of a sentence, all capitals.
    """
    writing = mentions.written, mentions.is_small, mentions.capitals, mentions.num_tokens
    return _case_agreement(candidates.item, candidates.spelling & CASE, *writing)


@compiled
def _case_agreement(item, spelling, written, is_small, capitals, num_tokens):
    found = np.zeros(len(item), np.int8)
    begin = 0
    while begin < len(item):
        mention, end, all_spellings = item[begin], begin, 0
        while end < len(item) and item[end] == mention:
            all_spellings |= spelling[end]
            end += 1
        for c in range(begin, end):
            if is_small[mention] and spelling[c] & SMALL:
                found[c] = written[mention] == -1
            elif written[mention] == -1:
                found[c] = HARDLY_EVER if num_tokens[mention] == 1 else -1
            elif is_small[mention] and all_spellings & SMALL:
                found[c] = -1
            elif written[mention] == 1:
                found[c] = _when_large(spelling[c], all_spellings, capitals[mention])
        begin = end
    return found


@compiled
def _when_large(spelling, all_spellings, in_capitals):
    if spelling & SMALL:
        return 0 if spelling & LARGE else -1
    if spelling == CAPITALS:
        return 1 if in_capitals else -1
    return 0 if in_capitals and all_spellings & CAPITALS else 1


def logits(evidence: dict[str, np.ndarray], weights: LinkWeights) -> np.ndarray:
    """Returns the weighted sum of all evidence for every candidate."""
    return sum((getattr(weights, name) * values for name, values in evidence.items()), np.zeros(1))


def evidence_of(
    rank: np.ndarray, prior: np.ndarray, terms: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Returns the summands of the score: the relative log prior and the other terms, scaled.

    Args:
        rank: 0 for the first candidate of every mention.
        prior: p(entity | name).
        terms: the other terms as in `schema.CANDIDATES`.
    """
    # Relative to the mention's most probable entity; otherwise ambiguity would count for NIL.
    log_prior = np.log(prior)
    begin = np.flatnonzero(rank == 0)
    most = np.maximum.reduceat(log_prior, begin) if len(begin) else log_prior
    relative = log_prior - repeat_runs(most, begin, len(rank))
    scaled = {n: _SCALES[n](term) if n in _SCALES else term for n, term in terms.items()}
    return {"prior": relative, **scaled}


# How a probability becomes evidence for or against: as log odds, if it is calibrated.
_SCALES = {
    "linkability": lambda probability: np.log(probability) - np.log1p(-probability),
    "detected": lambda score: 2 * score - 1,
}


@compiled
def probabilities(logit, rank, nil):
    """Returns (p of every candidate within its mention and NIL, indices best first); compiled.

    `logit` holds one mention after the other; `rank` counts from 0 within each.
    """
    probability, order = np.empty(len(logit), np.float64), np.empty(len(logit), np.int64)
    begin = 0
    while begin < len(logit):
        end = begin + 1
        while end < len(logit) and rank[end]:
            end += 1
        peak = max(nil, logit[begin:end].max())
        total = np.exp(nil - peak)
        for i in range(begin, end):
            probability[i] = np.exp(logit[i] - peak)
            total += probability[i]
        for i in range(begin, end):
            probability[i] /= total
            # Insertion sort, which is stable: 30 items at most, mostly in order.
            k = i
            while k > begin and logit[order[k - 1]] < logit[i]:
                order[k] = order[k - 1]
                k -= 1
            order[k] = i
        begin = end
    return probability, order
