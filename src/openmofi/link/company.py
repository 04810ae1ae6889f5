"""The company that names keep: the words around a mention, its place, and what they tell of it.

In: captions and places of mentions. Out: one row of hashed features per mention, and a classifier
of groups of entities that reads them. The name itself is not among the features, so that what is
learnt from some names holds for others:

    word before, word after          each also the second one
    words at most 4 tokens away      in any order
    tokens before, tokens after      up to 7
    tokens of the caption            by their logarithm

The classifier is a multinomial logistic regression, whose probabilities p(group | company) become
likelihood ratios p(company | group) / p(company) by Bayes's rule. It learns from names with one
kind of meaning; how far that carries over to the others is measured on these (`measure_trust`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from openmofi.arrays.compiled import compiled
from openmofi.arrays.hashing import Hasher
from openmofi.arrays.splitmix64 import GOLDEN, finalise_one
from openmofi.kb.text import Tokens

DIM = 1 << 15
"""Columns of features; the number itself stands for no feature."""
WIDTH = 15
_NEAR, _FAR = 4, 7
_INVERSE_REGULARISATION = 1.0
"""Chosen on half of the vendors of device titles: docs/linking_results.md."""
_MOST_TRUST = 3.0


def company_of(
    tokens: Tokens, row: np.ndarray, start: np.ndarray, end: np.ndarray, hasher: Hasher
) -> Int[np.ndarray, "n width"]:
    """Returns the features of mentions: int32 columns, DIM where there is none.

    Args:
        tokens: tokens of the captions.
        row: caption of each mention, ascending.
        start: first code point of each.
        end: code point after its last.
        hasher: hashes words.
    """
    if not len(row):
        return np.zeros((0, WIDTH), np.int32)
    words = hasher.spans(tokens.buffer, tokens.start, tokens.end)
    row, place = row.astype(np.int64), tokens.row.astype(np.int64) << 32
    first = np.searchsorted(place | tokens.char_end, (row << 32) | start, side="right")
    last = np.searchsorted(place | tokens.char_start, (row << 32) | end) - 1
    return _company(words, tokens.row_start, row, first, last)


@compiled
def _company(words, row_start, row, first, last):
    found = np.full((len(row), WIDTH), DIM, np.int32)
    for i in range(len(row)):
        low, high = row_start[row[i]], row_start[row[i] + 1]
        before, after = first[i] - low, high - 1 - last[i]
        for k in range(1, _NEAR + 1):
            if k <= before:
                found[i, 2 * k - 2] = _column(words[first[i] - k], 0)
            if k <= after:
                found[i, 2 * k - 1] = _column(words[last[i] + k], 0)
        for k in range(1, 3):
            if k <= before:
                found[i, 7 + k] = _column(words[first[i] - k], k)
            if k <= after:
                found[i, 9 + k] = _column(words[last[i] + k], 2 + k)
        found[i, 12] = _column(np.uint64(min(before, _FAR)), 5)
        found[i, 13] = _column(np.uint64(min(after, _FAR)), 6)
        found[i, 14] = _column(np.uint64(np.log2(high - low)), 7)
    return found


@compiled
def _column(word, kind):
    mixed = finalise_one(word + np.uint64(kind) * np.uint64(GOLDEN))
    return np.int32(mixed & np.uint64(DIM - 1))


@dataclass(frozen=True)
class CompanyModel:
    """Tells groups of entities apart by the company of their mentions."""

    weights: Float[np.ndarray, "columns groups"]
    """float32 [DIM + 1, groups]; the last row, of no feature, is 0."""
    bias: Float[np.ndarray, " groups"]
    """float32."""
    shares: Float[np.ndarray, " groups"]
    """float32 share of each group among the mentions that it was fitted to."""
    trust: float = 1.0
    """Factor of the log ratios."""

    def log_ratios(self, company: Int[np.ndarray, "n width"]) -> Float[np.ndarray, "n groups"]:
        """Returns trust * log(p(company | group) / p(company)), float64."""
        logits = _sums(company, self.weights) + self.bias
        peak = logits.max(1, keepdims=True)
        total = np.log(np.exp(logits - peak).sum(1, keepdims=True)) + peak
        return self.trust * (logits - total - np.log(self.shares))


@compiled
def _sums(company, weights):
    found = np.zeros((company.shape[0], weights.shape[1]), np.float64)
    for i in range(company.shape[0]):
        for k in range(company.shape[1]):
            for g in range(weights.shape[1]):
                found[i, g] += weights[company[i, k], g]
    return found


def fit_company(company: Int[np.ndarray, "n width"], group: Int[np.ndarray, " n"]) -> CompanyModel:
    """Learns from mentions whose group is known.

    Args:
        company: features.
        group: numbers from 0, at least two, each of which occurs.
    """
    from scipy.sparse import csr_matrix
    from sklearn.linear_model import LogisticRegression

    known = company != DIM
    places = np.nonzero(known)[0], company[known]
    cells = csr_matrix((np.ones(len(places[0])), places), (len(company), DIM))
    found = LogisticRegression(C=_INVERSE_REGULARISATION, max_iter=200, tol=1e-5).fit(cells, group)
    coefficients, bias = found.coef_, found.intercept_
    if len(coefficients) == 1:  # of two classes, scikit-learn keeps the logits of the second
        coefficients = np.concatenate([np.zeros_like(coefficients), coefficients])
        bias = np.append(0, bias)
    weights = np.zeros((DIM + 1, len(bias)), np.float32)
    weights[:DIM] = coefficients.T
    shares = np.bincount(group) / len(group)
    return CompanyModel(weights, bias.astype(np.float32), shares.astype(np.float32))


def measure_trust(
    log_ratios: Float[np.ndarray, "n groups"],
    shares: Float[np.ndarray, " groups"],
    belief: Float[np.ndarray, "n groups"],
) -> float:
    """Returns the factor of log ratios with which company agrees best with all other evidence.

    It maximises the likelihood of the company, sum over mentions of log(sum over groups of
    belief * ratio ** trust / z), where z, its mean by the shares, keeps it a ratio of densities. It
    is 0 if the company says the opposite of the other evidence, as where names with one meaning are
    used otherwise than those with several.

    Args:
        log_ratios: of mentions that the model was not fitted to, with trust 1.
        shares: of the groups.
        belief: p(group | all other evidence) of each mention.
    """
    from scipy.optimize import minimize_scalar

    def loss(trust: float) -> float:
        ratios = np.exp(trust * log_ratios)
        return float(np.log(ratios @ shares).mean() - np.log((belief * ratios).sum(1)).mean())

    best = float(minimize_scalar(loss, bounds=(0.0, _MOST_TRUST), method="bounded").x)
    return best if loss(best) < loss(0.0) else 0.0
