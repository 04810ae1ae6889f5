"""How long `select` and `inspect` take: on made-up labels, ten million rows of them by default.

    python benchmarks/select_speed.py --shards 1000 --rows 10000

Writes the labels (about two candidates a row, a tenth of the images repeated, entities as uneven
as words), selects from them in a process of its own, and draws the page, whose images come from
one small tar. Prints JSON: seconds, CPU seconds, largest memory, and the size of the page.
"""

import argparse
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from openmofi.config import KBSettings
from openmofi.kb import build_kb
from openmofi.label.score import MISMATCHED
from openmofi.pairs import find_shards, read_shard
from openmofi.schema import LABELS, SCORED_ENTITY
from openmofi.shards import Shard, ShardResult, freeze_plan, run_shards

_IMAGES = 200
_WORDS = 2_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shards", type=int, default=1000)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--entities", type=int, default=200_000)
    parser.add_argument("--folder", type=Path, help="keeps what is written; default: a new one")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        began = time.perf_counter()
        if not (folder / "i2e").is_dir():
            write_world(folder, options.shards, options.rows, options.entities)
        result = {
            "rows": options.shards * options.rows,
            "seconds_to_write_the_labels": round(time.perf_counter() - began, 1),
            "select": measured(["select", str(folder / "i2e"), "--json"]),
            "inspect": measured(["inspect", str(folder / "i2e")]),
        }
        page = folder / "i2e/select/default/inspect.html"
        result["page_megabytes"] = round(page.stat().st_size / 1e6, 2)
        card = json.loads((folder / "i2e/select/default/card.json").read_text())
    print(json.dumps(result | {"funnel": card["funnel"]}, indent=2))


def measured(arguments: list[str]) -> dict[str, float]:
    """Runs a verb in a process of its own."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "openmofi", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    assert status == 0
    return {
        "seconds": round(time.perf_counter() - began, 1),
        "cpu_seconds": round(used.ru_utime + used.ru_stime, 1),
        "gigabytes": round(used.ru_maxrss / 1e6, 2),
    }


def write_world(folder: Path, num_shards: int, num_rows: int, num_entities: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    numbers = np.arange(num_entities).astype(str)
    catalogue = {
        "id": np.char.add("E", numbers),
        "name": np.char.add("thing ", numbers),
        "description": np.char.add("a made-up thing of the kind ", numbers),
    }
    pq.write_table(pa.table(catalogue), folder / "catalogue.parquet")
    kb = build_kb(folder / "catalogue.parquet", out=folder / "kb", settings=KBSettings(workers=1))
    write_images(folder / "images.tar")
    found = find_shards(folder / "images.tar")
    places = read_shard(found.root, found.shards[0]).table.select(["offset", "size"])
    shards = [Shard(f"{i:05d}", "images.tar", "tar", i, 0) for i in range(num_shards)]
    run = {"input": str(folder), "kb_path": str(kb.out), "model": "made up"}
    freeze_plan(folder / "i2e", shards, run)
    maker = Maker(num_rows, num_entities, places)
    run_shards(lambda: maker, shards, out=folder / "i2e", workers=1)


def write_images(path: Path) -> None:
    rng = np.random.default_rng(0)
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        for i in range(_IMAGES):
            coarse = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
            buffer = io.BytesIO()
            coarse.resize((160, 120)).save(buffer, "JPEG")
            for name, data in ((f"{i}.jpg", buffer.getvalue()), (f"{i}.txt", b"a thing")):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))


class Maker:
    """Makes the labels of one shard; the same every time."""

    def __init__(self, num_rows: int, num_entities: int, places: pa.Table):
        self.num_rows, self.num_entities, self.places = num_rows, num_entities, places
        weight = 1 / np.arange(1, num_entities + 1)
        self.cumulative = np.cumsum(weight / weight.sum())
        rng = np.random.default_rng(0)
        letters = rng.choice(list("etaoinshrdlu"), (_WORDS, 6))
        self.words = np.array(["".join(row) for row in letters])
        self.memes = rng.integers(0, 2**64, 100_000, dtype=np.uint64)

    def __call__(self, shard: Shard) -> ShardResult:
        rng, count = np.random.default_rng(shard.size), self.num_rows
        key = np.char.add(f"{shard.name}-", np.arange(count).astype(str))
        image = pa.array(rng.integers(0, len(self.places), count))
        error = np.where(rng.random(count) < 0.02, "corrupt_image", "")
        words = self.words[rng.integers(0, _WORDS, (8, count))]
        caption = words[0]
        for word in words[1:]:
            caption = np.char.add(np.char.add(caption, " "), word)
        columns = {
            "key": key,
            "shard": pa.repeat("images.tar", count),
            "offset": self.places["offset"].take(image),
            "size": self.places["size"].take(image),
            "path": pa.repeat("", count),
            "caption": caption,
            "url": np.char.add("https://example.org/", key),
            "status": np.where(error == "", "ok", "error"),
            "error": error,
            "width": np.full(count, 160),
            "height": np.full(count, 120),
            "text_area": pa.array(rng.random(count), mask=rng.random(count) < 0.5),
            "text_boxes": pa.nulls(count),
            **self._hashes(rng),
            "entities": self._entities(rng, error != ""),
        }
        arrays = [
            pa.array(columns[f.name]).cast(f.type)
            if not isinstance(columns[f.name], pa.ChunkedArray)
            else columns[f.name].cast(f.type)
            for f in LABELS
        ]
        return ShardResult(
            pa.table(arrays, schema=LABELS), {"corrupt_image": int((error != "").sum())}
        )

    def _hashes(self, rng: np.random.Generator) -> dict:
        """A tenth of the images repeats one of the memes, some of them with other bits."""
        count = self.num_rows
        phash = rng.integers(0, 2**64, count, dtype=np.uint64)
        meme = rng.random(count) < 0.1
        flip = (rng.random(count) < 0.5).astype(np.uint64) << rng.integers(0, 64, count, "u8")
        phash[meme] = rng.choice(self.memes, meme.sum()) ^ flip[meme]
        digest = np.repeat(phash[:, None], 4, axis=1)
        digest[:, 1:] ^= rng.integers(0, 4, (count, 1), dtype=np.uint64)
        sha256 = pa.FixedSizeBinaryArray.from_buffers(
            pa.binary(32), count, [None, pa.py_buffer(digest.tobytes())]
        )
        return {"sha256": sha256, "phash": phash}

    def _entities(self, rng: np.random.Generator, refused: np.ndarray) -> pa.Array:
        """None, one or two mentions a row, each with up to three candidates."""
        mentions = rng.choice(3, self.num_rows, p=(0.2, 0.5, 0.3)) * ~refused
        candidates = rng.integers(1, 4, mentions.sum())
        row = np.repeat(np.arange(self.num_rows), mentions)
        mention = np.repeat(np.arange(len(candidates)), candidates)
        count = len(mention)
        shown = rng.random(count) < 0.5
        z, other = rng.normal(4.0 * shown, 1.0), rng.normal(0, 1, (count, MISMATCHED))
        entity = np.searchsorted(self.cumulative, rng.random(count))
        numbers = {
            "start": (mention - np.r_[0, np.cumsum(mentions)][row[mention]]) * 10,
            "prior": rng.random(count),
            "text_score": rng.random(count),
            "score": 1 / (1 + np.exp(-z)),
            "clip": rng.random(count),
            "clip_z": z,
            "clip_z_other": pa.FixedSizeListArray.from_arrays(other.ravel(), MISMATCHED),
            "context": rng.random(count),
        }
        numbers["end"] = numbers["start"] + 5
        ids = np.char.add("E", np.minimum(entity, self.num_entities - 1).astype(str))
        texts = {"id": ids, "surface": pa.repeat("thing", count)}
        arrays = [
            pa.array(numbers.get(f.name, texts.get(f.name, pa.nulls(count)))).cast(f.type)
            for f in SCORED_ENTITY
        ]
        fields = pa.StructArray.from_arrays(arrays, fields=list(SCORED_ENTITY))
        lengths = np.bincount(row[mention], minlength=self.num_rows)
        offsets = pa.array(np.r_[0, np.cumsum(lengths)], pa.int32())
        return pa.ListArray.from_arrays(offsets, fields)


if __name__ == "__main__":
    main()
