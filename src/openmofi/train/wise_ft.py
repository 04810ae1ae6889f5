"""How far to go from a run's first weights to its last: the mean of both that does best (WiSE-FT).

arXiv 2109.01903: on a straight line between a pretrained encoder's weights and the fine-tuned ones
often lies one that does better on new things than either.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from openmofi.files.folders import replace_file

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Shares of the last weights that are tried."""
_JUDGES = (
    "heldout_retrieval_map",
    "heldout_unseen_retrieval_map",
    "heldout_image_to_text_r1",
    "heldout_text_to_image_r1",
)
_LOSS = 10
"""How much more a loss counts than a gain. Counted without end, the .001 that a handful of held-out
entities lose by chance outweighs any gain."""
_FILE = "wise_ft.json"


@dataclass(frozen=True)
class WeightAverage:
    """The mean of the first and the last weights that was saved."""

    share: float
    """Of the last weights; 0 if training gained nothing."""
    scores: dict[str, float]
    """On the held-out images."""
    start: dict[str, float]
    """Those of the first weights."""
    tried: dict[str, dict[str, float]]
    """Those of every share."""

    def write(self, run: Path) -> None:
        """Writes wise_ft.json."""
        with replace_file(run / _FILE) as partial:
            partial.write_text(json.dumps(asdict(self), indent=2) + "\n")

    @staticmethod
    def read(run: Path) -> WeightAverage | None:
        """Returns the choice of a finished run, or None."""
        file = run / _FILE
        return WeightAverage(**json.loads(file.read_text())) if file.is_file() else None


def choose_share(measure: Callable[[float], dict[str, float]]) -> WeightAverage | None:
    """Returns the best mean of the first and the last weights; None if nothing can be compared.

    It gains most in retrieval mAP on held-out images and on held-out entities together, or in
    recall@1 for raw pairs. A loss counts ten times, so that none is bought by the other's gain, and
    a run does not end worse than it began, as far as held-out images tell.

    Args:
        measure: share of the last weights -> scores of `HeldOut`.
    """
    found = {share: measure(share) for share in SHARES}
    start = found[0.0]
    judges = [name for name in _JUDGES if name in start]
    if not judges:
        return None

    def gain(share: float) -> float:
        gains = [found[share][name] - start[name] for name in judges]
        return sum(g if g > 0 else _LOSS * g for g in gains)

    best = max(SHARES, key=gain)  # of equals the first, nearest to the start
    return WeightAverage(best, found[best], start, {f"{s:g}": found[s] for s in SHARES})
