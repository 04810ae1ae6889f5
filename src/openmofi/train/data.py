"""The training data of a run: a selected dataset, or raw pairs -> TrainData.

Images stay in the original shards; a row states their place (shard, offset, size).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Int

from openmofi.arrays.random_keys import Purpose, random_key
from openmofi.config import EvaluationSettings
from openmofi.embed import find_places
from openmofi.errors import InputError
from openmofi.files.remote import Root, open_root
from openmofi.pairs import find_shards, read_shard
from openmofi.schema import VOCABULARY
from openmofi.train.labels import join_labels, read_texts
from openmofi.train.order import permute

_COLUMNS = ["shard", "offset", "size", "path", "caption"]


@dataclass(frozen=True)
class ClassLists:
    """The class indices of each image, best first, in two flat arrays."""

    starts: Int[np.ndarray, " images_plus_one"]
    values: Int[np.ndarray, " labels"]

    @classmethod
    def of(cls, lists: Sequence[Sequence[int]]) -> ClassLists:
        """Builds them from one list per image."""
        starts = np.cumsum([0, *map(len, lists)], dtype=np.int64)
        return cls(starts, np.array([c for row in lists for c in row], dtype=np.int64))

    @classmethod
    def of_column(cls, column: pa.ChunkedArray) -> ClassLists:
        """Builds them from a list column."""
        lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy()
        starts = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
        return cls(starts, pc.list_flatten(column).to_numpy().astype(np.int64))

    def take(self, rows: Int[np.ndarray, " n"]) -> ClassLists:
        """Returns the lists of some images."""
        lengths = np.diff(self.starts)[rows]
        starts = np.concatenate([[0], np.cumsum(lengths)])
        places = np.repeat(self.starts[rows] - starts[:-1], lengths) + np.arange(starts[-1])
        return ClassLists(starts, self.values[places])

    @cached_property
    def longest(self) -> int:
        """Largest number of classes of an image, at least 1."""
        return max(int(np.diff(self.starts).max(initial=0)), 1)

    def padded(self, rows: Int[np.ndarray, " n"]) -> Int[np.ndarray, "n K"]:
        """Returns the lists of some images, padded with -1 to the longest of all images."""
        lists = self.take(rows)
        lengths = np.diff(lists.starts)
        padded = np.full((len(rows), self.longest), -1, dtype=np.int64)
        padded[np.arange(padded.shape[1]) < lengths[:, None]] = lists.values
        return padded


@dataclass(frozen=True)
class TrainData:
    """The images of a training run and what is known about them."""

    table: pa.Table
    """Columns shard, offset, size, path, caption; one row per image."""
    classes: ClassLists | None
    """Class indices of each image, best first; None for raw pairs."""
    vocabulary: pa.Table | None
    """schema.VOCABULARY; None for raw pairs."""
    root: Root
    """Folder of the shards."""

    def __len__(self) -> int:
        return len(self.table)

    @property
    def entity_ids(self) -> list[str]:
        """Entity id of each class."""
        return [] if self.vocabulary is None else self.vocabulary["id"].to_pylist()

    @property
    def class_counts(self) -> Int[np.ndarray, " classes"]:
        """Number of images of each class; empty for raw pairs."""
        values = np.zeros(0, dtype=np.int64) if self.classes is None else self.classes.values
        return np.bincount(values, minlength=len(self.entity_ids))

    def targets(self, rows: Int[np.ndarray, " n"]) -> Int[np.ndarray, "n K"]:
        """Returns the class indices of some images, best first, padded with -1."""
        if self.classes is None:
            return np.full((len(rows), 1), -1, dtype=np.int64)
        return self.classes.padded(rows)

    def take(self, rows: Int[np.ndarray, " n"]) -> TrainData:
        """Returns the images of some rows."""
        classes = None if self.classes is None else self.classes.take(rows)
        return replace(self, table=self.table.take(pa.array(rows)), classes=classes)

    def split(self, evaluation: EvaluationSettings, *, seed: int) -> DataParts:
        """Returns the images to learn from and the held-out ones, drawn by the seed."""
        learnt, unseen = np.arange(len(self)), np.zeros(0, dtype=np.int64)
        if evaluation.holdout_entities > 0:
            count = len(self.entity_ids)
            key = random_key(seed, Purpose.HELD_OUT_ENTITIES)
            order = permute(np.arange(count), total=count, key=key)
            hidden = order < round(evaluation.holdout_entities * count)
            shows = np.append(hidden, False)[self.targets(learnt)].any(1)  # -1 is padding
            learnt, unseen = np.flatnonzero(~shows), np.flatnonzero(shows)
        key = random_key(seed, Purpose.HELD_OUT)
        order = permute(np.arange(len(learnt)), total=len(learnt), key=key)
        held_out = order < round(evaluation.holdout * len(learnt))
        return DataParts(*map(self.take, (learnt[~held_out], learnt[held_out], unseen)))

    def fingerprint(self) -> str:
        """Returns a hash of the images' places, captions and classes, and of the vocabulary."""
        digest = hashlib.sha256()
        for name in ("shard", "offset", "path", "caption"):
            # Arrow's stream format of a single chunk does not depend on how it was in memory.
            column = self.table.select([name]).replace_schema_metadata(None).combine_chunks()
            sink = pa.BufferOutputStream()
            with pa.ipc.new_stream(sink, column.schema) as writer:
                writer.write_table(column, max_chunksize=1 << 16)
            digest.update(memoryview(sink.getvalue()))
        if self.classes is not None:
            digest.update(self.classes.starts.tobytes() + self.classes.values.tobytes())
        digest.update("\0".join(self.entity_ids).encode())
        return digest.hexdigest()

    def texts(self) -> Iterator[str]:
        """Yields every text that a tokenizer should know."""
        yield from self.table["caption"].to_pylist()
        if self.vocabulary is not None:
            yield from self.vocabulary["label"].to_pylist()
            yield from self.vocabulary["description"].to_pylist()


class DataParts(NamedTuple):
    """The images of a run by their use."""

    learnt: TrainData
    held_out: TrainData
    """Others, drawn uniformly."""
    unseen: TrainData
    """All images of the held-out entities."""


def open_train_data(
    path: Path | str,
    *,
    labels: Path | str | None = None,
    texts: Path | str | None = None,
    kb: Path | str | None = None,
) -> TrainData:
    """Opens the output of `openmofi select`, raw pairs, or pairs with labels of one's own.

    Args:
        path: a selection, or anything that `openmofi label` reads.
        labels: CSV or Parquet with the entities of the images, see `labels.join_labels`; images
            without any are left out.
        texts: CSV with id, name and description of these entities.
        kb: knowledge base with the same.

    Raises:
        InputError: a file or a column is missing, or no image remains.
    """
    path = Path(path)
    if (path / "keep.parquet").is_file():
        if labels is not None:
            raise InputError(
                f"{str(path)!r} is a selection and has its own labels; leave out --labels, or pass "
                "the images as --data."
            )
        data = _open_selected(path)
    elif labels is not None:
        data = _open_labelled(path, Path(labels), texts=texts, kb=kb)
    else:
        source = find_shards(path)
        tables = []
        for shard in source.shards:
            table = read_shard(source.root, shard).table
            tables.append(table.filter(pc.equal(table["status"], "ok")))
        pairs = pa.concat_tables(tables).select(_COLUMNS)
        data = TrainData(pairs, classes=None, vocabulary=None, root=source.root)
    if not len(data):
        raise InputError(f"{str(path)!r} holds no usable image; expected at least one to train on.")
    return data


def _open_labelled(
    path: Path, labels: Path, *, texts: Path | str | None, kb: Path | str | None
) -> TrainData:
    """Returns the images that have labels, these as classes.

    An id stands in for a missing name, and the name of its first entity for an image's missing
    caption.
    """
    places = find_places(path)
    given, _ = join_labels(places.table.rename_columns({"key": "id"}), labels, source=path)
    rows = np.array([row for row, found in enumerate(given) if found], dtype=np.int64)
    ids = sorted({entity for found in given for entity in found})
    number = {entity: place for place, entity in enumerate(ids)}
    classes = ClassLists.of([[number[entity] for entity in given[row]] for row in rows])
    names, descriptions = read_texts(ids, texts=texts, kb=kb) or (ids, [""] * len(ids))
    names = [name or entity for name, entity in zip(names, ids, strict=True)]
    counts = np.bincount(classes.values, minlength=len(ids))
    columns = {"id": ids, "label": names, "description": descriptions, "images": counts}
    table = places.table.take(pa.array(rows)).select(_COLUMNS)
    captions = [
        caption or names[target]
        for caption, target in zip(
            table["caption"].to_pylist(), classes.values[classes.starts[:-1]], strict=True
        )
    ]
    table = table.set_column(_COLUMNS.index("caption"), "caption", pa.array(captions, pa.string()))
    return TrainData(table, classes, pa.table(columns, schema=VOCABULARY), places.root)


def _open_selected(path: Path) -> TrainData:
    card = json.loads((path / "card.json").read_text())
    keep = pq.read_table(path / "keep.parquet")
    vocabulary = pq.read_table(path / "vocabulary.parquet")
    classes = ClassLists.of_column(keep["classes"])
    wrong = classes.values[(classes.values < 0) | (classes.values >= len(vocabulary))]
    if len(wrong):
        raise InputError(
            f"{str(path)!r} labels images with class {wrong[0]} but its vocabulary has "
            f"{len(vocabulary)}; run `openmofi select` again."
        )
    without = int((np.diff(classes.starts) == 0).sum())
    if without:
        raise InputError(
            f"{str(path)!r} has {without} images without a class, which `openmofi select` never "
            "writes; run it again."
        )
    return TrainData(keep.select(_COLUMNS), classes, vocabulary, open_root(card["input"]))
