"""How long `select` takes, and how much memory and disk, by the number of rows; and `inspect`.

    python benchmarks/select_scale.py --rows 1e6 3e6 10e6 [--memory 4] [--folder FOLDER]

For each number, writes made-up labels (10,000 rows a shard, two candidates a row, a tenth of the
images repeated, entities as uneven as words), selects from them in a process of its own, draws the
page, whose images come from one small tar, and deletes all that. Prints a line of JSON per number:
seconds, CPU seconds, largest memory, bytes of the labels, of the selection, and of what lies on
disk between the passes; then the exponent of the cost: 1 if twice the rows take twice the time.
"""

import argparse
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from PIL import Image

from openmofi.config import KBSettings
from openmofi.kb import build_kb
from openmofi.label.score import MISMATCHED
from openmofi.pairs import find_shards, read_shard
from openmofi.schema import LABELS, SCORED_ENTITY
from openmofi.shards import Shard, ShardResult, freeze_plan, run_shards

ROWS_OF_SHARD = 10_000
"""Rows of a shard."""
_IMAGES = 200
_CAPTIONS = 1 << 18


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=float, nargs="+", default=[1e6, 3e6, 1e7])
    parser.add_argument("--memory", type=float, help="GB, passed to select")
    parser.add_argument("--entities", type=int, default=200_000)
    parser.add_argument("--workers", type=int, default=2, help="processes that write the labels")
    parser.add_argument("--folder", type=Path, help="where to write; default: a temporary folder")
    options = parser.parse_args()
    results = []
    for rows in options.rows:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            results.append(measure(Path(folder), int(rows), options))
        print(json.dumps(results[-1]), flush=True)
    if len(results) > 1:
        rows = np.log([result["rows"] for result in results])
        exponents = {
            name: round(
                float(np.polyfit(rows, np.log([r["select"][name] for r in results]), 1)[0]), 3
            )
            for name in ("seconds", "cpu_seconds")
        }
        print(json.dumps({"exponents": exponents}))


def measure(folder: Path, num_rows: int, options: argparse.Namespace) -> dict:
    began = time.perf_counter()
    write_world(folder, num_rows // ROWS_OF_SHARD, options.entities, options.workers)
    wrote = time.perf_counter() - began
    memory = [] if options.memory is None else ["--memory", str(options.memory)]
    selection = folder / "i2e/select"
    select, between = costs_of(["select", str(folder / "i2e"), "--json", *memory], selection)
    inspect, _ = costs_of(["inspect", str(folder / "i2e")], selection)
    labels, selected = size_of(folder / "i2e/labels"), size_of(selection)
    card = json.loads((selection / "default/card.json").read_text())
    return {
        "rows": num_rows,
        "seconds_to_write_the_labels": round(wrote, 1),
        "select": select,
        "inspect": inspect,
        "labels_gigabytes": labels,
        "selection_gigabytes": selected,
        "between_passes_gigabytes": between,
        "funnel": card["funnel"],
    }


def size_of(folder: Path) -> float:
    """Returns the GB of the files below a folder, which may change meanwhile."""
    found = 0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                found += os.stat(os.path.join(place, name)).st_size
            except FileNotFoundError:
                continue
    return round(found / 1e9, 3)


def costs_of(arguments: list[str], watched: Path) -> tuple[dict[str, float], float]:
    """Runs a verb in a process of its own; returns its costs, and the most GB in a folder."""
    ended, sizes = threading.Event(), [0.0]

    def watch() -> None:
        while not ended.wait(2):
            sizes.append(size_of(watched))

    watcher = threading.Thread(target=watch)
    watcher.start()
    costs = timed(["-m", "openmofi", *arguments])
    ended.set()
    watcher.join()
    return costs, max(sizes)


def timed(arguments: list[str]) -> dict[str, float]:
    """Runs Python in a process of its own; returns its costs."""
    began = time.perf_counter()
    process = subprocess.Popen([sys.executable, *arguments], stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    assert status == 0, arguments
    return {
        "seconds": round(seconds, 1),
        "cpu_seconds": round(used.ru_utime + used.ru_stime, 1),
        "gigabytes": round(used.ru_maxrss / 1e6, 2),
    }


def write_world(folder: Path, num_shards: int, num_entities: int, workers: int) -> None:
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
    shards = [Shard(f"{i:06d}", "images.tar", "tar", i, 0) for i in range(num_shards)]
    run = {"input": str(folder), "kb_path": str(kb.out), "model": "made up"}
    freeze_plan(folder / "i2e", shards, run)
    run_shards(partial(Maker, num_entities, places), shards, out=folder / "i2e", workers=workers)


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

    def __init__(self, num_entities: int, places: pa.Table):
        self.places, self.num_entities = places, num_entities
        weight = 1 / np.arange(1, num_entities + 1)
        self.cumulative = np.cumsum(weight / weight.sum())
        self.ids = pa.array(np.char.add("E", np.arange(num_entities).astype(str)))
        rng = np.random.default_rng(0)
        words = pa.array(["".join(rng.choice(list("etaoinshrdlu"), 6)) for _ in range(2_000)])
        drawn = [words.take(pa.array(rng.integers(0, 2_000, _CAPTIONS))) for _ in range(8)]
        self.captions = pc.binary_join_element_wise(*drawn, " ")
        self.memes = rng.integers(0, 2**64, 100_000, dtype=np.uint64)

    def __call__(self, shard: Shard) -> ShardResult:
        rng, count = np.random.default_rng(shard.size), ROWS_OF_SHARD
        key = pc.binary_join_element_wise(shard.name, pa.array(np.arange(count)).cast("str"), "-")
        image = pa.array(rng.integers(0, len(self.places), count))
        damaged = rng.random(count) < 0.02
        columns = {
            "key": key,
            "shard": pa.repeat("images.tar", count),
            "offset": self.places["offset"].take(image),
            "size": self.places["size"].take(image),
            "path": pa.repeat("", count),
            "caption": self.captions.take(pa.array(rng.integers(0, _CAPTIONS, count))),
            "url": pc.binary_join_element_wise("https://example.org", key, "/"),
            "status": pa.array(["ok", "error"]).take(pa.array(damaged.astype(int))),
            "error": pa.array(["", "corrupt_image"]).take(pa.array(damaged.astype(int))),
            "width": np.full(count, 160),
            "height": np.full(count, 120),
            "text_area": pa.array(rng.random(count), mask=rng.random(count) < 0.5),
            "text_boxes": pa.nulls(count),
            **self._hashes(rng),
            "entities": self._entities(rng, damaged),
        }
        table = pa.table({field.name: columns[field.name] for field in LABELS}).cast(LABELS)
        return ShardResult(table, {"corrupt_image": int(damaged.sum())})

    def _hashes(self, rng: np.random.Generator) -> dict:
        """A tenth of the images repeats one of the memes, some of them with other bits."""
        phash = rng.integers(0, 2**64, ROWS_OF_SHARD, dtype=np.uint64)
        meme = rng.random(ROWS_OF_SHARD) < 0.1
        flip = (rng.random(ROWS_OF_SHARD) < 0.5).astype(np.uint64) << rng.integers(
            0, 64, ROWS_OF_SHARD, "u8"
        )
        phash[meme] = rng.choice(self.memes, meme.sum()) ^ flip[meme]
        digest = np.repeat(phash[:, None], 4, axis=1)
        digest[:, 1:] ^= rng.integers(0, 4, (ROWS_OF_SHARD, 1), dtype=np.uint64)
        sha256 = pa.FixedSizeBinaryArray.from_buffers(
            pa.binary(32), ROWS_OF_SHARD, [None, pa.py_buffer(digest.tobytes())]
        )
        return {"sha256": sha256, "phash": phash}

    def _entities(self, rng: np.random.Generator, damaged: np.ndarray) -> pa.Array:
        """None, one or two mentions a row, each with up to three candidates."""
        mentions = rng.choice(3, ROWS_OF_SHARD, p=(0.2, 0.5, 0.3)) * ~damaged
        candidates = rng.integers(1, 4, mentions.sum())
        row = np.repeat(np.arange(ROWS_OF_SHARD), mentions)
        mention = np.repeat(np.arange(len(candidates)), candidates)
        count = len(mention)
        shown = rng.random(count) < 0.5
        z, other = rng.normal(4.0 * shown, 1.0), rng.normal(0, 1, (count, MISMATCHED))
        entity = np.searchsorted(self.cumulative, rng.random(count))
        start = (mention - np.append(0, np.cumsum(mentions))[row[mention]]) * 10
        columns = {
            "id": self.ids.take(pa.array(np.minimum(entity, self.num_entities - 1))),
            "start": start,
            "end": start + 5,
            "surface": pa.repeat("thing", count),
            "prior": rng.random(count),
            "text_score": rng.random(count),
            "score": 1 / (1 + np.exp(-z)),
            "clip": rng.random(count),
            "clip_z": z,
            "clip_z_other": pa.FixedSizeListArray.from_arrays(other.ravel(), MISMATCHED),
            "context": rng.random(count),
        }
        arrays = [
            pa.array(columns.get(field.name, pa.nulls(count))).cast(field.type)
            for field in SCORED_ENTITY
        ]
        lengths = np.bincount(row[mention], minlength=ROWS_OF_SHARD)
        offsets = pa.array(np.append(0, np.cumsum(lengths)), pa.int32())
        fields = pa.StructArray.from_arrays(arrays, fields=list(SCORED_ENTITY))
        return pa.ListArray.from_arrays(offsets, fields)


if __name__ == "__main__":
    main()
