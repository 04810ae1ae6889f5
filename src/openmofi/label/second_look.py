"""Two encoders: a small one looks at every image, a large one only where a label may still turn.

    p(kept | E) = sigmoid(a + b E)    what both together keep, judged by the small one's evidence
    expected change = p(kept), or 1 - p(kept) (1 - p(another candidate)) where the small one keeps
    the large one looks  <=>  expected change >= least_change

The evidence E is the log odds of a mention's best candidate by the joint score (score.py). What
both have seen is one number on the scale of the small encoder's `clip_z`, so that it is worth the
same log odds, whoever looked:

    clip_z = small.nil_z + (by_small (z_small - nil) + by_large (z_large - nil)) / small.clip_z

Whether the large one looks follows from the text and from z_small alone, both of which the score
takes into account, so that this choice of images does not bias it. Mismatched images
(`clip_z_other`) go the same way as the own one, mention by mention: what `select` calibrates its
threshold on is this very rule. Design: docs/labels.md.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int

from openmofi.files.folders import replace_file
from openmofi.label.score import LEAST_TEXT, ScoreWeights, evidence_of, expit, log_odds

SECOND_LOOK_FILE = "then.json"


@dataclass(frozen=True)
class SecondLook:
    """When the large encoder looks, and how what both have seen becomes one number."""

    small: ScoreWeights
    """Weights of the joint score by the small encoder alone."""
    by_small: float
    """Weights of both encoders' clip_z, if both looked, and where NIL ties then."""
    by_large: float
    nil: float
    threshold: float
    """Least evidence of a label that is kept by the small encoder alone."""
    intercept: float
    """a and b of p(kept | E)."""
    slope: float
    least_change: float
    """Expected change of a label from which on the large encoder looks."""

    def changes(
        self,
        text_score: Float[np.ndarray, " c"],
        clip_z: Float[np.ndarray, " c"],
        begins: Int[np.ndarray, " m"],
    ) -> Float[np.ndarray, " m"]:
        """Returns the expected change of each mention's label, from 0 to 1.

        Args:
            text_score: p(candidate | text).
            clip_z: that of the small encoder; NaN, for a whole mention: it did not look.
            begins: first candidate of each mention.
        """
        evidence, another = self.evidence(text_score, clip_z, begins)
        kept = expit(self.intercept + self.slope * evidence)
        change = np.where(evidence >= self.threshold, 1 - kept * (1 - another), kept)
        return np.where(np.isnan(evidence), 0.0, change)

    def evidence(
        self, text_score: np.ndarray, clip_z: np.ndarray, begins: np.ndarray
    ) -> tuple[Float[np.ndarray, " m"], Float[np.ndarray, " m"]]:
        """Returns (log odds of each mention's best candidate, p(another | any)).

        Args:
            text_score: as of `changes`.
            clip_z: that of the small encoder, or `combined`.
            begins: as of `changes`.
        """
        log_text = np.log(np.maximum(text_score, LEAST_TEXT)).astype(np.float64)
        _, chosen, others = log_odds(log_text, clip_z.astype(np.float64), begins, self.small)
        with np.errstate(invalid="ignore"):  # NaN stays NaN
            return evidence_of(chosen, others), expit(others - chosen)

    def looks(
        self, text_score: np.ndarray, clip_z: np.ndarray, begins: np.ndarray
    ) -> Bool[np.ndarray, " m"]:
        """Returns at which mentions' images the large encoder looks; see `changes`."""
        looked = ~np.isnan(clip_z[begins]) if len(begins) else np.zeros(0, bool)
        return looked & (self.changes(text_score, clip_z, begins) >= self.least_change)

    def combined(
        self, small: Float[np.ndarray, "..."], large: Float[np.ndarray, "..."]
    ) -> Float[np.ndarray, "..."]:
        """Returns what both encoders' clip_z are worth together, on the small one's scale."""
        both = self.by_small * (small - self.nil) + self.by_large * (large - self.nil)
        return self.small.nil_z + both / self.small.clip_z


def write_second_look(out: Path, found: SecondLook, card: dict[str, float]) -> None:
    """Stores it next to the labels, with what else was found."""
    with replace_file(out / SECOND_LOOK_FILE) as partial:
        partial.write_text(json.dumps(asdict(found) | {"card": card}, indent=2) + "\n")


def read_second_look(out: Path) -> tuple[SecondLook, dict[str, float]]:
    """Returns (that of a job, what else was found)."""
    values = json.loads((out / SECOND_LOOK_FILE).read_text())
    card = values.pop("card")
    return SecondLook(**values | {"small": ScoreWeights(**values["small"])}), card
