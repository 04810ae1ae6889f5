"""One shard of a teacher's job -> its vectors: of images with their captions, or of entities."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from openmofi.config import ReinforceSettings, TrainSettings
from openmofi.embed.encode import (
    computing_in_one_thread,
    encode_rows,
    load_job_encoder,
    missing_images,
    place_reader,
)
from openmofi.errors import InputError, MismatchError
from openmofi.label.encoder import Encoder
from openmofi.pairs import ImageReader
from openmofi.shards import Shard, ShardResult, tick
from openmofi.train.augment import augment
from openmofi.train.data import PLACE, TrainData, open_train_data, with_synthetic
from openmofi.train.teacher import ENTITIES, IMAGES, teacher_draws, what_was_seen
from openmofi.train.texts import entity_texts

PAIRS = "pairs"
"""Folder in which raw pairs are mapped."""
REFUSED = "refused"
"""Folder of the tables of images that could not be read."""
_LEAST, _MOST_SHARDS = 1024, 10_000
_TEXTS = 256
"""Texts of a batch."""


def teacher_shards(images: int, entities: int) -> list[Shard]:
    """Returns the shards of a job: at most 10,000 of images, each of 1,024 or a multiple of it."""
    shards = []
    for kind, total in ((IMAGES, images), (ENTITIES, entities)):
        each = _LEAST * -(-total // (_LEAST * _MOST_SHARDS))
        for number, start in enumerate(range(0, total, max(each, 1))):
            stop = min(start + each, total)
            shards.append(Shard(f"{kind}-{number:05d}", "", kind, 0, 0, start, stop))
    return shards


@dataclass(frozen=True)
class TeacherJob:
    """Everything a worker process needs; small and picklable."""

    data: str
    """A selection, or raw pairs."""
    out: Path
    model: str
    recipe: TrainSettings
    key: int
    """Seed of the augmentations."""
    settings: ReinforceSettings
    seen: dict[str, Any]
    """What `what_was_seen` says of the data when the job begins."""

    def open(self) -> TrainData:
        """Returns the images that a student learns from.

        Raises:
            MismatchError: they are not those with which the job began.
        """
        images = open_learnt(self.data, out=self.out, recipe=self.recipe)
        if what_was_seen(images, self.recipe.augment) != self.seen:
            raise MismatchError(
                f"{self.data!r} has changed while its vectors were stored in {str(self.out)!r}; "
                "bring it back as it was and repeat the command, or choose another --out."
            )
        return images


def open_learnt(data: Path | str, *, out: Path, recipe: TrainSettings) -> TrainData:
    """Returns the images of data that a recipe's student learns from, mapped if there are many."""
    opened = open_train_data(data, mapped_in=out / PAIRS)
    opened = with_synthetic(opened, recipe.loss.synthetic, source=data)
    return opened.split(recipe.evaluation, seed=recipe.seed).learnt


class ShardReinforcer:
    """Encodes shards; keeps the encoder between them."""

    def __init__(self, job: TeacherJob, *, workers: int = 1, encoder: Encoder | None = None):
        self.job, self._workers, self._images = job, workers, job.open()
        how = {"device": job.settings.device, "precision": job.recipe.precision}
        self.encoder = encoder or load_job_encoder(job.model, workers=workers, **how)
        self._device = getattr(self.encoder, "device", torch.device("cpu"))

    def __call__(self, shard: Shard) -> ShardResult:
        """Returns the vectors of a shard of `teacher_shards`.

        Raises:
            InputError: the encoder gives none.
        """
        assert shard.stop is not None
        rows = np.arange(shard.start, shard.stop)
        if shard.kind == IMAGES:
            return self._of_images(rows)
        assert self._images.vocabulary is not None
        names, texts = entity_texts(self._images.vocabulary.slice(rows[0], len(rows)))
        columns = {"name": self._of_texts(names), "description": self._of_texts(texts)}
        return ShardResult(_table(columns), folder=ENTITIES, mapped=True, rows=0)

    def _of_images(self, rows: np.ndarray) -> ShardResult:
        captions = self._images.records(rows, ["caption"])["caption"].to_pylist()
        vectors, refused = self._of_versions(rows)
        columns = {"image": vectors, "caption": self._of_texts(captions)}
        if self._images.synthetic is not None:
            columns["synthetic"] = self._of_synthetic(rows)
        reasons = Counter(refused.values())
        return ShardResult(
            _table(columns),
            dict(reasons),
            damage=missing_images(reasons),
            extra={REFUSED: self._refused(rows, refused)} if refused else {},
            kept=len(rows) - len(refused),
            folder=IMAGES,
            mapped=True,
            looked=len(rows),
        )

    def _of_versions(self, rows: np.ndarray) -> tuple[np.ndarray, dict[int, str]]:
        """Returns (vectors of K versions of each image, zero where it cannot be read; why not)."""
        versions = self.job.settings.augmentations
        vectors = np.zeros((len(rows), versions, self.encoder.dim), np.float16)
        refused: dict[int, str] = {}

        def encode(pixels: np.ndarray, places: list[int]) -> np.ndarray:
            seen = self._versions(pixels, rows[places])
            return np.stack([self.encoder.encode_pixels(version) for version in seen], axis=1)

        with closing(ImageReader(self._images.root)) as reader:
            read = place_reader(reader, self._images.records(rows, PLACE))
            sizes = {"batch_size": self.job.settings.batch_size, "workers": self._workers}
            places = range(len(rows))
            for batch in encode_rows(self.encoder, places, read, encode_pixels=encode, **sizes):
                if batch.rows:
                    vectors[batch.rows] = self._finite(batch.vectors)
                refused |= batch.refused
                tick(len(batch.rows) + len(batch.refused))
        return vectors, refused

    def _versions(self, pixels: np.ndarray, rows: np.ndarray) -> Iterator[np.ndarray]:
        """Yields the augmented pixels of images, version by version."""
        batch, versions = torch.from_numpy(pixels).to(self._device), self.job.settings.augmentations
        augmented = range(versions)
        if self.job.recipe.augment.when == "repeats":
            yield pixels
            augmented = augmented[1:]
        for number in augmented:
            numbers = np.full_like(rows, number)
            draws = teacher_draws(
                rows,
                numbers,
                augmentations=versions,
                seed=self.job.key,
                rand_ops=self.job.recipe.augment.rand_ops,
            )
            on_device = torch.from_numpy(draws.astype(np.float32)).to(self._device)
            yield augment(batch, self.job.recipe.augment, on_device).cpu().numpy()

    def _of_texts(self, texts: list[str]) -> np.ndarray:
        """Returns vectors of texts, each batch computed in one thread, as those of images are."""
        batches = [texts[start : start + _TEXTS] for start in range(0, len(texts), _TEXTS)]
        encode = self.encoder.encode_texts
        with computing_in_one_thread() as threads:
            found = [encode(batches[0])]  # which sets up the tokenizer that threads share
            if threads > 1 and self._device.type == "cpu":
                with ThreadPoolExecutor(threads) as pool:
                    found += pool.map(encode, batches[1:])
            else:
                found += map(encode, batches[1:])
        return self._finite(np.concatenate(found)).astype(np.float16)

    def _of_synthetic(self, rows: np.ndarray) -> np.ndarray:
        """Returns vectors [images, most captions, dim]; zero where an image has fewer."""
        assert self._images.synthetic is not None
        lists = self._images.synthetic_texts(rows)
        most = self._images.synthetic.most
        vectors = np.zeros((len(rows), most, self.encoder.dim), np.float16)
        counts = np.array([len(texts) for texts in lists])
        vectors[np.arange(most) < counts[:, None]] = self._of_texts(list(chain(*lists)))
        return vectors

    def _finite(self, vectors: np.ndarray) -> np.ndarray:
        if not np.isfinite(vectors).all():
            raise InputError(
                f"The teacher {self.job.model!r} gives vectors that are not finite; try "
                "--set precision=fp32, or another teacher."
            )
        return vectors

    def _refused(self, rows: np.ndarray, refused: dict[int, str]) -> pa.Table:
        lost = rows[list(refused)]
        table = self._images.records(lost, PLACE).add_column(0, "image", pa.array(lost))
        return table.append_column("reason", pa.array(list(refused.values()), pa.string()))


def _table(columns: dict[str, np.ndarray]) -> pa.Table:
    """Returns columns of vectors; those of several versions of an image follow each other."""
    arrays = {}
    for name, vectors in columns.items():
        width = int(np.prod(vectors.shape[1:]))
        flat = pa.array(vectors.astype(np.float16).ravel())
        arrays[name] = pa.FixedSizeListArray.from_arrays(flat, width)
    return pa.table(arrays)
