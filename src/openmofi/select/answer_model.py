"""How far labels move that are like those which people answered about: a mixed-effects model.

A name, or a name as one entity, may be wrong more or less often in this crawl than its scores say.
With the joint score's log odds of a candidate against NIL

    logit(c) = w_text log text_score(c) + w_z (clip_z(c) - nil_z) + a + u(name) + b(name, c)

the likelihood of an answer is that of a softmax over candidates and NIL. u and b are normal with
standard deviation SPREAD; a, which all names share, with COMMON; the three weights are normal about
those fitted without answers, with the covariance of that fit. All are taken at their mode.

Names and entities that no answer is about keep u = b = 0. Of a common shift, which changes no
order, the threshold takes account: exp(-a) times as many labels are wrong as estimated. It is made
stricter by all of a, and looser only by what a is at least (one standard deviation below).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from openmofi.label.joint_weights import Weighing
from openmofi.label.score import log_sum

if TYPE_CHECKING:
    from scipy.optimize import OptimizeResult

SPREAD = 1.0
"""Standard deviation of the log odds by which a name, or a name as one entity, is off."""
COMMON = 0.5
"""Standard deviation of the log odds by which all labels are off."""
_ROOM = 2.0
"""How far the logarithms of the weights, and nil_z, may move."""
_ASIDE = 0.3


@dataclass(frozen=True)
class AnsweredMentions:
    """Mentions that answers are about; the images were looked at."""

    begins: np.ndarray
    """First candidate of each mention."""
    name: np.ndarray
    """Per candidate: the canonical form of the mention's name."""
    entity: np.ndarray
    """Per candidate: its id."""
    log_text: np.ndarray
    clip_z: np.ndarray
    kept: np.ndarray
    """Per candidate: whether it is among those that the answer leaves."""
    nil_kept: np.ndarray
    """Per mention: whether the answer leaves that nothing is shown."""


class AnswerModel:
    """The answers, and what is most probable given them.

    A vector of values holds log w_text, log w_z, nil_z, a, then u of each name and b of each pair.
    """

    def __init__(self, answered: AnsweredMentions, weighing: Weighing):
        """Takes at least one mention, and the weights without answers."""
        self._answered = answered
        self._names, self._of_name = np.unique(answered.name, return_inverse=True)
        self._entities, of_entity = np.unique(answered.entity, return_inverse=True)
        pair = self._of_name * len(self._entities) + of_entity
        self._pairs, self._of_pair = np.unique(pair, return_inverse=True)
        self._lengths = np.diff(np.append(answered.begins, len(pair)))
        self._nil = np.where(answered.nil_kept, 0.0, -np.inf)
        weights = weighing.weights
        self._given = np.array([np.log(weights.text), np.log(weights.clip_z), weights.nil_z])
        known = weighing.covariance
        self._precision = None if known is None else np.linalg.inv(known)
        self._ends = np.cumsum([3, 1, len(self._names), len(self._pairs)])

    def fit(
        self, *, common: float | None = None, start: np.ndarray | None = None
    ) -> OptimizeResult:
        """Returns the mode; with a value of a, if one is given."""
        from scipy.optimize import minimize

        if start is None:
            start = np.concatenate([self._given, np.zeros(self._ends[-1] - 3)])
        room = 0.0 if self._precision is None else _ROOM
        bounds: list = [(value - room, value + room) for value in self._given]
        bounds += [(common, common)] + [(None, None)] * (len(start) - 4)
        return minimize(self.loss, start, jac=True, method="L-BFGS-B", bounds=bounds)

    def loss(self, values: np.ndarray) -> tuple[float, np.ndarray]:
        """Returns the negative log posterior, up to a constant, and its slope."""
        own = values[:3]
        logits, by_text, by_image = self._logits(values)
        whole, left, pull = self._pull(logits)
        slope = np.concatenate(
            [
                [pull @ by_text, pull @ by_image, -np.exp(own[1]) * pull.sum(), pull.sum()],
                np.bincount(self._of_name, pull, len(self._names)),
                np.bincount(self._of_pair, pull, len(self._pairs)),
            ]
        )
        moved = (
            values / np.repeat([1.0, COMMON, SPREAD, SPREAD], np.diff(self._ends, prepend=0)) ** 2
        )
        away = own - self._given
        moved[:3] = 0.0 if self._precision is None else self._precision @ away
        penalty = 0.5 * (moved[3:] @ values[3:] + moved[:3] @ away)
        return float((whole - left).sum() + penalty), slope + moved

    def error_of_common(self, fit: OptimizeResult) -> float:
        """Returns the standard deviation of a, from how fast the best value falls beside it."""
        aside = float(fit.x[3]) + _ASIDE
        lost = self.fit(common=aside, start=fit.x).fun - fit.fun
        return 1 / math.sqrt(max(2 * lost / _ASIDE**2, COMMON**-2))

    def parts(
        self, values: np.ndarray
    ) -> tuple[np.ndarray, float, dict[str, float], dict[tuple[str, str], float]]:
        """Returns (the three weights as in `values`, a, u by name, b by name and id)."""
        own, a, u, b = np.split(values, self._ends[:-1])
        names = dict(zip(self._names.tolist(), u.tolist(), strict=True))
        count = len(self._entities)
        pairs = {
            (self._names[pair // count], self._entities[pair % count]): float(value)
            for pair, value in zip(self._pairs, b, strict=True)
        }
        return own, float(a[0]), names, pairs

    def _logits(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns the log odds against NIL, and what text and image contribute to them."""
        own, a, u, b = np.split(values, self._ends[:-1])
        by_text = np.exp(own[0]) * self._answered.log_text
        by_image = np.exp(own[1]) * (self._answered.clip_z - own[2])
        return by_text + by_image + a + u[self._of_name] + b[self._of_pair], by_text, by_image

    def _pull(self, logits: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns the log sums over all, over what answers leave, and the slope of the loss."""
        begins, kept = self._answered.begins, self._answered.kept
        whole = np.logaddexp(0.0, log_sum(logits, begins))
        left = np.logaddexp(self._nil, log_sum(np.where(kept, logits, -np.inf), begins))
        shares = np.exp(logits - np.repeat(whole, self._lengths))
        of_left = np.where(kept, np.exp(logits - np.repeat(left, self._lengths)), 0.0)
        return whole, left, shares - of_left
