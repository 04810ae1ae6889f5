"""The batches of a run: a step's number -> decoded images, their entities, their tokens.

A batch depends only on its step's number, so threads or processes may make batches in any order,
and the shares of several training processes together are the batch of a single process.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from openmofi.arrays.random_keys import Purpose, random_key
from openmofi.errors import InputError, OpenMOFIError
from openmofi.images.look import decode, fetch
from openmofi.model.transform import Transform
from openmofi.pairs import ImageReader
from openmofi.refused import Refused
from openmofi.train.augment import NUM_DRAWS
from openmofi.train.data import PLACE, TrainData
from openmofi.train.imported_teacher import ImportedTeacher
from openmofi.train.order import Order, uniform
from openmofi.train.rand_augment import operation_draws
from openmofi.train.replay import replay
from openmofi.train.teacher import Teacher
from openmofi.train.texts import TextMix, meaning_keys

_PREFETCH = 3
_VERSION = NUM_DRAWS + 2
"""Column of the draw that selects a teacher's version of an image."""
_MOST_STAND_INS = 64
CACHE_BYTES = 1 << 30


@dataclass(frozen=True)
class Batch:
    """The training data of one process in one step."""

    step: int
    rows: Int[Tensor, " b"]
    """Places in TrainData."""
    epochs: Int[Tensor, " b"]
    """The pass over the data to which each image belongs."""
    draws: Float[Tensor, "b draws"]
    """Random numbers for augment.augment, RandAugment's included."""
    pixels: UInt8[Tensor, "b size size 3"]
    """Images at the network's size."""
    targets: Int[Tensor, "b K"]
    """Classes, the chosen one of this step first, padded with -1."""
    tokens: dict[str, Int[Tensor, "b length"]]
    """Input of the text tower; empty without an image-text loss."""
    keys: Int[Tensor, "b 2"]
    """The pairs' texts.meaning_keys."""
    teachers: tuple[tuple[Float[Tensor, "b E"], Float[Tensor, "b E"]], ...]
    """Each teacher's vectors of the images and of the texts."""
    num_unreadable: int
    """Number of images that could not be decoded, here or by a teacher; others replace them."""

    def to(self, device: torch.device) -> Batch:
        """Returns the batch on a device."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Batch:
        """Returns the batch in pinned memory, which a GPU reads without waiting."""
        return self._each(Tensor.pin_memory)

    def part(self, piece: slice) -> Batch:
        """Returns some of its images."""
        return self._each(lambda tensor: tensor[piece])

    def _each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        named = {field.name: getattr(self, field.name) for field in fields(self)}
        changed: dict[str, Any] = {n: change(v) for n, v in named.items() if isinstance(v, Tensor)}
        changed["tokens"] = {name: change(tokens) for name, tokens in self.tokens.items()}
        changed["teachers"] = tuple((change(one), change(two)) for one, two in self.teachers)
        return replace(self, **changed)


class BatchMaker(Dataset):
    """Makes the batch of any step."""

    def __init__(
        self,
        data: TrainData,
        transform: Transform,
        order: Order,
        *,
        batch_size: int,
        share: slice | None = None,
        texts: TextMix | None = None,
        tokenize: Callable[[list[str]], dict[str, Tensor]] | None = None,
        teachers: Sequence[Teacher | ImportedTeacher] = (),
        rand_ops: int = 0,
        draw_entity: bool = False,
        cache_bytes: int = CACHE_BYTES,
    ):
        """Looks up where the images are, without reading them.

        Args:
            data: the images.
            transform: resizes an image to the network's size.
            order: the order of the rows.
            batch_size: images per step, over all processes.
            share: this process's part of a batch; None means all of it.
            texts: draws the texts.
            tokenize: texts -> input of the text tower; None if there is no image-text loss.
            teachers: teachers whose vectors are loaded; they determine the augmentations.
            rand_ops: augment.rand_ops, for which random numbers are drawn.
            draw_entity: whether to choose any of an image's entities, instead of always the best.
            cache_bytes: decoded images are kept if all of them fit into so many bytes, because a
                small encoder would otherwise wait for JPEG in every epoch.
        """
        self.data, self.transform, self.order = data, transform, order
        self.batch_size, self.share = batch_size, share or slice(0, batch_size)
        self.texts, self.tokenize, self.draw_entity = texts, tokenize, draw_entity
        self.teachers, self.rand_ops = tuple(teachers), rand_ops
        self._reader = ImageReader(data.root)
        imported = [t for t in self.teachers if isinstance(t, ImportedTeacher)]
        self._imported = imported[0] if imported else None
        cacheable = not imported and len(data) * transform.size**2 * 3 <= cache_bytes
        self._cache: dict[int, np.ndarray] | None = {} if cacheable else None

    def __getstate__(self) -> dict[str, Any]:
        """Lets another process make batches; it opens the shards itself."""
        return {**self.__dict__, "_reader": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ = state
        self._reader = ImageReader(self.data.root)

    def __getitem__(self, index: int) -> Batch:
        """Returns this process's part of the batch of step `index`.

        Raises:
            InputError: neither an image nor dozens of its replacements can be read.
        """
        positions = np.arange(index * self.batch_size, (index + 1) * self.batch_size)[self.share]
        rows = self.order.rows(positions)
        side, unreadable = self.transform.size, 0
        pixels = np.empty((len(rows), side, side, 3), dtype=np.uint8)
        draws = self._draws(positions)
        for place, decoded in enumerate(self._pixels(rows, draws[:, _VERSION])):
            if decoded is None:
                at = int(positions[place])
                rows[place], decoded = self._stand_in(at, draws[place : place + 1, _VERSION])
                unreadable += 1
            pixels[place] = decoded
        return self._batch(index, positions, rows, draws, pixels, unreadable)

    def _draws(self, positions: Int[np.ndarray, " n"]) -> Float[np.ndarray, "n draws"]:
        key = random_key(self.order.seed, Purpose.CHANGES)
        return uniform(positions, columns=NUM_DRAWS + 3, key=key)

    def _batch(
        self,
        step: int,
        positions: np.ndarray,
        rows: np.ndarray,
        draws: np.ndarray,
        pixels: np.ndarray,
        unreadable: int,
    ) -> Batch:
        targets = self._targets(rows, draws[:, NUM_DRAWS])
        epochs = positions // self.order.total
        tokens, taught = {}, []
        operations = operation_draws(positions, num_ops=self.rand_ops, seed=self.order.seed)
        changes = np.concatenate([draws[:, :NUM_DRAWS], operations], axis=1)
        keys = np.full((len(rows), 2), -1, dtype=np.int64)
        if self.texts is not None and self.tokenize is not None:
            kinds = self.texts.kinds(draws[:, NUM_DRAWS + 1])
            written = self.texts.choose(rows, self._synthetic_draws(positions))
            drawn = self.texts.texts(kinds, rows, targets[:, 0], written)
            tokens, keys = self.tokenize(drawn), meaning_keys(targets[:, 0], drawn)
            for teacher in self.teachers:
                number = teacher.choose(draws[:, _VERSION], epochs)
                if isinstance(teacher, Teacher):
                    changes = teacher.draws(rows, number)
                vectors = teacher.vectors(rows, number, kinds, targets[:, 0], written)
                taught.append(vectors)
        return Batch(
            step=step,
            rows=torch.from_numpy(rows),
            epochs=torch.from_numpy(epochs),
            draws=torch.from_numpy(changes.astype(np.float32)),
            pixels=torch.from_numpy(pixels),
            targets=torch.from_numpy(targets),
            tokens=tokens,
            keys=torch.from_numpy(keys),
            teachers=tuple((torch.from_numpy(one), torch.from_numpy(two)) for one, two in taught),
            num_unreadable=unreadable,
        )

    def _synthetic_draws(self, positions: np.ndarray) -> np.ndarray:
        key = random_key(self.order.seed, Purpose.SYNTHETIC)
        return uniform(positions, columns=1, key=key)[:, 0]

    def _targets(self, rows: np.ndarray, draws: np.ndarray) -> np.ndarray:
        """Returns the images' classes, the chosen one of this step first."""
        targets = self.data.targets(rows)
        if self.draw_entity:
            column = (draws * (targets >= 0).sum(1)).astype(np.int64)
            each = np.arange(len(rows))
            best, meant = targets[:, 0].copy(), targets[each, column]
            targets[each, column], targets[:, 0] = best, meant
        return targets

    def _stand_in(self, position: int, version: Float[np.ndarray, " 1"]) -> tuple[int, np.ndarray]:
        """Returns (row, pixels) of the image that replaces an unreadable one.

        It depends only on the position and its draw of a version, so it is the same for any number
        of processes.
        """
        for attempt in range(1, _MOST_STAND_INS + 1):
            rows = self.order.rows(np.array([position + attempt * 7_919]))
            (pixels,) = self._pixels(rows, version)
            if pixels is not None:
                return int(rows[0]), pixels
        raise InputError(
            f"Hardly any image can be read from {str(self.data.root)!r}: {_MOST_STAND_INS + 1} "
            "in a row could not; are the shards still there?"
        )

    def _pixels(
        self, rows: Int[np.ndarray, " n"], versions: Float[np.ndarray, " n"]
    ) -> Iterator[np.ndarray | None]:
        """Yields decoded images, or None where one cannot be read, here or by a teacher.

        Args:
            rows: the images.
            versions: draws of a stored version; only an imported teacher has such.
        """
        places = self.data.records(rows, PLACE).to_pylist()
        taught = np.all([np.ones(len(rows), bool), *(t.saw(rows) for t in self.teachers)], axis=0)
        for row, place, is_taught, draw in zip(
            rows.tolist(), places, taught, versions, strict=True
        ):
            if not is_taught:
                yield None
                continue
            if self._imported is not None:
                yield self._replayed(self._imported, row, place, draw)
                continue
            if self._cache is not None and row in self._cache:
                yield self._cache[row]
                continue
            decoded = decode(self._reader.read, place, self.transform)
            pixels = None if isinstance(decoded, Refused) else decoded[0]
            if self._cache is not None and pixels is not None:
                self._cache[row] = pixels
            yield pixels

    def _replayed(
        self, teacher: ImportedTeacher, row: int, place: dict[str, Any], draw: float
    ) -> np.ndarray | None:
        """Returns an image in the version that a draw selects."""
        encoded = fetch(self._reader.read, place)
        if isinstance(encoded, Refused):
            return None
        [number] = teacher.choose(np.array([draw]), np.zeros(1, np.int64))
        version = teacher.version(row, int(number))
        pixels = replay(encoded, version, side=self.transform.size)
        return None if isinstance(pixels, Refused) else pixels


class Loader:
    """Makes the batches of steps first, first + 1, ... ahead of their use."""

    def __init__(self, maker: BatchMaker, *, threads: int, workers: int = 0, pin: bool = False):
        """Stores the settings, without starting anything.

        Args:
            maker: makes the batches.
            threads: number of threads that make batches in this process, without workers.
            workers: number of processes that make batches.
            pin: whether to put batches into pinned memory, for a GPU.
        """
        self.maker, self.threads, self.workers, self.pin = maker, threads, workers, pin

    def batches(self, first: int, last: int) -> Generator[Batch, None, None]:
        """Yields the batches of steps first .. last - 1."""
        if self.workers:
            yield from self._from_processes(range(first, last))
        else:
            yield from self._from_threads(range(first, last))

    def _from_processes(self, steps: range) -> Iterator[Batch]:
        batches = iter(self._data_loader(steps))
        try:
            for batch in batches:
                if isinstance(batch, OpenMOFIError):
                    raise batch
                yield batch
        finally:
            # Immediately, because they ignore the signals that would end them with this process.
            batches._shutdown_workers()  # pyrefly: ignore[missing-attribute]

    def _data_loader(self, steps: range) -> DataLoader:
        return DataLoader(
            _Answers(self.maker),
            batch_size=None,
            sampler=steps,
            num_workers=self.workers,
            prefetch_factor=_PREFETCH,
            collate_fn=_as_it_is,  # pyrefly: ignore[bad-argument-type]
            pin_memory=self.pin,
            worker_init_fn=_leave_signals,
        )

    def _from_threads(self, steps: range) -> Iterator[Batch]:
        pool = ThreadPoolExecutor(max(self.threads, 1))
        try:
            ahead = max(_PREFETCH, self.threads + 1)
            pending: list[Future[Batch]] = [pool.submit(self._make, s) for s in steps[:ahead]]
            for number in range(len(steps)):
                future = pending.pop(0)
                if number + ahead < len(steps):
                    pending.append(pool.submit(self._make, steps[number + ahead]))
                yield future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _make(self, step: int) -> Batch:
        batch = self.maker[step]
        return batch.pin_memory() if self.pin else batch


class _Answers(Dataset):
    """Batches, or the user's mistakes as errors without another process's traceback."""

    def __init__(self, maker: BatchMaker):
        self.maker = maker

    def __getitem__(self, index: int) -> Batch | OpenMOFIError:
        try:
            return self.maker[index]
        except OpenMOFIError as error:
            return error


def _leave_signals(_worker: int) -> None:
    """Leaves it to the training process when to stop; Ctrl-C and Slurm signal all processes."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _as_it_is(batch: Batch) -> Batch:
    return batch
