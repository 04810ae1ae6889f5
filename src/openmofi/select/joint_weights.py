"""The weights of the joint score, fitted to one's own captions and encoder without any label.

In: candidates with their own image's `clip_z` and with those of other captions' (`clip_z_other`).
With another caption's image nothing is shown that the caption names, so those pairs are examples
of NIL; one's own pairs are a mixture of the same and of mentions that are shown. Telling the two
apart is learning from positive and unlabelled examples (Elkan and Noto, KDD 2008), with the roles
exchanged. By the joint score, a mention's candidates have the odds R = sum of exp(logit - NIL)
against NIL. If a share pi of the mentions is not shown, then

    density(features | own) / density(features | other) = pi (1 + R)

and the weights and pi are those that best tell own from other pairs by this ratio. Where there is
little to learn from, they stay near the shipped ones: a Gaussian prior counts as `_PRIOR` mentions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int
from scipy.special import expit

from openmofi.label.background import spread_out
from openmofi.label.score import LEAST_TEXT, ScoreWeights, load_weights
from openmofi.select.choose import ScoredCandidates, log_sum, read_mentions

_PRIOR = 10.0
"""Mentions for which the shipped weights count, chosen by the likelihood of pairs that were not
fitted to: docs/log.md. Each would lose half a nat if log text, log clip_z or nil_z moved by 1."""
_SHARE_PRIOR = 0.25
"""Weight of the square of log(pi / (1 - pi)), in nats times 2: it says next to nothing."""
_ENOUGH = 100_000
"""Mentions beyond which more of them change nothing that matters."""
_BOUNDS = ((np.log(0.05), np.log(3.0)), (np.log(1e-2), np.log(30.0)), (-30.0, 100.0), (-7.0, 7.0))
"""Of log text, log clip_z, nil_z and log(pi / (1 - pi))."""


@dataclass(frozen=True)
class Weighing:
    """Weights, and what was learnt on the way."""

    weights: ScoreWeights
    unshown_share: float | None
    """Share pi of the mentions that are not shown; None: not estimated."""
    unshown_error: float
    """Standard error of pi, over the images that were there by chance."""
    num_mentions: int
    """Mentions that the weights were fitted to; 0: they are the shipped ones."""


def weigh(files: Sequence[Path]) -> Weighing:
    """Returns weights fitted to the mentions of labels files, or of a spread of many files.

    Args:
        files: committed labels files.
    """
    found: list[ScoredCandidates] = []
    mentions = 0
    for path in spread_out(files):
        part = read_mentions(path, "joint")
        if len(part.row) and part.looked:
            found.append(part)
            mentions += len(part.begins)
        if mentions > _ENOUGH:
            break
    if not found:
        return Weighing(load_weights(), None, 0.0, 0)
    shifts = np.cumsum([0, *(len(part.row) for part in found[:-1])])
    begins = [part.begins + shift for part, shift in zip(found, shifts, strict=True)]
    rows = np.cumsum([0, *(part.row[-1] + 1 for part in found[:-1])])
    image = [part.row[part.begins] + shift for part, shift in zip(found, rows, strict=True)]
    columns = [
        [getattr(part, name) for part in found] for name in ("text", "clip_z", "clip_z_other")
    ]
    text, clip_z, other = (np.concatenate(column) for column in columns)
    return fit_weights(text, clip_z, other, np.concatenate(begins), image=np.concatenate(image))


def fit_weights(
    text_score: Float[np.ndarray, " c"],
    clip_z: Float[np.ndarray, " c"],
    clip_z_other: Float[np.ndarray, "c k"],
    begins: Int[np.ndarray, " m"],
    *,
    image: Int[np.ndarray, " m"] | None = None,
    prior: float = _PRIOR,
) -> Weighing:
    """Returns the weights under which own pairs differ most plausibly from mismatched ones.

    Mentions without both are left out on both sides. The several mismatched pairs of a mention
    count as much as its own pair.

    Args:
        text_score: p(candidate | text).
        clip_z: of the candidate with its own image; NaN where nobody looked at it.
        clip_z_other: with other captions' images, which offer none of the mention's candidates;
            NaN where there are fewer than k.
        begins: first candidate of each mention.
        image: which mentions share an image, of which the error takes account; the default is
            none.
        prior: mentions for which the shipped weights count; with none to learn from, they are
            what comes out.
    """
    from scipy.optimize import minimize

    pairs, whole = Pairs.of(text_score, clip_z, clip_z_other, begins)
    shipped, count = load_weights(), int(whole.sum())
    if not count:
        return Weighing(shipped, None, 0.0, 0)
    start = np.array([np.log(shipped.text), np.log(shipped.clip_z), shipped.nil_z, 0.0])
    pull = np.array([prior, prior, prior, _SHARE_PRIOR])

    def loss(values: np.ndarray) -> tuple[float, np.ndarray]:
        gain, slope = pairs.log_likelihood(values)
        lost = pull * (values - start)
        total = 0.5 * lost @ (values - start) - gain.sum()
        return float(total) / count, (lost - slope.sum(0)) / count

    # To the last digits: in another order, the sums that differ by them give the same labels.
    exact = {"ftol": 1e-15, "gtol": 1e-9, "maxiter": 1000}
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=_BOUNDS, options=exact).x
    weights = ScoreWeights(float(np.exp(found[0])), float(np.exp(found[1])), float(found[2]))
    share = float(expit(found[3]))
    slopes = pairs.log_likelihood(found)[1]
    curvature = count * _curvature(lambda values: loss(values)[1], found)
    image = np.arange(count) if image is None else image[whole]
    error = share * (1 - share) * _errors(slopes, curvature, image)[3]
    return Weighing(weights, share, float(error), count)


def _curvature(slope: Callable[[np.ndarray], np.ndarray], at: np.ndarray) -> np.ndarray:
    """Returns the second derivatives, from differences of the first ones."""
    steps = 1e-4 * np.eye(len(at))
    rows = [(slope(at + step) - slope(at - step)) / 2e-4 for step in steps]
    return (np.array(rows) + np.array(rows).T) / 2


def _errors(slopes: np.ndarray, curvature: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Returns the standard errors of what was fitted, by White's sandwich (Econometrica 50, 1982).

    Args:
        slopes: [m, p] of each mention's log likelihood.
        curvature: [p, p] of the whole loss.
        image: of each mention; those of one image count as one.
    """
    _, number = np.unique(image, return_inverse=True)
    of_image = np.stack([np.bincount(number, column) for column in slopes.T])
    inverse = np.linalg.pinv(curvature)
    return np.sqrt(np.diag(inverse @ (of_image @ of_image.T) @ inverse))


@dataclass(frozen=True)
class Pairs:
    """The mentions that have both kinds of pairs."""

    begins: Int[np.ndarray, " m"]
    log_text: Float[np.ndarray, " c"]
    sides: tuple[tuple[float, Float[np.ndarray, " c"], Float[np.ndarray, " m"]], ...]
    """Of own and mismatched pairs: 1 or -1, their clip_z, how much each mention's pair counts."""

    @staticmethod
    def of(
        text_score: np.ndarray, clip_z: np.ndarray, clip_z_other: np.ndarray, begins: np.ndarray
    ) -> tuple[Pairs, np.ndarray]:
        """Returns the pairs, and which mentions they are of."""
        whole = _with_both(clip_z, clip_z_other, begins)
        lengths = np.diff(np.r_[begins, len(clip_z)])
        kept, begins = np.repeat(whole, lengths), np.cumsum(lengths[whole]) - lengths[whole]
        log_text = np.log(np.maximum(text_score[kept], LEAST_TEXT)).astype(np.float64)
        own, others = (z[kept].astype(np.float64) for z in (clip_z, clip_z_other))
        known = ~np.isnan(others[begins])
        shares = known / np.maximum(known.sum(1, keepdims=True), 1)
        mismatched = zip(np.nan_to_num(others).T, shares.T, strict=True)
        sides = (1.0, own, np.ones(len(begins))), *((-1.0, z, share) for z, share in mismatched)
        return Pairs(begins, log_text, sides), whole

    def log_likelihood(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the log likelihood of which pairs are own and which are not, and its gradient.

        They are of each mention: [m] and [m, 4].

        Args:
            values: log text, log clip_z, nil_z and log(pi / (1 - pi)).
        """
        text, visual = np.exp(values[:2])
        nil_z, log_pi, unshown = values[2], -np.logaddexp(0, -values[3]), expit(values[3])
        lengths = np.diff(np.r_[self.begins, len(self.log_text)])
        gain, slope = np.zeros(len(self.begins)), np.zeros((len(self.begins), 4))
        for sign, z, counts in self.sides:
            by_text, by_image = text * self.log_text, visual * (z - nil_z)
            logits = by_text + by_image
            log_odds = log_sum(logits, self.begins)
            log_ratio = sign * (log_pi + np.logaddexp(0, log_odds))
            gain -= counts * np.logaddexp(0, -log_ratio)
            rate = sign * counts * expit(-log_ratio)
            shown = rate * expit(log_odds)
            share = np.exp(logits - np.repeat(log_odds, lengths))
            slope[:, 0] += shown * np.add.reduceat(share * by_text, self.begins)
            slope[:, 1] += shown * np.add.reduceat(share * by_image, self.begins)
            slope[:, 2] -= shown * visual
            slope[:, 3] += rate * (1 - unshown)
        return gain, slope


def _with_both(clip_z: np.ndarray, clip_z_other: np.ndarray, begins: np.ndarray) -> np.ndarray:
    """Returns which mentions have own and mismatched pairs."""
    if not len(begins):
        return np.zeros(0, bool)
    unknown = np.isnan(clip_z) | np.isnan(clip_z_other).all(1)
    return ~np.logical_or.reduceat(unknown, begins)
