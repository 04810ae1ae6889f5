"""The labelling job: pairs + knowledge base + encoder -> i2e/, one row per image.

Every candidate that was considered stays in the table with every term of its score; `select`
decides later, in seconds, what to keep.
"""

from __future__ import annotations

import hashlib
import uuid
import zlib
from collections import Counter
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

import openmofi
from openmofi.config import LabelSettings, LinkSettings, as_dict
from openmofi.errors import InputError
from openmofi.kb import KnowledgeBase
from openmofi.label.entities import EntityTexts
from openmofi.label.score import Background, joint_score, load_weights
from openmofi.link import Linker, WordEncoder
from openmofi.model import load_model
from openmofi.pairs import ImageReader, Input, read_pairs, read_shard
from openmofi.pairs.read import ShardPairs
from openmofi.pictures import decode
from openmofi.progress import progress
from openmofi.schema import LABELS
from openmofi.shards import RunTotals, Shard, ShardResult, freeze_plan, run_shards

BACKGROUND_FILE = "background.npz"


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
    model: str | Path,
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
    _check_place(Path(out), Path(source), found)
    job = Job(found.root, Path(kb), str(model), Path(out), settings)
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


def _check_place(out: Path, source: Path, found: Input) -> None:
    """Refuses a place inside the input where the tables written would be read as input later."""
    tars = all(shard.kind == "tar" for shard in found.shards)
    if source.is_dir() and not tars and out.resolve().is_relative_to(source.resolve()):
        raise InputError(
            f"--out {str(out)!r} lies inside the input {str(source)!r}, where its tables would "
            "be taken for shards the next time; choose a folder beside it."
        )


def _run_description(job: Job, knowledge: KnowledgeBase) -> dict[str, Any]:
    """Returns what the labels depend on; two runs with the same one may share a directory."""
    placement = ("workers", "engine", "rank", "world_size", "device", "batch_size", "weights")
    settings = {k: v for k, v in as_dict(job.settings).items() if k not in placement}
    return {
        "input": str(job.root.resolve()),
        "kb": knowledge.fingerprint,
        "kb_path": str(job.kb.resolve()),
        "model": job.model,
        "model_sha256": _digest(Path(job.model)),
        "settings": settings,
        "weights": asdict(load_weights(job.settings.weights)),
        "version": openmofi.__version__,
    }


def _digest(model: Path) -> str:
    """Returns a hash of a local model's configuration and weights; "" for one from the hub."""
    digest = hashlib.sha256()
    if not model.is_dir():
        return ""
    for path in sorted(model.iterdir()):
        if path.is_file() and path.suffix in (".json", ".safetensors", ".bin", ".txt"):
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


class ShardLabeller:
    """Labels shards; holds the encoder, the linker and the entities' texts between them."""

    def __init__(self, job: Job):
        self.job, self.settings = job, job.settings
        self.kb = KnowledgeBase.open(job.kb)
        self.model = load_model(job.model, device=job.settings.device)
        self.linker = self._make_linker()
        self.weights = load_weights(job.settings.weights)
        self.reader = ImageReader(job.root)
        self.entities = EntityTexts(self.kb, self.model, partial(_read_background, job.out))

    def _make_linker(self) -> Linker:
        encoder = WordEncoder(self.kb) if self.settings.context == "words" else self.model
        return Linker(self.kb, encoder=encoder, settings=LinkSettings())

    def __call__(self, shard: Shard) -> ShardResult:
        """Returns one row per pair of the shard, in input order.

        Raises:
            OSError: the shard vanished.
        """
        pairs = read_shard(self.job.root, shard)
        rows = pairs.table.to_pylist()
        usable = [i for i, row in enumerate(rows) if row["status"] == "ok"]
        if self.settings.context == "model":
            self.linker = self._make_linker()  # one that remembers gives other last bits
        candidates = self.linker.link([rows[i]["caption"] for i in usable], all_candidates=True)
        images = self._encode(rows, usable)
        vectors, readable = images.vectors[usable], images.readable[usable]
        scored = self._score(candidates, vectors, readable, *self._others(vectors, readable, shard))
        return self._result(pairs, rows, usable, scored, images)

    def _encode(self, rows: list[dict], usable: list[int]) -> EncodedImages:
        """Encodes the usable pictures; marks the rows whose picture cannot be read."""
        encoded = EncodedImages.empty(len(rows), self.model.dim)
        for start in range(0, len(usable), self.settings.batch_size):
            batch = usable[start : start + self.settings.batch_size]
            good, pixels = [], []
            for i in batch:
                decoded = decode(self.reader, rows[i], self.model.transform)
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

    def _others(
        self, images: np.ndarray, readable: np.ndarray, shard: Shard
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns for each row a picture of another caption: (its vector, its row or -1)."""
        rows = np.flatnonzero(readable)
        partner = np.full(len(images), -1)
        if len(rows) > 1:
            partner[rows] = np.roll(rows, len(rows) // 2)
            return np.where(partner[:, None] >= 0, images[partner], 0), partner
        background = _read_background(self.job.out).images
        pick = zlib.crc32(shard.name.encode()) % len(background)
        return np.repeat(background[pick : pick + 1], len(images), axis=0), partner

    def _score(
        self,
        candidates: pa.Table,
        images: np.ndarray,
        readable: np.ndarray,
        others: np.ndarray,
        partner: np.ndarray,
    ) -> list[list[dict]]:
        """Returns the scored candidates of each usable row."""
        row = candidates["row"].to_numpy()
        ids = candidates["id"].to_pylist()
        scored: list[list[dict]] = [[] for _ in range(len(images))]
        if not ids:
            return scored
        entity, entity_of = np.unique(self.kb.rows_of(ids), return_inverse=True)
        texts, moments = (part[entity_of] for part in self.entities.of(entity))
        start = candidates["start"].to_numpy()
        boundary = (row[1:] != row[:-1]) | (start[1:] != start[:-1])
        mention = np.r_[0, np.cumsum(boundary)]
        clip = (images[row] * texts).sum(1)
        clip_z = (clip - moments[:, 0]) / moments[:, 1]
        clip_other = (others[row] * texts).sum(1)
        clip_z_other = (clip_other - moments[:, 0]) / moments[:, 1]
        clip_z_other[_offered_too(row, ids, mention, partner)] = np.nan
        context = np.nan_to_num(candidates["context"].to_numpy(zero_copy_only=False))
        log_prior = np.log(np.maximum(candidates["prior"].to_numpy(), 1e-9))
        score = joint_score(log_prior, context, clip_z, mention, self.weights)
        columns = {
            **{n: candidates[n].to_pylist() for n in ("start", "end", "surface", "prior")},
            "context": context.tolist(),
            "clip": clip.tolist(),
            "clip_z": clip_z.tolist(),
            "clip_z_other": [None if np.isnan(z) else z for z in clip_z_other.tolist()],
            "text_score": candidates["score"].to_pylist(),
            "score": score.tolist(),
        }
        for i, entity in enumerate(ids):
            if readable[row[i]]:
                terms = {name: values[i] for name, values in columns.items()}
                scored[row[i]].append({"id": entity, **terms})
        return scored

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


def _offered_too(
    row: np.ndarray, ids: list[str], mention: np.ndarray, partner: np.ndarray
) -> np.ndarray:
    """Returns which candidates' mentions are not mismatched with their row's partner.

    Where the partner's caption offers one of a mention's candidates too, its picture may show it.
    """
    offered = set(zip(row.tolist(), ids, strict=True))
    pairs = zip(partner[row].tolist(), ids, strict=True)
    too = np.array([pair in offered for pair in pairs], dtype=bool)
    starts = np.flatnonzero(np.r_[True, mention[1:] != mention[:-1]])
    return np.logical_or.reduceat(too, starts)[mention]


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
    picks = np.unique(np.linspace(0, len(found.shards) - 1, count).astype(int)).tolist()
    rest = sorted(set(range(len(found.shards))) - set(picks))  # for when all of those are damaged
    vectors, offered, refused = [], [], Counter()
    with progress("background", total=len(picks), unit="shards") as bar:
        for number, pick in enumerate([*picks, *rest]):
            if number >= len(picks) and offered:
                break
            share = -(-wanted // len(picks))
            part, names, reasons = _background_part(labeller, found.shards[pick], share)
            vectors.append(part)
            offered += names
            refused += reasons
            bar.advance()
    images = np.concatenate(vectors)
    if not offered:
        why = ", ".join(f"{reason} {count:,}" for reason, count in refused.most_common())
        place = found.root / found.shards[0].path if len(found.shards) == 1 else found.root
        raise InputError(f"No pair of {str(place)!r} can be used: {why or 'it is empty'}.")
    file = job.out / BACKGROUND_FILE
    temporary = job.out / f".{uuid.uuid4().hex[:8]}.npz"  # other ranks may be at it, too
    np.savez(temporary, images=images, offered=np.array(["\n".join(ids) for ids in offered]))
    temporary.replace(file)


def _background_part(
    labeller: ShardLabeller, shard: Shard, wanted: int
) -> tuple[np.ndarray, list[list[str]], Counter[str]]:
    """Returns (vectors, the entities that each caption offers, refused rows by reason)."""
    try:
        pairs = read_shard(labeller.job.root, shard)
    except (OSError, InputError) as error:
        return np.zeros((0, labeller.model.dim), np.float32), [], Counter([str(error).rstrip(".")])
    rows = pairs.table.to_pylist()
    usable = [i for i, row in enumerate(rows) if row["status"] == "ok"]
    usable = usable[:: max(len(usable) // max(wanted, 1), 1)][:wanted]
    encoded = labeller._encode(rows, usable)
    usable = [i for i in usable if encoded.readable[i]]
    captions = [rows[i]["caption"] for i in usable]
    candidates = labeller.linker.link(captions, all_candidates=True)
    offered: list[list[str]] = [[] for _ in usable]
    named = zip(candidates["row"].to_pylist(), candidates["id"].to_pylist(), strict=True)
    for row, entity in named:
        offered[row].append(entity)
    refused = Counter(row["error"] for row in rows if row["error"])
    refused.update([pairs.damage] if pairs.damage else [])
    return encoded.vectors[usable], offered, refused


def _read_background(out: Path) -> Background:
    with np.load(out / BACKGROUND_FILE) as stored:
        offered = tuple(frozenset(text.split("\n")) for text in stored["offered"].tolist())
        return Background(stored["images"].astype(np.float32), offered)
