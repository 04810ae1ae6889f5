"""What the pictures of a shard say of its candidates: the terms of the joint score."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from openmofi.kb import KnowledgeBase
from openmofi.label.background import Background
from openmofi.label.entity_vectors import EntityVectors
from openmofi.label.score import ScoreWeights, joint_score, mention_starts
from openmofi.label.seen import Seen


@dataclass(frozen=True)
class PictureScorer:
    """Compares pictures with the texts of candidates, against the background."""

    kb: KnowledgeBase
    entities: EntityVectors
    background: Background
    weights: ScoreWeights

    def terms(self, candidates: pa.Table, seen: Seen, shard: str) -> dict[str, np.ndarray]:
        """Returns clip, clip_z, clip_z_other (NaN where there is none) and score.

        Args:
            candidates: of the linker, with the `place` of each one's picture in `seen`.
            seen: the pictures.
            shard: name of the shard.
        """
        if not len(candidates):
            return unseen(candidates)
        place = candidates["place"].to_numpy()
        mention = _mentions(place, candidates["start"].to_numpy())
        rows = self.kb.rows_of(candidates["id"].to_pylist())
        entity, entity_of = np.unique(rows, return_inverse=True)
        texts = self.entities.of(entity)
        ids = [self.kb.ids[row].as_py() for row in entity.tolist()]
        mean, spread = self.background.moments(texts, ids)[entity_of].T
        others, partner = self._others(seen, shard)
        clip = (seen.vectors[place] * texts[entity_of]).sum(1)
        clip_z = (clip - mean) / spread
        clip_z_other = ((others[place] * texts[entity_of]).sum(1) - mean) / spread
        clip_z_other[_offered_too(place, entity_of, mention, partner)] = np.nan
        score = joint_score(candidates["score"].to_numpy(), clip_z, mention, self.weights)
        return {"clip": clip, "clip_z": clip_z, "clip_z_other": clip_z_other, "score": score}

    def _others(self, seen: Seen, shard: str) -> tuple[np.ndarray, np.ndarray]:
        """Returns for each place a picture of another caption: (its vector, its place or -1)."""
        places = np.flatnonzero(seen.readable)
        partner = np.full(len(seen.vectors), -1)
        if len(places) > 1:
            partner[places] = np.roll(places, len(places) // 2)
            return seen.vectors[partner], partner
        images = self.background.images
        pick = zlib.crc32(shard.encode()) % len(images)
        return np.repeat(images[pick : pick + 1], len(seen.vectors), axis=0), partner


def unseen(candidates: pa.Table) -> dict[str, np.ndarray]:
    """Returns the terms where nobody looked: the score is the text's."""
    nothing = np.full(len(candidates), np.nan, dtype=np.float32)
    terms = dict.fromkeys(("clip", "clip_z", "clip_z_other"), nothing)
    return terms | {"score": candidates["score"].to_numpy()}


def _mentions(place: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Returns the number of each candidate's mention, from 0."""
    changed = (place[1:] != place[:-1]) | (start[1:] != start[:-1])
    return np.r_[0, np.cumsum(changed)]


def _offered_too(
    place: np.ndarray, entity: np.ndarray, mention: np.ndarray, partner: np.ndarray
) -> np.ndarray:
    """Returns which candidates' mentions are not mismatched with their place's partner.

    Where the partner's caption offers one of a mention's candidates too, its picture may show it.
    """
    many = int(entity.max()) + 1
    too = np.isin(partner[place] * many + entity, place * many + entity)
    return np.logical_or.reduceat(too, mention_starts(mention))[mention]
