"""The labelling job: pairs + knowledge base + encoder -> i2e/, one row per image.

Every candidate that was considered stays in the table with every term of its score; `select`
decides later, in seconds, what to keep.
"""

from __future__ import annotations

import warnings
from collections import Counter
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

import openmofi
from openmofi.config import LabelSettings, LinkSettings, as_dict
from openmofi.errors import InputError
from openmofi.kb import KnowledgeBase
from openmofi.label.score import Background, joint_score, load_weights
from openmofi.link import Linker, WordEncoder
from openmofi.model import MofiModel, load_model
from openmofi.model.transform import decode_picture
from openmofi.pairs import ImageReader, Input, read_pairs, read_shard
from openmofi.pairs.read import ShardPairs
from openmofi.progress import progress
from openmofi.schema import LABELS
from openmofi.shards import RunTotals, Shard, ShardResult, freeze_plan, run_shards

BACKGROUND_FILE = "background.npz"
_DECODE_ERRORS = (OSError, ValueError, SyntaxError)


@dataclass(frozen=True)
class Job:
    """Everything a worker process needs to label a shard; small and picklable."""

    root: Path
    kb: Path
    model: str
    out: Path
    settings: LabelSettings


def label(
    source: Path | str,
    *,
    kb: Path | str,
    model: str,
    out: Path | str,
    settings: LabelSettings | None = None,
) -> RunTotals:
    """Labels every pair of the input with scored candidate entities.

    Args:
        source: tars, Parquet files, a folder or a listing (see `pairs.read_pairs`).
        kb: output of `kb.build_kb`.
        model: hub id or directory of any dual encoder.
        out: the i2e directory; the same call again continues an interrupted job.
        settings: see `config.LabelSettings`.

    Raises:
        InputError: something is missing or unreadable as a whole.
        MismatchError: `out` was begun with other inputs or settings.
    """
    settings = settings or LabelSettings()
    found = read_pairs(source)
    job = Job(found.root, Path(kb), model, Path(out), settings)
    knowledge = KnowledgeBase.open(job.kb)
    freeze_plan(job.out, found.shards, _run_description(job, knowledge))
    if not (job.out / BACKGROUND_FILE).is_file():
        _write_background(job, found)
    ranked = settings.engine == "rank"
    return run_shards(
        partial(ShardLabeller, job),
        found.shards,
        out=job.out,
        workers=settings.workers,
        rank=settings.rank if ranked else 0,
        world_size=settings.world_size if ranked else 1,
    )


def _run_description(job: Job, knowledge: KnowledgeBase) -> dict[str, Any]:
    """Returns what the labels depend on; two runs with the same one may share a directory."""
    placement = ("workers", "engine", "rank", "world_size", "device")
    settings = {k: v for k, v in as_dict(job.settings).items() if k not in placement}
    return {
        "input": str(job.root.resolve()),
        "kb": knowledge.fingerprint,
        "kb_path": str(job.kb.resolve()),
        "model": job.model,
        "settings": settings,
        "weights": asdict(load_weights()),
        "version": openmofi.__version__,
    }


class ShardLabeller:
    """Labels shards; holds the encoder, the linker and the entities' texts between them."""

    def __init__(self, job: Job):
        self.job, self.settings = job, job.settings
        self.kb = KnowledgeBase.open(job.kb)
        self.model = load_model(job.model, device=job.settings.device)
        encoder = WordEncoder(self.kb) if job.settings.context == "words" else self.model
        self.linker = Linker(self.kb, encoder=encoder, settings=LinkSettings())
        self.weights = load_weights()
        self.reader = ImageReader(job.root)
        self._vectors: dict[str, np.ndarray] = {}
        self._moments: dict[str, np.ndarray] = {}
        self._background: Background | None = None

    def __call__(self, shard: Shard) -> ShardResult:
        """Returns one row per pair of the shard, in input order.

        Raises:
            OSError: the shard vanished.
        """
        pairs = read_shard(self.job.root, shard)
        rows = pairs.table.to_pylist()
        usable = [i for i, row in enumerate(rows) if row["status"] == "ok"]
        candidates = self.linker.link([rows[i]["caption"] for i in usable], all_candidates=True)
        images = self._encode(rows, usable)
        scored = self._score(candidates, images.vectors[usable], images.readable[usable])
        return self._result(pairs, rows, usable, scored, images)

    def _encode(self, rows: list[dict], usable: list[int]) -> EncodedImages:
        """Encodes the usable pictures; marks the rows whose picture cannot be read."""
        encoded = EncodedImages.empty(len(rows), self.model.dim)
        for start in range(0, len(usable), self.settings.batch_size):
            batch = usable[start : start + self.settings.batch_size]
            good, pixels = [], []
            for i in batch:
                decoded = _decode(self.reader, rows[i], self.model)
                if isinstance(decoded, str):
                    rows[i] |= {"status": "error", "error": decoded}
                    continue
                image, encoded.sizes[i] = decoded
                good.append(i)
                pixels.append(image)
            if good:
                encoded.vectors[good] = self.model.encode_pixels(np.stack(pixels))
                encoded.readable[good] = True
        return encoded

    def _score(
        self, candidates: pa.Table, images: np.ndarray, readable: np.ndarray
    ) -> list[list[dict]]:
        """Returns the scored candidates of each usable row."""
        self._learn_entities(pc.unique(candidates["id"]).to_pylist())
        row = candidates["row"].to_numpy()
        ids = candidates["id"].to_pylist()
        scored: list[list[dict]] = [[] for _ in range(len(images))]
        if not ids:
            return scored
        texts = np.stack([self._vectors[entity] for entity in ids])
        moments = np.stack([self._moments[entity] for entity in ids])
        clip = (images[row] * texts).sum(1)
        clip_z = (clip - moments[:, 0]) / moments[:, 1]
        other = _another_row(len(images))
        clip_other = (images[other[row]] * texts).sum(1)
        clip_z_other = (clip_other - moments[:, 0]) / moments[:, 1]
        context = np.nan_to_num(candidates["context"].to_numpy(zero_copy_only=False))
        start = candidates["start"].to_numpy()
        boundary = (row[1:] != row[:-1]) | (start[1:] != start[:-1])
        mention = np.r_[0, np.cumsum(boundary)]
        log_prior = np.log(np.maximum(candidates["prior"].to_numpy(), 1e-9))
        score = joint_score(log_prior, context, clip_z, mention, self.weights)
        columns = {
            **{n: candidates[n].to_pylist() for n in ("start", "end", "surface", "prior")},
            "context": context.tolist(),
            "clip": clip.tolist(),
            "clip_z": clip_z.tolist(),
            "clip_z_other": clip_z_other.tolist(),
            "text_score": candidates["score"].to_pylist(),
            "score": score.tolist(),
        }
        for i, entity in enumerate(ids):
            if readable[row[i]]:
                terms = {name: values[i] for name, values in columns.items()}
                scored[row[i]].append({"id": entity, **terms})
        return scored

    def _learn_entities(self, ids: list[str]) -> None:
        """Encodes the texts of entities not met before, and their background."""
        new = [entity for entity in ids if entity not in self._vectors]
        if not new:
            return
        texts = self.kb.entity_text(self.kb.rows_of(new))
        vectors = self.model.encode_texts(texts)
        self._vectors.update(zip(new, vectors, strict=True))
        if self._background is None:
            self._background = _read_background(self.job.out)
        moments = self._background.moments(vectors, new)
        self._moments.update(zip(new, moments, strict=True))

    def _result(
        self,
        pairs: ShardPairs,
        rows: list[dict],
        usable: list[int],
        scored: list[list[dict]],
        images: EncodedImages,
    ) -> ShardResult:
        entities: list[list[dict]] = [[] for _ in rows]
        for i, found in zip(usable, scored, strict=True):
            entities[i] = found
        for row, found, (width, height) in zip(rows, entities, images.sizes, strict=True):
            row |= {"width": width, "height": height, "entities": found}
            row |= {"text_area": None, "text_boxes": None}
        errors = Counter(row["error"] for row in rows if row["status"] == "error")
        extra = {}
        if self.settings.keep_embeddings:
            extra["embeddings"] = _embedding_table(rows, images)
        table = pa.Table.from_pylist(rows, schema=LABELS)
        return ShardResult(table, dict(errors), pairs.damage, extra)


@dataclass(frozen=True)
class EncodedImages:
    """Vectors of a shard's pictures; zero where a picture could not be read."""

    vectors: np.ndarray
    readable: np.ndarray
    sizes: list[tuple[int | None, int | None]]

    @staticmethod
    def empty(count: int, dim: int) -> EncodedImages:
        """Returns room for `count` pictures."""
        return EncodedImages(
            np.zeros((count, dim), dtype=np.float32),
            np.zeros(count, dtype=bool),
            [(None, None)] * count,
        )


def _decode(
    reader: ImageReader, row: dict, model: MofiModel
) -> tuple[np.ndarray, tuple[int, int]] | str:
    """Returns (pixels at the encoder's size, the picture's own size), or the reason why not."""
    try:
        data = reader.read(row)
    except OSError:
        return "image_missing"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image, size = decode_picture(data, model.transform.size)
            return model.transform.fit(image), size
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        return "image_too_large"
    except _DECODE_ERRORS:
        return "corrupt_image"


def _another_row(count: int) -> np.ndarray:
    """Returns for each row another one: a picture that belongs to another caption."""
    shift = max(count // 2, 1)
    return (np.arange(count) + shift) % max(count, 1)


def _embedding_table(rows: list[dict], images: EncodedImages) -> pa.Table:
    dim = images.vectors.shape[1]
    halves = pa.array(images.vectors.astype(np.float16).ravel())
    vectors = pa.FixedSizeListArray.from_arrays(halves, dim)
    return pa.table({"key": [row["key"] for row in rows], "vector": vectors})


def _write_background(job: Job, found: Input) -> None:
    """Encodes a fixed sample of pictures from shards spread over the input."""
    labeller = ShardLabeller(job)
    wanted = job.settings.background
    count = min(len(found.shards), max(4, wanted // 64))
    picks = np.unique(np.linspace(0, len(found.shards) - 1, count).astype(int))
    vectors, offered = [], []
    with progress("background", total=len(picks), unit="shards") as bar:
        for pick in picks:
            share = -(-wanted // len(picks))
            part, names = _background_part(labeller, found.shards[pick], share)
            vectors.append(part)
            offered += names
            bar.advance()
    images = np.concatenate(vectors) if vectors else np.zeros((0, labeller.model.dim))
    if not len(images):
        raise InputError(
            f"No picture of {str(found.root)!r} can be read; expected at least a few to score."
        )
    file = job.out / BACKGROUND_FILE
    temporary = job.out / f".{BACKGROUND_FILE}"
    np.savez(temporary, images=images, offered=np.array(["\n".join(ids) for ids in offered]))
    temporary.replace(file)


def _background_part(
    labeller: ShardLabeller, shard: Shard, wanted: int
) -> tuple[np.ndarray, list[list[str]]]:
    try:
        table = read_shard(labeller.job.root, shard).table
    except (OSError, InputError):  # the shard's own commit will say so
        return np.zeros((0, labeller.model.dim), np.float32), []
    rows = table.to_pylist()
    usable = [i for i, row in enumerate(rows) if row["status"] == "ok"]
    usable = usable[:: max(len(usable) // max(wanted, 1), 1)][:wanted]
    encoded = labeller._encode(rows, usable)
    usable = [i for i in usable if encoded.readable[i]]
    captions = [rows[i]["caption"] for i in usable]
    candidates = labeller.linker.link(captions, all_candidates=True)
    offered: list[list[str]] = [[] for _ in usable]
    pairs = zip(candidates["row"].to_pylist(), candidates["id"].to_pylist(), strict=True)
    for row, entity in pairs:
        offered[row].append(entity)
    return encoded.vectors[usable], offered


def _read_background(out: Path) -> Background:
    with np.load(out / BACKGROUND_FILE) as stored:
        offered = tuple(frozenset(text.split("\n")) for text in stored["offered"].tolist())
        return Background(stored["images"].astype(np.float32), offered)
