"""What a training step sees: a selected dataset, or raw pairs -> Batch number N.

Pictures stay in the original shards and are fetched by (shard, offset, size). The order is a keyed
permutation, so the batch of any step follows from (seed, step) alone: resuming is one integer.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Int, UInt8

from openmofi.errors import InputError
from openmofi.model.transform import Transform
from openmofi.pairs import ImageReader, read_pairs, read_shard
from openmofi.pairs.places import Root, open_root
from openmofi.pictures import decode

_PREFETCH = 3


@dataclass(frozen=True)
class TrainData:
    """The images of a training run and what is known of them."""

    table: pa.Table
    """Columns shard, offset, size, path, caption; one row per image."""
    classes: tuple[tuple[int, ...], ...]
    """Class indices of each image, best first; empty for raw pairs."""
    vocabulary: pa.Table | None
    """schema.VOCABULARY; None for raw pairs."""
    root: Root
    """Where the shards lie."""

    def __len__(self) -> int:
        return len(self.table)

    @property
    def entity_ids(self) -> list[str]:
        """Entity id of each class."""
        return [] if self.vocabulary is None else self.vocabulary["id"].to_pylist()

    def fingerprint(self) -> str:
        """Returns a hash of the images' places, captions and classes, and of the vocabulary."""
        digest = hashlib.sha256()
        columns = [self.table["shard"], self.table["offset"], self.table["path"]]
        for column in [*columns, self.table["caption"]]:
            for text in column.to_pylist():
                digest.update(str(text).encode("utf-8", "surrogatepass") + b"\0")
        digest.update(repr((self.classes, self.entity_ids)).encode())
        return digest.hexdigest()

    def texts(self) -> Iterator[str]:
        """Yields every text a tokenizer should know."""
        yield from self.table["caption"].to_pylist()
        if self.vocabulary is not None:
            yield from self.vocabulary["label"].to_pylist()
            yield from self.vocabulary["description"].to_pylist()


def open_train_data(path: Path | str) -> TrainData:
    """Opens the output of `openmofi select`, or raw pairs.

    Raises:
        InputError: neither is there, or it is empty.
    """
    path = Path(path)
    data = _open_selected(path) if (path / "keep.parquet").is_file() else _open_raw(path)
    if not len(data):
        raise InputError(f"{str(path)!r} holds no usable image; expected at least one to train on.")
    return data


def _open_selected(path: Path) -> TrainData:
    card = json.loads((path / "card.json").read_text())
    keep = pq.read_table(path / "keep.parquet")
    classes = tuple(tuple(row) for row in keep["classes"].to_pylist())
    vocabulary = pq.read_table(path / "vocabulary.parquet")
    columns = ["shard", "offset", "size", "path", "caption"]
    return TrainData(keep.select(columns), classes, vocabulary, open_root(card["input"]))


def _open_raw(path: Path) -> TrainData:
    source = read_pairs(path)
    tables = []
    for shard in source.shards:
        table = read_shard(source.root, shard).table
        tables.append(table.filter(pc.equal(table["status"], "ok")))
    table = pa.concat_tables(tables).select(["shard", "offset", "size", "path", "caption"])
    return TrainData(table, (), None, source.root)


@dataclass(frozen=True)
class Batch:
    """One step's images, as bytes decoded to the network's size."""

    step: int
    rows: Int[np.ndarray, " batch"]
    """Rows of TrainData.table."""
    pixels: UInt8[np.ndarray, "batch size size 3"]
    num_unreadable: int
    """Pictures that could not be decoded; another image of the batch stands in for each."""


def permute(
    index: Int[np.ndarray, " n"], *, total: int, key: int, rounds: int = 6
) -> Int[np.ndarray, " n"]:
    """Returns where a keyed permutation of range(total) sends each index.

    A Feistel network over the next even number of bits; values that fall outside the range walk on
    until they fall inside (Black and Rogaway 2002, "cycle walking"). Constant memory for any total.
    """
    half = np.uint64(max((int(total - 1).bit_length() + 1) // 2, 1))
    mask = np.uint64((1 << int(half)) - 1)
    values = np.asarray(index, dtype=np.uint64)
    outside = np.ones(len(values), dtype=bool)
    while outside.any():
        walked = values[outside]
        left, right = walked >> half, walked & mask
        for number in range(rounds):
            left, right = right, left ^ (_mix(right, key * rounds + number) & mask)
        values = values.copy()
        values[outside] = (left << half) | right
        outside = values >= total
    return values.astype(np.int64)


def _mix(values: np.ndarray, key: int) -> np.ndarray:
    """Returns splitmix64 of values and key."""
    with np.errstate(over="ignore"):
        mixed = values + np.uint64((key * 0x9E3779B97F4A7C15 + 0x632BE59BD9B4E019) % 2**64)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return mixed ^ (mixed >> np.uint64(31))


def rows_of_step(step: int, *, batch_size: int, total: int, seed: int) -> Int[np.ndarray, " batch"]:
    """Returns the dataset rows of a step; every row comes once per epoch."""
    positions = np.arange(step * batch_size, (step + 1) * batch_size)
    epochs, within = positions // total, positions % total
    rows = np.empty(batch_size, dtype=np.int64)
    for epoch in np.unique(epochs):
        here = epochs == epoch
        key = seed * 1_000_003 + int(epoch)
        rows[here] = permute(within[here], total=total, key=key)
    return rows


class Loader:
    """Decodes the batches of steps first, first + 1, ... ahead of their use.

    Decoded pictures of a small dataset are kept, up to `cache_bytes`, since a small encoder would
    otherwise wait for JPEG on every epoch.
    """

    def __init__(
        self,
        data: TrainData,
        transform: Transform,
        *,
        batch_size: int,
        seed: int,
        threads: int,
        cache_bytes: int = 1 << 30,
    ):
        self.data, self.transform = data, transform
        self.batch_size, self.seed = batch_size, seed
        self._reader = ImageReader(data.root)
        self._pool = ThreadPoolExecutor(max(threads, 1))
        cacheable = len(data) * transform.size**2 * 3 <= cache_bytes
        self._cache: dict[int, np.ndarray | None] | None = {} if cacheable else None
        self._places = data.table.select(["shard", "offset", "size", "path"])

    def batches(self, first: int, last: int) -> Iterator[Batch]:
        """Yields the batches of steps first .. last - 1."""
        pending = [self._pool.submit(self.batch, s) for s in range(first, last)[:_PREFETCH]]
        for step in range(first, last):
            future = pending.pop(0)
            if step + _PREFETCH < last:
                pending.append(self._pool.submit(self.batch, step + _PREFETCH))
            yield future.result()

    def batch(self, step: int) -> Batch:
        """Returns one step's batch.

        Raises:
            InputError: none of its pictures can be read.
        """
        rows = rows_of_step(step, batch_size=self.batch_size, total=len(self.data), seed=self.seed)
        decoded = [self._pixels(int(row)) for row in rows]
        readable = {i: pixels for i, pixels in enumerate(decoded) if pixels is not None}
        if not readable:
            raise InputError(
                f"None of the {len(rows)} pictures of step {step} can be read from "
                f"{str(self.data.root)!r}; are the shards still there?"
            )
        stand_ins = list(readable)
        chosen = [i if i in readable else stand_ins[i % len(stand_ins)] for i in range(len(rows))]
        pixels = np.stack([readable[i] for i in chosen])
        return Batch(step, rows[chosen], pixels, len(rows) - len(readable))

    def _pixels(self, row: int) -> np.ndarray | None:
        """Returns a decoded picture, or None if it cannot be read."""
        if self._cache is not None and row in self._cache:
            return self._cache[row]
        place = {name: self._places[name][row].as_py() for name in self._places.column_names}
        decoded = decode(self._reader, place, self.transform)
        pixels = None if isinstance(decoded, str) else decoded[0]
        if self._cache is not None:
            self._cache[row] = pixels
        return pixels

    def close(self) -> None:
        """Stops the threads."""
        self._pool.shutdown(wait=False, cancel_futures=True)
