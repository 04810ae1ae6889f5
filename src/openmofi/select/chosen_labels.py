"""A block of labels -> flat arrays: the chosen entity of each mention, and its image.

Images are numbered within the block; a label is the (image, entity) that a mention stands for.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from openmofi.arrays.hashing import Hasher
from openmofi.kb import KnowledgeBase
from openmofi.label.score import ScoreWeights
from openmofi.select.blocks import Block, Piece
from openmofi.select.choose import Corrected, TaughtPriors, choose
from openmofi.select.hashes import digests

_IMAGE_COLUMNS = ["error", "text_area", "sha256", "phash", "key"]


@dataclass(frozen=True)
class ChosenLabels:
    """One element per mention, in the order of the images."""

    image: np.ndarray
    entity: np.ndarray
    """Row in the knowledge base."""
    score: np.ndarray
    evidence: np.ndarray
    evidence_other: np.ndarray
    confused: np.ndarray
    priors: np.ndarray
    known: np.ndarray
    """The last six as in `choose.ChosenCandidates`."""

    def __len__(self) -> int:
        return len(self.image)

    def take(self, index: np.ndarray) -> ChosenLabels:
        """Returns some of the labels, by number or by mask."""
        return ChosenLabels(*(getattr(self, field.name)[index] for field in fields(self)))

    def without(self, *names: str) -> ChosenLabels:
        """Returns the labels with nothing, [m, 0], for some columns that are not needed again."""
        return replace(self, **{name: np.zeros((len(self), 0), np.float32) for name in names})


@dataclass(frozen=True)
class Images:
    """What is known of the images of a block; one element per image."""

    error: np.ndarray
    """0 for a valid pair, else 1 + the index of its reason."""
    reasons: list[str]
    text_area: np.ndarray
    """NaN: not measured."""
    digest: np.ndarray
    """uint64 [n, 2]: the first half of the sha256, enough to tell images apart."""
    has_digest: np.ndarray
    phash: np.ndarray
    has_phash: np.ndarray
    tie: np.ndarray
    """uint64: a hash of the pair's key; decides between pairs that are equal in all else."""


def read_chosen(
    block: Block,
    kb: KnowledgeBase,
    order: str,
    weights: ScoreWeights | None = None,
    priors: TaughtPriors | None = None,
    corrections: Corrected | None = None,
) -> ChosenLabels:
    """Reads a block and chooses one candidate per mention, see `choose`."""
    choices = [
        choose(piece.path, order, weights, priors, corrections, group=piece.group)
        for piece in block.pieces
    ]
    entity = _entities([choice.ids for choice in choices], kb)
    image = [choice.row + begin for choice, begin in zip(choices, block.begins, strict=False)]
    names = ("score", "evidence", "evidence_other", "confused", "priors", "known")
    scores = (np.concatenate([getattr(choice, name) for choice in choices]) for name in names)
    return ChosenLabels(np.concatenate(image).astype(np.int32), entity, *scores)


def read_images(block: Block) -> Images:
    """Reads what is known of the images of a block."""
    hasher = Hasher(0)
    return _images(pa.concat_tables([_image_columns(piece, hasher) for piece in block.pieces]))


def _entities(parts: list[pa.DictionaryArray], kb: KnowledgeBase) -> np.ndarray:
    """Returns the row of each chosen entity; looks up those only, each once."""
    ids = pa.chunked_array(parts).unify_dictionaries()
    codes = np.concatenate([chunk.indices.to_numpy() for chunk in ids.chunks])
    all_ids = ids.chunk(0).dictionary
    used = np.zeros(len(all_ids), bool)
    used[codes] = True
    rows = np.zeros(len(all_ids), np.int32)
    rows[used] = kb.entity_rows(all_ids.filter(pa.array(used)))
    return rows[codes]


def _image_columns(piece: Piece, hasher: Hasher) -> pa.Table:
    with pq.ParquetFile(piece.path, read_dictionary=["error"]) as file:
        table = file.read_row_group(piece.group, _IMAGE_COLUMNS)
    keys = table["key"].combine_chunks().fill_null("")
    tie = pa.array(hasher.strings(keys))
    return table.drop_columns("key").append_column("tie", tie)


def _images(table: pa.Table) -> Images:
    error = table["error"].unify_dictionaries().combine_chunks()
    names = error.dictionary.to_pylist()
    found = sorted(name for name in set(names) if name)
    code_of = {"": 0} | {name: number + 1 for number, name in enumerate(found)}
    codes = np.array([code_of[name] for name in names], np.int16)
    digest, has_digest = digests(table["sha256"])
    return Images(
        codes[error.indices.to_numpy()],
        found,
        _values(table["text_area"], np.float32),
        digest,
        has_digest,
        _values(table["phash"], np.uint64),
        table["phash"].is_valid().to_numpy(),
        table["tie"].to_numpy(),
    )


def _values(column: pa.ChunkedArray, kind: type) -> np.ndarray:
    fill = float("nan") if kind is np.float32 else 0
    return column.fill_null(fill).to_numpy().astype(kind, copy=False)
