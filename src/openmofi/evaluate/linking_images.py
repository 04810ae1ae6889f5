"""Texts that nobody annotated: output of `label` -> captions whose images tell what names mean.

A caption with "crane" does not tell which one; its image often does. In this crawl, by the weights
of the joint score, a candidate c of a mention is meant with the probability

    q(c) = p(c is shown | text, image) + p(nothing named is shown | text, image) p(c | text)

So an image that shows no candidate leaves what the text says, and one that shows a candidate
decides. Learning q from the text (`kb fit`) is a step of expectation maximisation: what images tell
on average changes what the text score says, and what they never show stays as it was.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float

from openmofi.errors import InputError
from openmofi.evaluate.linking_data import GoldDocument, GoldMention, LinkingData
from openmofi.label.background import spread_out
from openmofi.label.score import LEAST_TEXT, ScoreWeights, joint_score
from openmofi.select.blocks import label_blocks
from openmofi.select.choose import ScoredCandidates, read_candidates, read_mentions
from openmofi.select.learn import weigh
from openmofi.select.sample import sample_mentions
from openmofi.shards import commits_of

_ENOUGH = 100_000
_LEAST = 0.001
"""Probability of a candidate below which it teaches nothing."""


def texts_of_images(i2e: Path) -> LinkingData:
    """Returns the captions of a labelling job with what their names mean, as images tell.

    Of many, a sample. Other names of a caption count as not annotated.

    Args:
        i2e: output of `label`; its encoder should not have learnt these captions.

    Raises:
        InputError: it is no such output, or no image of a caption with an ambiguous name was
            looked at.
    """
    files = [i2e / commit.file for commit in commits_of(i2e, "labels")]
    weighing = weigh(sample_mentions(label_blocks(files), "joint"))
    documents: list[GoldDocument] = []
    for file in spread_out(files):
        documents += _documents(file, weighing.weights, most=_ENOUGH - len(documents))
        if len(documents) >= _ENOUGH:
            break
    if not documents:
        raise InputError(
            f"No images of {str(i2e)!r} were looked at whose captions have ambiguous names; "
            "expected the output of `openmofi label` with an image encoder."
        )
    return LinkingData(i2e.name, "i2e", tuple(documents))


def _documents(file: Path, weights: ScoreWeights, *, most: int) -> Iterator[GoldDocument]:
    """Yields captions of a file with what their names mean; of more than `most`, every n-th."""
    found = read_mentions(file, "joint")
    if not len(found.row) or not found.looked:
        return
    sizes = np.diff(np.r_[found.begins, len(found.row)])
    meant = meant_by_images(found, weights)
    told = (np.repeat(sizes, sizes) > 1) & (meant > _LEAST)  # NaN is not
    rows = np.unique(found.row[told])
    if len(rows) > most:
        told &= np.isin(found.row, rows[np.linspace(0, len(rows) - 1, most).astype(np.int64)])
    _, flat = read_candidates(file, ("id", "start", "end", "surface"))
    mentions: dict[int, list[GoldMention]] = defaultdict(list)
    named = flat.filter(pa.array(told)).to_pylist()
    for row, one, p in zip(found.row[told].tolist(), named, meant[told].tolist(), strict=True):
        span = one["start"], one["end"]
        mentions[row].append(GoldMention(*span, one["id"], one["surface"], probability=p))
    table = pq.read_table(file, columns=["key", "caption"]).take(
        pa.array(list(mentions), pa.int64())
    )
    for one, own in zip(table.to_pylist(), mentions.values(), strict=True):
        yield GoldDocument(one["key"], one["caption"], tuple(own))


def meant_by_images(found: ScoredCandidates, weights: ScoreWeights) -> Float[np.ndarray, " c"]:
    """Returns the probability that each candidate is meant, given that one is; q of this module.

    NaN where no image was looked at.

    Args:
        found: the candidates of a file of labels.
        weights: those of the joint score.
    """
    item = found.item
    shown = joint_score(found.text, found.clip_z, item, weights).astype(np.float64)
    text = np.maximum(found.text, LEAST_TEXT).astype(np.float64)
    text /= np.add.reduceat(text, found.begins)[item]
    return shown + (1 - np.add.reduceat(shown, found.begins))[item] * text
