"""Brings vectors that came with a dataset to a user's copy of its images: a job over their tars.

The tars of datacompdr.py hold no images, and these lie wherever img2dataset put them. A sample's
image is that with its uid, or else with its url. Where both sides tell the sha256 of the image as
it was downloaded, it must be the same, or the teachers saw another image under this address.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

import openmofi
from openmofi.config import ReinforceSettings, TrainSettings, override
from openmofi.embed import find_places
from openmofi.errors import InputError
from openmofi.label.encoder import Encoder
from openmofi.label.engine import absolute_model, find_job_rank, open_engine
from openmofi.pairs import find_shards
from openmofi.pairs.records import RecordReader
from openmofi.pairs.tar import scan_tar
from openmofi.refused import Refused
from openmofi.shards import JobWords, RunTotals, Shard, ShardResult, commits, freeze_plan, tick
from openmofi.train.data import PLACE, TrainData
from openmofi.train.datacompdr import ReinforcedSample, read_samples
from openmofi.train.imported_teacher import IMPORTED
from openmofi.train.shard_reinforcer import open_learnt
from openmofi.train.synthetic import CAPTIONS
from openmofi.train.teacher import IMAGES, STORE_VERSION

WORDS = JobWords("reinforce", "samples", "matched")
_RECORD = ("uid", "url", "sha256", "original_width", "original_height")


@dataclass(frozen=True)
class ImportJob:
    """Everything a worker process needs; small and picklable."""

    tars: Path
    """Folder of the tars."""
    data: str
    """A selection, or raw pairs."""
    out: Path
    recipe: TrainSettings
    augmentations: int
    """Versions of each image that are kept."""
    dim: int
    """Of all teachers together."""


@dataclass(frozen=True)
class Imported:
    """What was found."""

    images: int
    """Number of images of the data."""
    texts: int
    """Number of captions, own and synthetic, with vectors."""
    dim: int
    """Of all teachers together."""
    shards: RunTotals


def import_reinforced(
    tars: Path, *, data: Path | str, recipe: TrainSettings, out: Path, settings: ReinforceSettings
) -> Imported:
    """Stores the vectors of a reinforced dataset for the images that `train` uses.

    Args:
        tars: a tar of the dataset, or a folder of them.
        data: the student's training data: images of the dataset.
        recipe: the student's recipe; its seed and evaluation.holdout determine what it sees.
        out: directory to write.
        settings: where it works, and how many versions are kept.

    Raises:
        InputError: no sample belongs to an image, or there are fewer versions than asked for.
        MismatchError: the job was begun with other data or settings.
    """
    rank = find_job_rank(settings)
    recipe = override(recipe, {"loss": {"synthetic": None}})  # it comes with the tars
    found = find_shards(tars)
    if not isinstance(found.root, Path):
        raise InputError(f"The tars in {str(tars)!r} are read from disk only; copy them first.")
    first = _first_sample(found.root, found.shards)
    if first is None:
        raise InputError(
            f"{str(tars)!r} holds no sample of a reinforced dataset, which has files such as "
            "KEY.paug.json and KEY.npz; pass DataCompDR's tars, or a teacher."
        )
    if len(first.images) < settings.augmentations:
        raise InputError(
            f"{str(tars)!r} holds {len(first.images)} versions of each image, fewer than "
            f"--augmentations {settings.augmentations}; ask for at most so many."
        )
    place = absolute_model(str(data))
    images = open_learnt(place, out=out.absolute(), recipe=recipe)
    versions = {"augmentations": settings.augmentations}
    shards = [Shard(s.name, s.path, "tar", s.size, s.mtime_ns) for s in found.shards]
    run = versions | {
        IMPORTED: absolute_model(str(tars)),
        "data": images.fingerprint(),
        "images": len(images),
        "seed": hashlib.sha256(repr([(s.name, s.size) for s in shards]).encode()).hexdigest(),
        "version": openmofi.__version__,
        "store_version": STORE_VERSION,
    }
    freeze_plan(out, shards, run)
    dim = first.images.shape[1]
    job = ImportJob(found.root.absolute(), place, out.absolute(), recipe, **versions, dim=dim)
    held = {"model": None, "precision": "fp32"}
    with open_engine(partial(ShardImporter, job), settings, rank, **held) as engine:
        totals = engine.run(shards, out, WORDS)
    if not (totals.kept or totals.left or totals.failed):
        why = ", ".join(f"{reason} {count:,}" for reason, count in totals.errors.items())
        raise InputError(
            f"No image of {str(data)!r} is in {str(tars)!r} ({why}); they are found by the uid or "
            "the url in the shards' Parquet files or the images' .json, as img2dataset writes them."
        )
    return Imported(len(images), _num_texts(out), dim, totals)


def _first_sample(root: Path, shards: tuple[Shard, ...]) -> ReinforcedSample | None:
    tars = (root / shard.path for shard in shards if shard.kind == "tar")
    samples = (sample for tar in tars for sample in read_samples(tar, scan_tar(tar)))
    return next((sample for sample in samples if isinstance(sample, ReinforcedSample)), None)


def _num_texts(out: Path) -> int:
    total = 0
    for commit in commits(out):
        if CAPTIONS in commit.extra:
            lists = pq.read_table(out / commit.extra[CAPTIONS], columns=["synthetic"])["synthetic"]
            total += len(lists) + (pc.sum(pc.list_value_length(lists)).as_py() or 0)
    return total


class ShardImporter:
    """Reads tars; keeps where the images are between them."""

    def __init__(self, job: ImportJob, *, workers: int = 1, encoder: Encoder | None = None):
        assert encoder is None
        self.job = job
        images = open_learnt(job.data, out=job.out, recipe=job.recipe)
        self._rows = _known_images(images, job.data)
        self._by_uid, self._by_url = {}, {}
        for place, row in enumerate(self._rows):
            for name, by_name in (("uid", self._by_uid), ("url", self._by_url)):
                if row.get(name):
                    by_name.setdefault(str(row[name]), place)

    def __call__(self, shard: Shard) -> ShardResult:
        """Returns the vectors of a tar's samples that belong to an image.

        Raises:
            OSError: the tar has vanished.
        """
        found: dict[int, ReinforcedSample] = {}
        refused: Counter[str] = Counter()
        total = 0
        path = self.job.tars / shard.path
        members = scan_tar(path)
        for sample in read_samples(path, members):
            total += 1
            tick(1)
            place = sample if isinstance(sample, Refused) else self._place(sample)
            if isinstance(place, Refused):
                refused[place.reason] += 1
            elif place in found:
                refused["same_image"] += 1
            else:
                assert isinstance(sample, ReinforcedSample)
                found[place] = sample
        captions = pa.table(
            {
                "key": pa.array([self._rows[place]["key"] for place in found], pa.string()),
                "shard": pa.array([self._rows[place]["shard"] for place in found], pa.string()),
                "synthetic": pa.array([s.texts for s in found.values()], pa.list_(pa.string())),
            }
        )
        return ShardResult(
            self._table(found),
            dict(refused),
            damage=members.damage,
            extra={CAPTIONS: captions},
            kept=len(found),
            rows=total,
            folder=IMAGES,
            mapped=True,
        )

    def _place(self, sample: ReinforcedSample) -> int | Refused:
        """Returns the place of a sample's image in the data."""
        place = self._by_uid.get(sample.uid)
        if place is None:
            place = self._by_url.get(sample.url)
        if place is None:
            return Refused("not_in_data")
        if len(sample.images) < self.job.augmentations:
            return Refused("too_few_versions")
        if sample.images.shape[1] != self.job.dim:
            return Refused("other_width")
        known = str(self._rows[place].get("sha256") or "")
        if known and sample.sha256 and known.lower() != sample.sha256.lower():
            return Refused("other_image")
        return place

    def _table(self, found: dict[int, ReinforcedSample]) -> pa.Table:
        samples, kept = list(found.values()), self.job.augmentations
        if not samples:
            return pa.table({"row": pa.array([], pa.int64())})
        most_texts = max(1, *(len(s.texts) for s in samples))
        most_ops = max(s.operations.shape[1] for s in samples)
        sizes = [
            [r.get("original_width") or 0, r.get("original_height") or 0]
            for r in (self._rows[place] for place in found)
        ]
        return _flat_table(
            {
                "row": np.array(list(found))[:, None],
                "image": np.array([s.images[:kept] for s in samples], np.float16),
                "caption": np.array([s.caption for s in samples], np.float16),
                "synthetic": np.array(
                    [_padded(_texts_or_own(s), most_texts) for s in samples], np.float16
                ),
                "boxes": np.array([s.boxes[:kept] for s in samples], np.int32),
                "operations": np.array(
                    [_padded(s.operations[:kept].T, most_ops).T for s in samples], np.int8
                ),
                "magnitudes": np.array(
                    [_padded(s.magnitudes[:kept].T, most_ops).T for s in samples], np.float32
                ),
                "size": np.array(sizes, np.int32),
            }
        )


def _texts_or_own(sample: ReinforcedSample) -> np.ndarray:
    """Returns the vectors of the texts that stand for an image's synthetic captions."""
    return sample.synthetic if sample.texts else sample.caption[None]


def _padded(values: np.ndarray, rows: int) -> np.ndarray:
    return np.pad(values, ((0, rows - len(values)), (0, 0)))


def _flat_table(columns: dict[str, np.ndarray]) -> pa.Table:
    """Returns arrays [rows, ...] as a table of lists of fixed length."""
    arrays = {}
    for name, values in columns.items():
        flat = values.reshape(len(values), -1)
        arrays[name] = pa.FixedSizeListArray.from_arrays(pa.array(flat.ravel()), flat.shape[1])
    return pa.table(arrays)


def _known_images(images: TrainData, data: str) -> list[dict[str, Any]]:
    """Returns of each image its key and shard, and what _RECORD names as far as it is known."""
    places = find_places(data).table
    order = pa.array(_rows_of(images, places))
    table = places.select(["key", "shard", "path", "url"]).take(order)
    reader = RecordReader(images.root, _RECORD)
    by_shard = np.argsort(np.asarray(table["shard"].to_pylist(), object), kind="stable")
    found: list[dict[str, Any]] = [{}] * len(table)
    for place, row in zip(by_shard.tolist(), _rows(table, by_shard), strict=True):
        found[place] = row | reader(row)
    return found


def _rows(table: pa.Table, order: np.ndarray) -> Iterator[dict[str, Any]]:
    for batch in table.take(pa.array(order)).to_batches():
        yield from batch.to_pylist()


def _rows_of(images: TrainData, places: pa.Table) -> list[int]:
    """Returns the row of `places` of every image."""
    identity = ("shard", "path", "offset")
    columns = (places[name].to_pylist() for name in identity)
    known = {place: row for row, place in enumerate(zip(*columns, strict=True))}
    own = images.records(np.arange(len(images)), PLACE)
    columns = (own[name].to_pylist() for name in identity)
    return [known[place] for place in zip(*columns, strict=True)]
