"""The training data of a run: a selected dataset, or raw pairs -> TrainData.

Images stay in the original shards; a row states their place (shard, offset, size).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
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
from openmofi.train.class_lists import ClassLists, flat_lists
from openmofi.train.labels import join_labels, read_texts
from openmofi.train.mapped import (
    HASHED,
    ColumnDigest,
    check_classes,
    damaged,
    fingerprint,
    open_mapped,
)
from openmofi.train.mapped_pairs import open_mapped_pairs
from openmofi.train.order import permute, unpermute
from openmofi.train.rows import Rows
from openmofi.train.synthetic import SyntheticCaptions

PLACE = ("shard", "offset", "size", "path")
"""Columns that tell where an image is."""
_COLUMNS = [*PLACE, "caption"]
_ENOUGH_TEXTS = 1_000_000
_AT_ONCE = 1 << 16
_MAP_ABOVE = 1 << 20
"""Images above which a selection is mapped instead of read."""


@dataclass(frozen=True)
class TrainData:
    """The images of a training run and what is known about them."""

    source: pa.Table
    """Columns shard, offset, size, path, caption of all images of the dataset."""
    classes: ClassLists | None
    """Class indices of all images, best first; None for raw pairs."""
    vocabulary: pa.Table | None
    """schema.VOCABULARY; None for raw pairs."""
    root: Root
    """Folder of the shards."""
    part: Rows | None = None
    """The images that belong; None: all of the dataset."""
    known_fingerprint: str | None = None
    """Of the whole dataset, where it was computed before."""
    synthetic: SyntheticCaptions | None = None
    """Captions of all images of the dataset that a model wrote."""

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def rows(self) -> Rows:
        """The images that belong, as rows of the dataset."""
        if self.part is not None:
            return self.part
        return Rows.all_but(np.zeros(0, np.int64), total=len(self.source))

    @property
    def entity_ids(self) -> list[str]:
        """Entity id of each class."""
        return [] if self.vocabulary is None else self.vocabulary["id"].to_pylist()

    @property
    def class_counts(self) -> Int[np.ndarray, " classes"]:
        """Number of images of each class; empty for raw pairs."""
        if self.classes is None:
            return np.zeros(0, dtype=np.int64)
        rows = self.rows
        if rows.are_left_out:
            return self.classes.counts - self.classes.counts_of(rows.listed)
        return self.classes.counts_of(rows.listed)

    def records(self, places: Int[np.ndarray, " n"], columns: Sequence[str] = _COLUMNS) -> pa.Table:
        """Returns what the table says of some images."""
        return self.source.select(list(columns)).take(pa.array(self.rows.of(places)))

    def synthetic_texts(self, places: Int[np.ndarray, " n"]) -> list[list[str]]:
        """Returns all synthetic captions of some images."""
        assert self.synthetic is not None
        return self.synthetic.of_rows(self.rows.of(places))

    def targets(self, places: Int[np.ndarray, " n"]) -> Int[np.ndarray, "n K"]:
        """Returns the class indices of some images, best first, padded with -1."""
        if self.classes is None:
            return np.full((len(places), 1), -1, dtype=np.int64)
        return self.classes.padded(self.rows.of(places))

    def take(self, places: Int[np.ndarray, " n"]) -> TrainData:
        """Returns the images at some places."""
        return replace(self, part=self.rows.take(places))

    def split(self, evaluation: EvaluationSettings, *, seed: int) -> DataParts:
        """Returns the images to learn from and the held-out ones, drawn by the seed."""
        assert self.part is None
        total, unseen = len(self), np.zeros(0, dtype=np.int64)
        if evaluation.holdout_entities > 0 and self.classes is not None:
            count = len(self.entity_ids)
            key = random_key(seed, Purpose.HELD_OUT_ENTITIES)
            order = permute(np.arange(count), total=count, key=key)
            unseen = self.classes.showing(order < round(evaluation.holdout_entities * count))
        others = Rows.all_but(unseen, total=total)
        key = random_key(seed, Purpose.HELD_OUT)
        drawn = np.arange(round(evaluation.holdout * len(others)))
        held_out = others.of(np.sort(unpermute(drawn, total=len(others), key=key)))
        learnt = Rows.all_but(np.union1d(held_out, unseen), total=total)
        listed = (Rows(total, rows, False) for rows in (held_out, unseen))
        return DataParts(*(replace(self, part=part) for part in (learnt, *listed)))

    def fingerprint(self) -> str:
        """Returns a hash of the images' places, captions and classes, and of the vocabulary."""
        whole = self.known_fingerprint or fingerprint(
            (ColumnDigest(name, self.source[name].chunks) for name in HASHED),
            self.classes,
            self.entity_ids,
        )
        rows = self.rows
        if rows.are_left_out and not len(rows.listed):
            return whole
        told = f"{whole} {rows.are_left_out} ".encode() + rows.listed.tobytes()
        return hashlib.sha256(told).hexdigest()

    def synthetic_digest(self) -> str:
        """Returns a hash of all synthetic captions; "" without any."""
        return self.synthetic.digest if self.synthetic is not None else ""

    def texts(self) -> Iterator[str]:
        """Yields texts that a tokenizer should know: of many captions, a sample."""
        places = np.arange(min(len(self), _ENOUGH_TEXTS))
        if len(self) > _ENOUGH_TEXTS:
            key = random_key(0, Purpose.TOKENIZER_TEXTS)
            places = np.sort(unpermute(places, total=len(self), key=key))
        for at in range(0, len(places), _AT_ONCE):
            some = places[at : at + _AT_ONCE]
            yield from self.records(some, ["caption"])["caption"].to_pylist()
            if self.synthetic is not None:
                yield from chain.from_iterable(self.synthetic_texts(some))
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
    mapped_in: Path | None = None,
) -> TrainData:
    """Opens the output of `openmofi select`, raw pairs, or pairs with labels of one's own.

    Args:
        path: a selection, or anything that `openmofi label` reads.
        labels: CSV or Parquet with the entities of the images, see `labels.join_labels`; images
            without any are left out.
        texts: CSV with id, name and description of these entities.
        kb: knowledge base with the same.
        mapped_in: folder in which raw pairs are mapped, instead of being held in memory.

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
        data = _open_pairs(path, mapped_in)
    if not len(data):
        raise InputError(f"{str(path)!r} holds no usable image; expected at least one to train on.")
    return data


def with_synthetic(data: TrainData, file: Path | str | None, *, source: Path | str) -> TrainData:
    """Returns data with the synthetic captions in a file; an image without any has its own caption.

    Args:
        data: all images of a dataset.
        file: see `LossSettings.synthetic`; None leaves the data as it is.
        source: where the data was opened.

    Raises:
        InputError: the file or a column is missing, or its lines fit no image.
    """
    if file is None:
        return data
    images = find_places(source).table.rename_columns({"key": "id"})
    given, _ = join_labels(images, Path(file), source=Path(source), columns=("synthetic",))
    found = dict(zip(_identities(images), given, strict=True))
    lists = [found.get(place, []) for place in _identities(data.source)]
    captions = data.source["caption"].to_pylist()
    return replace(data, synthetic=SyntheticCaptions.of(lists, captions))


def _identities(table: pa.Table) -> list[tuple]:
    """Returns what tells an image from all others of an input."""
    columns = (table[name].to_pylist() for name in ("shard", "path", "offset"))
    return list(zip(*columns, strict=True))


def _open_pairs(path: Path, mapped_in: Path | None) -> TrainData:
    source = find_shards(path)
    if mapped_in is not None:
        found = open_mapped_pairs(source, mapped_in)
        known = {"known_fingerprint": found.fingerprint}
        return TrainData(found.table, classes=None, vocabulary=None, root=source.root, **known)
    tables = []
    for shard in source.shards:
        table = read_shard(source.root, shard).table
        tables.append(table.filter(pc.equal(table["status"], "ok")))
    pairs = pa.concat_tables(tables).select(_COLUMNS).combine_chunks()
    return TrainData(pairs, classes=None, vocabulary=None, root=source.root)


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
    lists = [[number[entity] for entity in given[row]] for row in rows]
    classes = ClassLists.of(lists, classes=len(ids))
    names, descriptions = read_texts(ids, texts=texts, kb=kb) or (ids, [""] * len(ids))
    names = [name or entity for name, entity in zip(names, ids, strict=True)]
    columns = {"id": ids, "label": names, "description": descriptions, "images": classes.counts}
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
    vocabulary = pq.read_table(path / "vocabulary.parquet")
    root = open_root(card["input"])
    if pq.read_metadata(path / "keep.parquet").num_rows > _MAP_ABOVE:
        mapped = open_mapped(path, vocabulary)
        return TrainData(
            mapped.table, mapped.classes, vocabulary, root, known_fingerprint=mapped.fingerprint
        )
    try:
        keep = pq.read_table(path / "keep.parquet")
    except (OSError, pa.ArrowInvalid) as error:
        raise damaged(path, error) from None
    starts, values = flat_lists(keep["classes"])
    check_classes(path, starts, values, len(vocabulary))
    classes = ClassLists.flat(starts, values, classes=len(vocabulary))
    table = keep.select(_COLUMNS)
    if table["caption"].null_count:
        captions = pc.fill_null(table["caption"], "")
        table = table.set_column(_COLUMNS.index("caption"), "caption", captions)
    return TrainData(table.combine_chunks(), classes, vocabulary, root)
