"""Is what was asked for in the index at all? The nearest images of a query -> a p-value.

A cosine alone says little, so four numbers describe a query: the means of its 5 and of its 20
nearest cosines, and mean and deviation of its cosines with the index in general, its background.
`calibrate.py` learns their weights, and collects the scores of queries for absent things.

The p-value is conformal. Queries of one entity are alike, so that entities are what is drawn, and
all queries of an entity count as one (hierarchical conformal prediction, arXiv 2306.06342):

    p = (1 + sum over the entities of the share of its absent queries that score as high) / (n + 1)

For a query of an entity that is drawn like these n and is absent, p <= rate happens at most as
often as the rate. The weights are fitted on four fifths of the entities, five times, and a query
is compared with each fifth under the weights that have not seen it (cross-conformal prediction).
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int

PresenceKind = Literal["text", "image"]
NEAR, BROAD = 5, 20
"""Numbers of nearest images whose cosines are averaged."""
NUM_FEATURES = 4
_COPY = 0.995
"""Cosine from which an image is a copy of one of the index, up to rounding to 16 bits."""
_ROUNDING = 1e-9
_COLUMNS = ("weights", "score", "fold", "entity")


@dataclass(frozen=True)
class Presence:
    """Whether an index holds what was asked for."""

    found: bool | None
    """None: nobody can tell, see `sentence`."""
    p_value: float | None
    """How often a query for something absent looks as present as this one; None: not computed."""
    sentence: str


@dataclass(frozen=True)
class NullScores:
    """Scores of the queries for absent things, of one kind of query."""

    weights: Float[np.ndarray, "folds 4"]
    """Weights of the features, fitted without one fold of the entities each."""
    score: Float[np.ndarray, " n"]
    """Score of each query, by the weights that have not seen its entity."""
    fold: Int[np.ndarray, " n"]
    entity: Int[np.ndarray, " n"]
    """Number of the entity, from 0, that the query is for."""

    @cached_property
    def num_entities(self) -> int:
        """Number of entities that the queries are for."""
        return int(self.entity.max()) + 1

    def p_values(self, features: Float[np.ndarray, "m 4"]) -> Float[np.ndarray, " m"]:
        """Returns the p-value of each query for «nothing in the index looks like it»."""
        scores = features @ self.weights.T
        above = np.zeros(len(features))
        for fold in range(len(self.weights)):
            null, mass = self._sorted[fold]
            above += mass[np.searchsorted(null, scores[:, fold] - _ROUNDING)]
        return (1 + above) / (self.num_entities + 1)

    @cached_property
    def _sorted(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Per fold: (scores in ascending order, mass at and above each; one element more, 0)."""
        share = 1 / np.bincount(self.entity)[self.entity]
        found = []
        for fold in range(len(self.weights)):
            mine = np.flatnonzero(self.fold == fold)
            mine = mine[np.argsort(self.score[mine], kind="stable")]
            mass = np.r_[np.cumsum(share[mine][::-1])[::-1], 0.0]
            found.append((self.score[mine], mass))
        return found


@dataclass(frozen=True)
class PresenceCalibration:
    """What an index has learnt about queries for absent things."""

    rate: float
    """Share of such queries that may find something, unless another is asked for."""
    mean: Float[np.ndarray, " dim"]
    covariance: Float[np.ndarray, "dim dim"]
    """Of a sample of the index's vectors."""
    nulls: dict[PresenceKind, NullScores]

    def features(
        self, vector: Float[np.ndarray, " dim"], cosines: Float[np.ndarray, " k"]
    ) -> Float[np.ndarray, " 4"]:
        """Returns what describes a query.

        Args:
            vector: unit vector of the query.
            cosines: its nearest, best first; those after the first 20 do not count.
        """
        deviation = np.sqrt(max(float(vector @ self.covariance @ vector), 0.0))
        return features_of(cosines[None], vector @ self.mean, deviation)[0]

    def presence(
        self,
        kind: PresenceKind,
        vector: Float[np.ndarray, " dim"],
        cosines: Float[np.ndarray, " k"],
        *,
        rate: float | None = None,
    ) -> Presence:
        """Tells whether the index holds what was asked for.

        Args:
            kind: what the query is made of.
            vector: its unit vector.
            cosines: the cosines of the nearest rows, best first.
            rate: share of the queries for absent things that may find something; None: the
                calibration's own.
        """
        rate = self.rate if rate is None else rate
        if kind not in self.nulls:
            return unknown(f"The index is not calibrated for queries by {kind}.")
        null = self.nulls[kind]
        least = 1 / (null.num_entities + 1)
        if not len(cosines):
            return Presence(False, 1.0, "No image is there to be compared with.")
        if kind == "image" and cosines[0] >= _COPY:
            return Presence(True, least, "The nearest image is a copy of it.")
        if rate < least - _ROUNDING:
            return unknown(
                f"{null.num_entities} entities are too few to tell at a rate of {rate:g}; expected "
                f"{np.ceil(1000 * least) / 1000:g} or more."
            )
        p = float(null.p_values(self.features(vector, cosines)[None])[0])
        found = p <= rate + _ROUNDING
        sentence = f"{_share(p)} of queries for absent things look as present as this one"
        if found:
            return Presence(True, p, f"Only {sentence}.")
        return Presence(False, p, f"{sentence}; to count as found, at most {_share(rate)} may.")

    def write(self, path: Path) -> None:
        """Writes an .npz file."""
        columns: dict[str, Any] = {
            "rate": np.array(self.rate),
            "mean": self.mean,
            "covariance": self.covariance,
        }
        for kind, null in self.nulls.items():
            for name in _COLUMNS:
                columns[f"{kind}_{name}"] = getattr(null, name)
        with path.open("wb") as file:
            np.savez(file, **columns)

    @staticmethod
    def read(path: Path) -> PresenceCalibration:
        """Reads a file written by `write`.

        Raises:
            ValueError: it is damaged.
        """
        kinds: tuple[PresenceKind, ...] = ("text", "image")
        try:
            with path.open("rb") as opened, np.load(opened) as file:
                stored = dict(file)
        except (zipfile.BadZipFile, EOFError) as error:
            raise ValueError(f"{path} is damaged") from error
        nulls = {
            kind: NullScores(*(stored[f"{kind}_{name}"] for name in _COLUMNS))
            for kind in kinds
            if f"{kind}_weights" in stored
        }
        rate = float(stored["rate"])
        return PresenceCalibration(rate, stored["mean"], stored["covariance"], nulls)


def features_of(
    cosines: Float[np.ndarray, "n k"],
    mean: Float[np.ndarray, " n"] | float,
    deviation: Float[np.ndarray, " n"] | float,
) -> Float[np.ndarray, "n 4"]:
    """Returns the features of queries.

    Args:
        cosines: the nearest of each, best first; at least one.
        mean: mean cosine of each with the index in general.
        deviation: standard deviation of these cosines.
    """
    near, broad = cosines[:, :NEAR].mean(1), cosines[:, :BROAD].mean(1)
    shape = np.shape(near)
    columns = [near, broad, np.broadcast_to(mean, shape), np.broadcast_to(deviation, shape)]
    return np.stack(columns, axis=1).astype(np.float64)


def unknown(sentence: str) -> Presence:
    """Returns that nobody can tell, and why."""
    return Presence(None, None, sentence)


def _share(value: float) -> str:
    """Returns a share in percent, with a digit behind the point below 10 where there is one."""
    text = f"{value:.1%}" if value < 0.1 else f"{value:.0%}"
    return text.replace(".0%", "%")
