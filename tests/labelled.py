"""Hand-made output of `label`, in which every number is known: rows -> a committed i2e folder."""

import hashlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

import fruit
from openmofi.config import SelectSettings
from openmofi.kb import build_kb
from openmofi.schema import LABELS, SCORED_ENTITY
from openmofi.select import select
from openmofi.select.select import SelectSummary
from openmofi.shards import Shard, ShardResult, freeze_plan, run_shards


def candidate(identifier, *, prior=1.0, text=1.0, z=0.0, start=0, other=-1.0, **more):
    given = {"id": identifier, "start": start, "end": start + 5, "surface": "apple"}
    given |= {"prior": prior, "context": 0.0, "text_score": text, "clip": 0.1, "clip_z": z}
    given |= {"score": 0.5, "clip_z_other": None if other is None else [other]} | more
    return {field.name: given.get(field.name) for field in SCORED_ENTITY}


def unseen(identifier, *, prior=1.0, text=1.0, start=0):
    """A candidate of a job without an encoder."""
    nobody = {"clip": None, "score": None, "z": None, "other": None}
    return candidate(identifier, prior=prior, text=text, start=start, **nobody)


def pair(key, *entities, error="", image=b"", phash=None, text=None, boxes=None, caption=None):
    """One row; `image` stands for the encoded bytes, whose hash is stored."""
    place = {"key": key, "shard": "", "offset": -1, "size": 0, "path": f"{key}.jpg"}
    state = {"status": "error" if error else "ok", "error": error}
    size = {"width": 9, "height": 9, "text_area": text, "text_boxes": boxes}
    hashes = {"sha256": hashlib.sha256(image).digest() if image else None, "phash": phash}
    texts = {"caption": f"apple {key}" if caption is None else caption, "url": ""}
    return place | texts | state | size | hashes | {"entities": [*entities]}


def write_i2e(folder: Path, *shards: list[dict], catalogue: str = fruit.CATALOGUE) -> Path:
    """Writes a knowledge base of fruit and an i2e folder; images lie in `folder` itself."""
    kb = build_kb(fruit.write_catalogue(folder, catalogue), out=folder / "kb").out
    plan = [Shard(f"s{i}", "", "folder", i, i) for i in range(len(shards))]
    tables = [pa.Table.from_pylist(rows, schema=LABELS) for rows in shards]
    freeze_plan(folder / "i2e", plan, {"input": str(folder), "kb_path": str(kb), "model": "m"})
    run_shards(lambda: lambda shard: ShardResult(tables[shard.size]), plan, out=folder / "i2e")
    return folder / "i2e"


BY_TEXT = {"order": "text-first", "threshold": 1.0, "min_images": 1}
"""The threshold is on clip_z, and the surest label is the one with the largest text_score."""


def select_by_text(i2e: Path, **settings) -> SelectSummary:
    return select(i2e, settings=SelectSettings(**(BY_TEXT | settings)))


def kept_labels(summary: SelectSummary) -> dict[str, list[str]]:
    """Returns {key: ids, best first}."""
    ids = pq.read_table(summary.out / "vocabulary.parquet")["id"].to_pylist()
    rows = pq.read_table(summary.out / "keep.parquet").to_pylist()
    return {row["key"]: [ids[c] for c in row["classes"]] for row in rows}


def refusal_reasons(summary: SelectSummary) -> dict[str, str]:
    """Returns {key: reason}."""
    rows = pq.read_table(summary.out / "refused.parquet").to_pylist()
    return {row["key"]: row["reason"] for row in rows}
