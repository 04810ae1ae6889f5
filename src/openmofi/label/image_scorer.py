"""The image's terms of the joint score, for the candidates of a shard."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from openmofi.arrays.random_keys import Purpose, mix_words, random_key
from openmofi.arrays.runs import run_numbers, run_starts
from openmofi.kb import KnowledgeBase
from openmofi.label.background import Background
from openmofi.label.entity_vectors import EntityVectors
from openmofi.label.score import MISMATCHED, ScoreWeights, joint_score

_BLOCK = 1024
"""Mentions per block."""
_NEVER = np.uint64(2**64 - 1)


@dataclass(frozen=True)
class ImageScorer:
    """Compares images with the texts of candidates, against the background."""

    kb: KnowledgeBase
    entities: EntityVectors
    background: Background
    weights: ScoreWeights

    def terms(
        self,
        candidates: pa.Table,
        *,
        vectors: np.ndarray,
        words: np.ndarray,
        known: np.ndarray | None = None,
    ) -> dict[str, np.ndarray]:
        """Returns clip, clip_z, clip_z_other [c, MISMATCHED] (NaN: no such image) and score.

        Args:
            candidates: the linker's, with the `place` of each one's image among the next two.
            vectors: [n, dim], of the images.
            words: [n], see `Seen.words`.
            known: clip of candidates whose image was seen before; NaN: not known.
        """
        if not len(candidates):
            return unseen(candidates)
        place = candidates["place"].to_numpy()
        mention = run_numbers(place, candidates["start"].to_numpy())
        rows = self.kb.rows_of(candidates["id"].to_pylist())
        entity, entity_of = np.unique(rows, return_inverse=True)
        texts = self.entities.of(entity)
        ids = [self.kb.ids[row].as_py() for row in entity.tolist()]
        mean, spread = self.background.moments(texts, ids)[entity_of].T
        clip = (vectors[place] * texts[entity_of]).sum(1)
        if known is not None:
            clip = np.where(np.isnan(known), clip, known)
        clip_z = (clip - mean) / spread
        starts = run_starts(mention)
        others = self._others(words[place[starts]], ids, entity_of, starts)[mention]
        cosines = (texts @ self.background.images.T)[entity_of[:, None], others]
        clip_z_other = (cosines - mean[:, None]) / spread[:, None]
        clip_z_other[others < 0] = np.nan
        score = joint_score(candidates["score"].to_numpy(), clip_z, mention, self.weights)
        return {"clip": clip, "clip_z": clip_z, "clip_z_other": clip_z_other, "score": score}

    def _others(
        self, words: np.ndarray, ids: list[str], entity_of: np.ndarray, starts: np.ndarray
    ) -> np.ndarray:
        """Returns [m, MISMATCHED]: background images without any candidate of the mention.

        The images with the smallest random numbers are taken, each drawn from the bytes of the two
        images; -1 if there are too few.

        Args:
            words: one per mention, that of its image, see `Seen.words`.
            ids: ids of the entities.
            entity_of: index of each candidate's entity.
            starts: first candidate of each mention.
        """
        offering = self.background.offering(ids)
        ends = np.r_[starts[1:], len(entity_of)]
        key = random_key(0, Purpose.MISMATCHED)
        found = np.full((len(starts), MISMATCHED), -1)
        for first in range(0, len(starts), _BLOCK):
            block = slice(first, first + _BLOCK)
            begin, end = starts[block][0], ends[block][-1]
            offered = np.logical_or.reduceat(offering[entity_of[begin:end]], starts[block] - begin)
            offered |= words[block, None] == self.background.words
            draws = mix_words(mix_words(key, words[block])[:, None], self.background.words)
            draws[offered] = _NEVER
            order = np.argsort(draws, axis=1, kind="stable")[:, :MISMATCHED]
            usable = np.take_along_axis(~offered, order, axis=1)
            found[block, : order.shape[1]] = np.where(usable, order, -1)
        return found


def unseen(candidates: pa.Table) -> dict[str, np.ndarray]:
    """Returns the terms if the images are not looked at: the score is that of the text."""
    nothing = np.full((len(candidates), MISMATCHED), np.nan, dtype=np.float32)
    terms = {"clip": nothing[:, 0], "clip_z": nothing[:, 0], "clip_z_other": nothing}
    return terms | {"score": candidates["score"].to_numpy()}
