"""Labels -> p(entity | name) in this crawl, learnt from captions and images together.

A caption with "Nike" is the same whether the goddess or the brand is meant; what the images show is
evidence that the name did not give. Expectation-maximisation over the mentions with several
candidates, with p0 the prior in the labels and MU and FLOOR those of link/learn_priors.py:

    E   p(e | mention) = the joint score, with p(e | m) in place of p0(e | m)
    M   p(e | m) = (sum of p(e | mention) + MU * p0(e | m)) / (sum over e of both)

The joint score takes the text's probability, in which a prior counts as much as in the linker's
score: `replaced_prior` exchanges it. If there are many such mentions, a sample of them teaches.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float, Int

from openmofi.arrays.runs import run_numbers, run_starts
from openmofi.kb import KnowledgeBase
from openmofi.label.score import ScoreWeights, joint_score
from openmofi.link.crawl_priors import below_highest, normalised, pairs_of
from openmofi.link.learn_priors import FLOOR, MU
from openmofi.link.weights import load_link_weights
from openmofi.select.blocks import LabelBlocks, Piece
from openmofi.select.choose import ScoredCandidates, read_mentions
from openmofi.select.sample import DrawnMentions, draw_mentions

FILE = "priors.parquet"
FEWEST = 300
"""Mentions with several candidates below which nothing is learnt."""
_ENOUGH = 1_000_000
_MOST_PASSES = 50
_CONVERGED = 1e-3
_LEAST_NIL = 1e-6
_SCHEMA = pa.schema(
    [
        ("pair", pa.int64()),  # see `pairs_of`
        ("name", pa.string()),  # canonical form
        ("id", pa.string()),
        ("mentions", pa.int64()),  # of the name
        ("before", pa.float32()),  # p(entity | name)
        ("after", pa.float32()),
    ]
)


@dataclass(frozen=True)
class ImagePriors:
    """Priors of names with several candidates."""

    kb: KnowledgeBase
    pairs: Int[np.ndarray, " p"]
    """Name and entity, see `pairs_of`; sorted."""
    before: Float[np.ndarray, " p"]
    after: Float[np.ndarray, " p"]
    mentions: Int[np.ndarray, " p"]
    """Number of mentions of the name."""
    weight: float
    """How much a log prior counts in the text's score."""
    off: str = ""
    """Why nothing was learnt, or ""."""
    passes: int = 0

    def apply(self, found: ScoredCandidates) -> ScoredCandidates:
        """Returns candidates with their priors before and after, and texts of the latter."""
        if self.off or not len(found.row):
            return found
        assert found.prior is not None
        after = self._after(self.pairs_in(found), found.prior, found.item)
        text = replaced_prior(found.text, found.prior, after, found.item, self.weight)
        priors = np.stack([found.prior, after], axis=1).astype(np.float32)
        return replace(found, text=text.astype(np.float32), priors=priors)

    def texts_of(
        self,
        named: list[tuple[str, str]],
        text: Float[np.ndarray, " c"],
        prior: Float[np.ndarray, " c"],
        item: Int[np.ndarray, " c"],
    ) -> Float[np.ndarray, " c"]:
        """Returns the texts' scores of a few candidates, for pages that show them.

        Args:
            named: name as it is written and id of each.
            text: their scores in the labels.
            prior: their priors in the labels.
            item: number of each one's mention.
        """
        surfaces, ids = zip(*named, strict=True)
        keys = np.maximum(self.kb.keys(pa.array(surfaces, pa.string())), 0)
        pair = pairs_of(keys, np.array(self.kb.rows_of(list(ids)), np.int64))
        return replaced_prior(text, prior, self._after(pair, prior, item), item, self.weight)

    def _after(self, pair: np.ndarray, prior: np.ndarray, item: np.ndarray) -> np.ndarray:
        at = np.minimum(np.searchsorted(self.pairs, pair), len(self.pairs) - 1)
        return normalised(np.where(self.pairs[at] == pair, self.after[at], prior), item)

    def pairs_in(self, found: ScoredCandidates) -> Int[np.ndarray, " c"]:
        """Returns the pair of each candidate."""
        assert found.ids is not None
        assert found.surfaces is not None
        rows = self.kb.entity_rows(found.ids.dictionary)[found.ids.indices.to_numpy()]
        keys = self.kb.keys(found.surfaces)
        return pairs_of(np.maximum(keys, 0)[found.item], rows)

    @cached_property
    def table(self) -> pa.Table:
        """One row per name and entity."""
        keys, number = np.unique(self.pairs >> 32, return_inverse=True)
        names = self.kb.canonical_names(keys) if len(keys) else []
        columns = [
            self.pairs,
            pa.array(names, pa.string()).take(pa.array(number)),
            self.kb.ids.take(pa.array(self.pairs & 0xFFFFFFFF)).cast(pa.string()),
            self.mentions,
            self.before.astype(np.float32),
            self.after.astype(np.float32),
        ]
        return pa.table(columns, schema=_SCHEMA)

    def moved(self) -> list[dict[str, Any]]:
        """Returns the names whose likeliest entity is another one now, the most frequent first."""
        rows, starts = self.table.to_pylist(), run_starts(self.pairs >> 32)
        ends = [*starts[1:].tolist(), len(rows)]
        found = []
        for low, high in zip(starts.tolist(), ends, strict=False):
            old, new = (
                max(rows[low:high], key=lambda row, side=side: row[side])
                for side in ("before", "after")
            )
            if old["id"] != new["id"]:
                found.append(
                    {
                        "name": old["name"],
                        "mentions": old["mentions"],
                        "before": {"id": old["id"], "prior": round(old["before"], 3)},
                        "after": {"id": new["id"], "prior": round(new["after"], 3)},
                    }
                )
        return sorted(found, key=lambda name: (-name["mentions"], name["name"]))


def read_image_priors(folder: Path, kb: KnowledgeBase, i2e: Path) -> ImagePriors | None:
    """Returns the priors in the folder of a selection, or None if it learnt none.

    Args:
        folder: the selection.
        kb: the knowledge base of the labels.
        i2e: their folder.
    """
    if not (folder / FILE).is_file():
        return None
    table = pq.read_table(folder / FILE)
    if not len(table):
        return None
    pairs, before, after, mentions = (
        table[name].to_numpy() for name in ("pair", "before", "after", "mentions")
    )
    return ImagePriors(kb, pairs, before, after, mentions, prior_weight(i2e))


def prior_weight(i2e: Path) -> float:
    """Returns how much a log prior counts in the text's scores of a labelling job."""
    run = json.loads((i2e / "run.json").read_text())
    standardised = run.get("settings", {}).get("context", "words") != "words"
    return load_link_weights(standardised=standardised).prior


def replaced_prior(
    text: Float[np.ndarray, " c"],
    old: Float[np.ndarray, " c"],
    new: Float[np.ndarray, " c"],
    item: Int[np.ndarray, " c"],
    weight: float,
) -> Float[np.ndarray, " c"]:
    """Returns the text's probabilities with other priors.

    Args:
        text: p(candidate | text); the rest to 1 is NIL.
        old: the priors in them, which count relative to the highest of the mention.
        new: the others.
        item: mention of each candidate, ascending.
        weight: of a log prior.
    """
    starts = run_starts(item)
    number = run_numbers(item)
    nil = np.maximum(1 - np.add.reduceat(text.astype(np.float64), starts), _LEAST_NIL)
    least = np.finfo(np.float32).tiny
    gain = below_highest(np.log(np.maximum(new, least)), item)
    gain -= below_highest(np.log(np.maximum(old, least)), item)
    odds = text / nil[number] * np.exp(weight * gain)
    return odds / (1 + np.add.reduceat(odds, starts))[number]


def learn_image_priors(
    labels: LabelBlocks, kb: KnowledgeBase, weights: ScoreWeights, prior_weight: float
) -> ImagePriors:
    """Learns from the labels of a job.

    Args:
        labels: all labels.
        kb: their knowledge base.
        weights: of the joint score.
        prior_weight: weight of a log prior in the linker's score.
    """
    none = np.zeros(0)
    nothing = ImagePriors(kb, none.astype(np.int64), none, none, none.astype(np.int64), 0.0)

    def read(piece: Piece) -> tuple[DrawnMentions, np.ndarray]:
        """Returns mentions, and which have a known name, several candidates and a seen image."""
        found = read_mentions(piece.path, "joint", with_names=True, group=piece.group)
        assert found.surfaces is not None
        assert found.prior is not None
        columns = nothing.pairs_in(found), found.text, found.prior, found.clip_z
        mentions = DrawnMentions(found.row[found.begins], found.begins, columns)
        several = np.diff(np.append(found.begins, len(found.row))) > 1
        unseen = np.bincount(found.item, np.isnan(found.clip_z), len(found.begins)) > 0
        return mentions, several & ~unseen & (kb.keys(found.surfaces) >= 0)

    drawn = draw_mentions(labels, read, _ENOUGH, "draw ambiguous names")
    count = len(drawn.begins)
    if count < FEWEST:
        reason = (
            f"there are {count:,} mentions with several candidates and an image that was looked "
            f"at, and learning needs {FEWEST}"
        )
        return replace(nothing, off=reason)
    pair, text, old, clip_z = drawn.columns
    item = np.repeat(np.arange(count), np.diff(np.append(drawn.begins, len(pair))))
    # Rare candidates that some mentions lack, being written otherwise, count less in the start.
    pairs, at, times = np.unique(pair, return_inverse=True, return_counts=True)
    _, name = np.unique(pairs >> 32, return_inverse=True)
    start = normalised(np.bincount(at, old) / times, name)
    mentions = np.bincount(name[at[run_starts(item)]], minlength=name[-1] + 1)[name]
    prior, passes = start, 0
    for _ in range(_MOST_PASSES):
        of_text = replaced_prior(text, old, normalised(prior[at], item), item, prior_weight)
        posterior = joint_score(of_text, clip_z, item, weights)
        before, passes = prior, passes + 1
        prior = normalised(np.bincount(at, posterior) + MU * start, name)
        prior = normalised(np.maximum(prior, np.minimum(start, FLOOR)), name)
        if np.abs(prior - before).max() < _CONVERGED:
            break
    return ImagePriors(kb, pairs, start, prior, mentions, prior_weight, passes=passes)
