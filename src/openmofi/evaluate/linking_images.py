"""Texts that nobody annotated: output of `label` -> captions whose image tells what a name means.

A caption with "crane" does not tell which one; its image often does. Where the image alone, by the
weights of the joint score in this crawl and as if the text had nothing to say, is sure of one of
several candidates, the caption is an annotated text. So whatever is learnt from these texts (`kb
fit`) does not confirm what the linker believed before.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from openmofi.errors import InputError
from openmofi.evaluate.linking_data import GoldDocument, GoldMention, LinkingData
from openmofi.label.background import spread_out
from openmofi.label.score import ScoreWeights
from openmofi.select.blocks import label_blocks
from openmofi.select.choose import judge, read_candidates, read_mentions
from openmofi.select.joint_weights import weigh
from openmofi.select.sample import sample_mentions
from openmofi.shards import commits_of

_SURE = 0.9
"""Least probability of the candidate that the image shows, NIL and the others included."""
_ENOUGH = 100_000


def texts_of_images(i2e: Path) -> LinkingData:
    """Returns the captions of a labelling job whose image alone tells what a name means.

    Of many, a sample. Other names of a caption count as not annotated.

    Args:
        i2e: output of `label`; its encoder should not have learnt these captions.

    Raises:
        InputError: it is no such output, no image was looked at, or none is sure.
    """
    files = [i2e / commit.file for commit in commits_of(i2e, "labels")]
    weighing = weigh(sample_mentions(label_blocks(files), "joint"))
    documents: list[GoldDocument] = []
    for file in spread_out(files):
        documents += _documents(file, weighing.weights)
        if len(documents) >= _ENOUGH:
            break
    if not documents:
        looked = "were sure of a name" if weighing.num_mentions else "were looked at"
        raise InputError(
            f"No images of {str(i2e)!r} {looked}; expected the output of `openmofi label` with an "
            "image encoder, and captions with ambiguous names."
        )
    return LinkingData(i2e.name, "i2e", tuple(documents))


def _documents(file: Path, weights: ScoreWeights) -> Iterator[GoldDocument]:
    found = read_mentions(file, "joint")
    if not len(found.row) or not found.looked:
        return
    sizes = np.diff(np.r_[found.begins, len(found.row)])
    any_of_them = np.repeat(1 / sizes, sizes).astype(np.float32)
    judged = judge(replace(found, text=any_of_them), found.clip_z, weights)
    sure = judged.best[(sizes > 1) & (judged.score > _SURE)]  # NaN is not
    _, flat = read_candidates(file, ("id", "start", "end", "surface"))
    mentions: dict[int, list[GoldMention]] = defaultdict(list)
    named = flat.take(pa.array(sure)).to_pylist()
    for row, one in zip(found.row[sure].tolist(), named, strict=True):
        mentions[row].append(GoldMention(one["start"], one["end"], one["id"], one["surface"]))
    table = pq.read_table(file, columns=["key", "caption"]).take(
        pa.array(list(mentions), pa.int64())
    )
    for one, own in zip(table.to_pylist(), mentions.values(), strict=True):
        yield GoldDocument(one["key"], one["caption"], tuple(own))
