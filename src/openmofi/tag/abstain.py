"""When to abstain: labelled images -> the least score that keeps a given error rate.

A score is the largest cosine with any entity. Images that the model was not trained on tell what a
score means: whether the best entity is the right one, and how high the best of the others scores,
which is the score that an image of an unknown entity would get.

Among the images that score at least t, the share of wrong answers is counted as (wrong + 1) /
(answered + 1), the correction for few images of conformal risk control (arXiv 2208.02814).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Bool, Float

from openmofi.errors import InputError, SettingsError
from openmofi.files.folders import replace_file

_ROUNDING = 1e-9
_SCHEMA = pa.schema(
    [("score", pa.float32()), ("right", pa.bool_()), ("unknown_score", pa.float32())]
)


@dataclass(frozen=True)
class TagCalibration:
    """The scores of labelled images; one element per image."""

    score: Float[np.ndarray, " n"]
    """Score of the best entity."""
    right: Bool[np.ndarray, " n"]
    """Whether the best entity is the image's."""
    unknown_score: Float[np.ndarray, " n"]
    """Score of the best entity that is not the image's."""

    @staticmethod
    def measure(
        vectors: Float[np.ndarray, "n dim"],
        labels: list[str],
        entities: Float[np.ndarray, "entities dim"],
        ids: list[str],
    ) -> TagCalibration:
        """Compares labelled images with all entities.

        Args:
            vectors: unit vectors of the images.
            labels: the entity that each image shows; one that is not in `ids` is never found.
            entities: unit vector of each entity.
            ids: their ids.

        Raises:
            InputError: there are fewer than two entities, or no images.
        """
        if len(ids) < 2 or not len(vectors):
            raise InputError(
                f"Calibration needs images and at least 2 entities, not {len(vectors)} and "
                f"{len(ids)}."
            )
        number = {entity: i for i, entity in enumerate(ids)}
        truth = np.array([number.get(label, -1) for label in labels])
        score, right, unknown = [], [], []
        for start in range(0, len(vectors), 1024):
            part = slice(start, start + 1024)
            similarity = vectors[part] @ entities.T
            best = similarity.argmax(1)
            score.append(similarity.max(1))
            right.append(best == truth[part])
            known = np.flatnonzero(truth[part] >= 0)
            similarity[known, truth[part][known]] = -np.inf
            unknown.append(similarity.max(1))
        return TagCalibration(*map(np.concatenate, (score, right, unknown)))

    @staticmethod
    def read(path: Path) -> TagCalibration:
        """Reads a file written by `write`.

        Raises:
            InputError: there is no such file, or it is not a calibration.
        """
        if not path.is_file():
            raise InputError(
                f"There is no calibration {str(path)!r}; make it with `openmofi tag calibrate`."
            )
        try:
            table = pq.read_table(path, schema=_SCHEMA)
        except (pa.ArrowInvalid, ValueError):
            raise InputError(
                f"{str(path)!r} is not a calibration; make it with `openmofi tag calibrate`."
            ) from None
        return TagCalibration(*(table[name].to_numpy() for name in _SCHEMA.names))

    def write(self, path: Path) -> None:
        """Writes a Parquet file with one row per image."""
        table = pa.table([self.score, self.right, self.unknown_score], schema=_SCHEMA)
        with replace_file(path) as partial:
            pq.write_table(table, partial)

    def threshold(self, error_rate: float, *, unknown: float = 0.0) -> float:
        """Returns the least score at which to answer; infinity if no score is good enough.

        Args:
            error_rate: share of answers that may be wrong.
            unknown: share of future images without an entity that the model knows, for which
                every answer is wrong.

        Raises:
            SettingsError: a share is out of bounds.
        """
        if not 0 < error_rate < 1:
            raise SettingsError(f"The error rate cannot be {error_rate:g}; expected 0 to 1.")
        score, right, weight = self._cases(unknown)
        order = np.argsort(-score, kind="stable")
        weight = weight[order] * len(self.score)
        wrong = np.cumsum(weight * ~right[order])
        answered = np.cumsum(weight)
        last_of_equals = np.r_[score[order][1:] != score[order][:-1], True]
        good = last_of_equals & ((wrong + 1) / (answered + 1) <= error_rate + _ROUNDING)
        return float(score[order][np.flatnonzero(good)[-1]]) if good.any() else float("inf")

    def probability(
        self, scores: Float[np.ndarray, " n"], *, unknown: float = 0.0
    ) -> Float[np.ndarray, " n"]:
        """Returns the probability that the best entity is right, by isotonic regression."""
        return np.interp(np.asarray(scores, np.float64), *self.curve(unknown=unknown))

    def curve(
        self, *, unknown: float = 0.0
    ) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
        """Returns (scores in order, probabilities) of the corners of `probability`'s curve."""
        from sklearn.isotonic import IsotonicRegression

        score, right, weight = self._cases(unknown)
        fit = IsotonicRegression(out_of_bounds="clip", y_min=0.0, y_max=1.0)
        fit.fit(score, right.astype(float), sample_weight=weight)
        return fit.X_thresholds_, fit.y_thresholds_

    def _cases(self, unknown: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns (scores, whether each is right, weights that sum to 1)."""
        if not 0 <= unknown < 1:
            raise SettingsError(
                f"The share of unknown images cannot be {unknown:g}; expected 0 to below 1."
            )
        count = len(self.score)
        score, right = self.score.astype(np.float64), self.right
        weight = np.full(count, (1 - unknown) / count)
        if unknown > 0:
            score = np.r_[score, self.unknown_score]
            right = np.r_[right, np.zeros(count, bool)]
            weight = np.r_[weight, np.full(count, unknown / count)]
        return score, right, weight
