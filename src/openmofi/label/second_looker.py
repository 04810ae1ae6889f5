"""The large encoder's part in labelling: which images it looks at, and what both have seen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from openmofi.arrays.runs import run_numbers, run_starts
from openmofi.label.image_scorer import ImageScorer
from openmofi.label.score import joint_score
from openmofi.label.second_look import SecondLook
from openmofi.label.second_look_fit import SeenTwice, fit_second_look

Terms = dict[str, np.ndarray]
"""clip, clip_z, clip_z_other and score of some candidates."""


@dataclass(frozen=True)
class SecondLooker:
    """Completes what the small encoder tells of candidates."""

    rule: SecondLook
    large: ImageScorer

    def complete(
        self,
        candidates: pa.Table,
        small: Terms,
        words: np.ndarray,
        encode: Callable[[np.ndarray], np.ndarray],
    ) -> Terms:
        """Returns the terms, with the number of encoders that they are from.

        Args:
            candidates: the linker's, with the `place` of each one's image.
            small: their terms by the small encoder alone.
            words: of each place, see `Seen.words`.
            encode: returns the large encoder's vectors of the images at some places.
        """
        text = candidates["score"].to_numpy()
        place, start = candidates["place"].to_numpy(), candidates["start"].to_numpy()
        begins, mention = run_starts(place, start), run_numbers(place, start)
        looks = self.rule.looks(text, small["clip_z"], begins)
        places = np.unique(place[begins[looks]])
        vectors = np.zeros((len(words), self.large.background.images.shape[1]), np.float32)
        vectors[places] = encode(places)
        large = self.large.terms(candidates, vectors=vectors, words=words)
        own = looks[mention]
        clip_z = np.where(
            own, self.rule.combined(small["clip_z"], large["clip_z"]), small["clip_z"]
        )
        others = small["clip_z_other"].copy()
        for number, other in enumerate(others.T):
            seen = self.rule.looks(text, other, begins)[mention]
            both = self.rule.combined(other, large["clip_z_other"][:, number])
            others[:, number] = np.where(seen, both, other)
        return {
            "clip": np.where(own, large["clip"], small["clip"]),
            "clip_z": clip_z,
            "clip_z_other": others,
            "score": joint_score(text, clip_z, mention, self.large.weights),
            "encoders": np.where(own, 2, 1),
        }


def learn_second_look(
    small: ImageScorer, large: ImageScorer, candidates: pa.Table, *, rate: float, share: float
) -> tuple[SecondLook, dict[str, float]]:
    """Learns from the background, whose images both encoders saw; see `fit_second_look`."""
    seen = [
        scorer.terms(candidates, vectors=scorer.background.images, words=scorer.background.words)
        for scorer in (small, large)
    ]
    place, start = candidates["place"].to_numpy(), candidates["start"].to_numpy()
    begins = run_starts(place, start)
    sample = SeenTwice(
        place[begins],
        begins,
        candidates["score"].to_numpy(),
        np.stack([terms["clip_z"] for terms in seen], axis=1),
        np.stack([terms["clip_z_other"] for terms in seen], axis=2),
    )
    rule, card = fit_second_look(sample, rate=rate, share=share)
    return rule, {"images": len(small.background.images), **card}
