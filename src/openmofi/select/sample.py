"""All labels -> a sample of their mentions, drawn by what the pairs are: image bytes and caption.

Neither the order of the pairs nor how they are cut into shards matters: the same pairs give the
same sample in the same order. Of few mentions the sample is all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow.parquet as pq

from openmofi.arrays.hashing import Hasher
from openmofi.arrays.random_keys import Purpose, mix_words, random_key
from openmofi.select.blocks import Block, LabelBlocks, Piece
from openmofi.select.choose import ScoredCandidates, TaughtPriors, read_mentions
from openmofi.select.hashes import digests

_ENOUGH = 100_000
"""Number of mentions above which more of them no longer change the weights noticeably."""


@dataclass(frozen=True)
class DrawnMentions:
    """Mentions with columns of their candidates; arrays have one element per mention."""

    image: np.ndarray
    """The number of its image."""
    begins: np.ndarray
    """First candidate."""
    columns: tuple[np.ndarray, ...]
    """One element, or row, per candidate."""

    def take(self, index: np.ndarray) -> DrawnMentions:
        """Returns some of them, by number."""
        sizes = np.diff(np.append(self.begins, len(self.columns[0])))[index]
        begins = np.cumsum(sizes) - sizes
        within = np.arange(sizes.sum()) - np.repeat(begins, sizes)
        candidates = np.repeat(self.begins[index], sizes) + within
        columns = tuple(column[candidates] for column in self.columns)
        return DrawnMentions(self.image[index], begins, columns)


def draw_mentions(
    labels: LabelBlocks,
    read: Callable[[Piece], tuple[DrawnMentions, np.ndarray]],
    wanted: int,
    title: str,
) -> DrawnMentions:
    """Draws about `wanted` mentions, whole images at a time; all if there are no more.

    Args:
        labels: all labels.
        read: returns (mentions, whose images are rows of the piece; which of them to draw from).
        wanted: how many.
        title: of the progress bar.
    """
    limit = ~np.uint64(0)

    def drawn_from(block: Block) -> tuple[np.ndarray, DrawnMentions]:
        hasher, parts = Hasher(0), []
        for piece, begin in zip(block.pieces, block.begins, strict=False):
            mentions, usable = read(piece)
            draws = _draws(piece, hasher)[mentions.image]
            near = np.flatnonzero(usable & (draws <= limit))
            mine = mentions.take(near)
            moved = DrawnMentions(mine.image + begin + block.begin, mine.begins, mine.columns)
            parts.append((draws[near], moved))
        return _smallest(parts, wanted)

    found: list[tuple[np.ndarray, DrawnMentions]] = []
    for part in labels.run(drawn_from, title):
        found = [_smallest([*found, part], wanted)]
        draws = found[0][0]
        limit = draws[-1] if len(draws) >= wanted else limit
    return found[0][1]


def _draws(piece: Piece, hasher: Hasher) -> np.ndarray:
    """Returns 64 random bits for each pair, which depend on its image and its caption."""
    with pq.ParquetFile(piece.path) as file:
        table = file.read_row_group(piece.group, ["sha256", "caption"])
    digest, _ = digests(table["sha256"])
    captions = hasher.strings(table["caption"].combine_chunks().fill_null(""))
    return mix_words(mix_words(random_key(0, Purpose.SELECT_SAMPLE), digest[:, 0]), captions)


def _smallest(
    parts: Sequence[tuple[np.ndarray, DrawnMentions]], wanted: int
) -> tuple[np.ndarray, DrawnMentions]:
    """Returns the mentions with the `wanted` smallest draws, and those of the same images."""
    draws = np.concatenate([part for part, _ in parts])
    mentions = _joined([part for _, part in parts])
    order = np.lexsort((mentions.image, draws))
    if len(order) > wanted:
        order = order[: np.searchsorted(draws[order], draws[order[wanted - 1]], "right")]
    return draws[order], mentions.take(order)


def _joined(parts: Sequence[DrawnMentions]) -> DrawnMentions:
    shifts = np.cumsum([0, *(len(part.columns[0]) for part in parts[:-1])])
    begins = [part.begins + shift for part, shift in zip(parts, shifts, strict=True)]
    columns = zip(*(part.columns for part in parts), strict=True)
    return DrawnMentions(
        np.concatenate([part.image for part in parts]),
        np.concatenate(begins),
        tuple(np.concatenate(column) for column in columns),
    )


@dataclass(frozen=True)
class MentionSample:
    """Mentions at whose images somebody looked."""

    found: ScoredCandidates
    image: np.ndarray
    """The number of each mention's image."""


def sample_mentions(
    labels: LabelBlocks, order: str, priors: TaughtPriors | None = None
) -> MentionSample:
    """Returns a sample of the mentions of all labels.

    Args:
        labels: all labels.
        order: see `choose`.
        priors: what images taught about names.
    """

    def read(piece: Piece) -> tuple[DrawnMentions, np.ndarray]:
        found = read_mentions(piece.path, order, priors, with_ids=False, group=piece.group)
        columns = (found.text, found.clip_z, found.clip_z_other)
        mentions = DrawnMentions(found.row[found.begins], found.begins, columns)
        return mentions, ~np.isnan(found.clip_z[found.begins])

    drawn = draw_mentions(labels, read, _ENOUGH, "draw a sample")
    text, clip_z, other = drawn.columns
    sizes = np.diff(np.append(drawn.begins, len(text)))
    return MentionSample(
        ScoredCandidates(np.repeat(drawn.image, sizes), None, drawn.begins, text, clip_z, other),
        drawn.image,
    )
