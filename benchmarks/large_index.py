"""What an index of a million images costs: to build, to search, to filter while browsing, to map.

    python benchmarks/large_index.py FOLDER --rows 1000000 --dim 256

Makes up vectors around centres, with paths, captions, and labels whose entities are as uneven as
words, and keeps them in FOLDER. Then each step runs in a process of its own with one thread, and
prints a line of JSON: CPU-seconds, and the peak of memory beyond what the imports take, without
the pages of files that are mapped (`megabytes`) and with them (`mapped_too`). `--step NAME` runs
some steps only; `questions` asks the server's routes in process, warm, and gives the CPU-
milliseconds of each kind of question, the median of five.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from openmofi import schema

_CHUNK = 50_000
_ENTITIES = 20_000
_TYPES = 200
_CENTRES = 2_000
_LASSO = 60


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--kind", default="auto", choices=["auto", "flat", "hnsw", "ivf"])
    parser.add_argument("--step", action="append", choices=list(STEPS))
    parser.add_argument("--here", action="store_true", help="in this process")
    options = parser.parse_args()
    if not (options.folder / "embeddings.parquet").is_file():
        write_world(options.folder, options.rows, options.dim)
    for step in options.step or list(STEPS):
        if options.here:
            print(json.dumps({"step": step} | STEPS[step](options)), flush=True)
            continue
        command = [sys.executable, __file__, str(options.folder), "--step", step, "--here"]
        one = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
        kind = ["--kind", options.kind]
        subprocess.run([*command, *kind], env=os.environ | one, check=True)


# ---- the world ------------------------------------------------------------------------------


def write_world(folder: Path, rows: int, dim: int) -> None:
    """Writes embeddings.parquet as `embed` would, and kb/, the knowledge base of its entities."""
    from openmofi.config import KBSettings
    from openmofi.kb import build_kb

    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    catalogue = {
        "id": [f"E{i}" for i in range(_ENTITIES)],
        "name": [f"thing {i}" for i in range(_ENTITIES)],
        "description": [f"a made-up thing, number {i}" for i in range(_ENTITIES)],
        "type": ["|".join(f"T{t}" for t in some) for some in _some(rng, _ENTITIES, _TYPES)],
    }
    pq.write_table(pa.table(catalogue), folder / "catalogue.parquet")
    settings = KBSettings(workers=1)
    build_kb(folder / "catalogue.parquet", out=folder / "kb", settings=settings)
    about = {"openmofi.root": str(folder / "images")}
    known = schema.embeddings(dim).with_metadata(about)
    centres = rng.standard_normal((_CENTRES, dim)).astype(np.float32)
    unfinished = folder / "embeddings.partial"
    with pq.ParquetWriter(unfinished, known) as writer:
        for begin in range(0, rows, _CHUNK):
            count = min(_CHUNK, rows - begin)
            writer.write_table(_chunk(rng, centres, begin, count).cast(known))
    unfinished.rename(folder / "embeddings.parquet")


def _chunk(rng: np.random.Generator, centres: np.ndarray, begin: int, count: int) -> pa.Table:
    of = rng.zipf(1.2, count) % len(centres)
    vectors = centres[of] + 0.9 * rng.standard_normal((count, centres.shape[1]), np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    halves = pa.array(vectors.astype(np.float16).ravel())
    # An image's first label goes with its vector; a quarter has no label, a quarter two or three.
    first = of + _CENTRES * rng.integers(0, _ENTITIES // _CENTRES, count)
    labels = np.concatenate([first[:, None], rng.integers(0, _ENTITIES, (count, 2))], axis=1)
    num = np.array([0, 1, 1, 2, 0, 1, 1, 3])[rng.integers(0, 8, count)]
    entities = [
        list(dict.fromkeys(f"E{e}" for e in some[:n]))
        for some, n in zip(labels.tolist(), num.tolist(), strict=True)
    ]
    numbers = range(begin, begin + count)
    columns = {
        "id": [f"{i:09d}" for i in numbers],
        "shard": [f"{i // 10_000:05d}.tar" for i in numbers],
        "path": [""] * count,
        "offset": [512 + i % 10_000 * 20_480 for i in numbers],
        "size": [20_000] * count,
        "caption": [f"a photo of thing {e} in place {e % 977}, for sale" for e in first.tolist()],
        "url": [f"https://host{i % 503}.example.org/photos/{i}.jpg" for i in numbers],
        "entities": entities,
        "label_scores": [rng.random(len(names)).round(4).tolist() for names in entities],
        "text_area": rng.random(count).round(3).tolist(),
        "labels_row": list(numbers),
        "vector": pa.FixedSizeListArray.from_arrays(halves, centres.shape[1]),
    }
    return pa.table(columns, schema=schema.embeddings(centres.shape[1]))


def _some(rng: np.random.Generator, count: int, among: int) -> list[list[int]]:
    picked = rng.integers(0, among, (count, 3))
    return [list(dict.fromkeys(row[: 1 + row[0] % 3])) for row in picked.tolist()]


# ---- measuring ------------------------------------------------------------------------------


class Peak(threading.Thread):
    """Watches this process's memory while it works: private, and with mapped files."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.start_private, self.start_all = memory()
        self.private, self.all = 0.0, 0.0
        self.done = threading.Event()

    def run(self) -> None:
        while not self.done.wait(0.002):
            private, everything = memory()
            self.private = max(self.private, private - self.start_private)
            self.all = max(self.all, everything - self.start_all)


def memory() -> tuple[float, float]:
    """Returns (private, all) memory of this process in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    sizes = {n: int(v.split()[0]) / 1e3 for n, v in (x.split(":") for x in lines) if "kB" in v}
    return sizes["RssAnon"], sizes["VmRSS"]


def measured(work: Callable[[], object]) -> dict[str, float]:
    peak, wall, cpu = Peak(), time.perf_counter(), time.process_time()
    peak.start()
    work()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    peak.done.set()
    peak.join()
    sizes = {"megabytes": round(peak.private), "mapped_too": round(peak.all)}
    return {"cpu_s": round(cpu, 2), "wall_s": round(wall, 2)} | sizes


def verb(*line: object) -> dict[str, float]:
    """Runs a verb in this process, and throws what it prints away."""
    import faiss  # noqa: F401  # what it imports is not counted

    import openmofi.embeddings
    import openmofi.search.layout  # noqa: F401
    from openmofi.cli import main as run

    def work() -> None:
        try:
            run([str(word) for word in line])
        except SystemExit as ended:
            if ended.code:
                raise RuntimeError(f"{line} ended with {ended.code}") from None

    with contextlib.redirect_stdout(io.StringIO()):
        return measured(work)


# ---- the steps ------------------------------------------------------------------------------


def build(options: argparse.Namespace) -> dict[str, object]:
    """Builds the index."""
    folder = options.folder
    source, flags = folder / "embeddings.parquet", ["--kind", options.kind, "--kb", folder / "kb"]
    cost = verb("index", source, "--out", folder / "index", *flags, "--json")
    meta = json.loads((folder / "index/meta.json").read_text())
    return {name: meta[name] for name in ("rows", "dim", "kind")} | cost


def search(options: argparse.Namespace, *, ask: list[str]) -> dict[str, object]:
    """Asks for five hits on the command line."""
    return dict(verb("search", options.folder / "index", *ask, "--k", 5, "--json"))


def questions(options: argparse.Namespace) -> dict[str, object]:
    """Asks the server what the page asks."""
    from fastapi.testclient import TestClient

    from openmofi.serve import make_app

    angles = np.linspace(0, 2 * np.pi, _LASSO, endpoint=False)
    lasso = np.stack([0.5 + 0.3 * np.cos(angles), 0.5 + 0.2 * np.sin(angles)], axis=1)
    near = {"terms": [{"row": 7}]}
    ways = {
        "browse": {},
        "near": near,
        "browse_entity": {"filter": {"entities": ["E7"]}},
        "browse_two_entities": {"filter": {"entities": ["E0", "E1"]}},
        "browse_not_entity": {"filter": {"not_entities": ["E0"]}},
        "browse_type": {"filter": {"types": ["T3"]}},
        "browse_source": {"filter": {"sources": ["host7.example.org"]}},
        "browse_type_and_source": {
            "filter": {"types": ["T3"], "sources": ["host7.example.org"], "entities": ["E0"]}
        },
        "browse_label_score": {"filter": {"min_label_score": 0.3}},
        "browse_text_area": {"filter": {"max_text_area": 0.5}},
        "near_type": near | {"filter": {"types": ["T3"]}},
        "near_label_score": near | {"filter": {"min_label_score": 0.3}},
        "near_all": near | {"filter": {"max_text_area": 1.0}},
        "least_high": near | {"min_score": 0.3},
        "least_low": near | {"min_score": -0.5},
        "least_type": near | {"min_score": 0.0, "filter": {"types": ["T3"]}},
    }
    index = options.folder / "index"
    if json.loads((index / "meta.json").read_text())["map"]:
        ways["browse_lasso"] = {"filter": {"lasso": lasso.tolist()}}
        ways["near_lasso"] = near | ways["browse_lasso"]
    found: dict[str, object] = {}
    began = time.process_time()
    with TestClient(make_app(index), base_url="http://127.0.0.1") as client:
        taken_ms(client, {})
        until_first = time.process_time() - began
        settle()
        warm = time.process_time() - began
        for name, question in ways.items():
            taken = [taken_ms(client, question) for _ in range(6)]
            found[name] = round(statistics.median(taken[1:]), 1)
    seconds = {"first_answer_cpu_s": round(until_first, 1), "warm_cpu_s": round(warm, 1)}
    return seconds | {"cpu_ms": found}


def settle() -> None:
    """Waits until the server has nothing more to prepare."""
    spent, before = time.process_time(), 0.0
    while spent - before > 0.05:
        before = spent
        time.sleep(1)
        spent = time.process_time()


def taken_ms(client, question: dict) -> float:
    begin = time.process_time()
    answer = client.post("/api/search", json=question)
    taken = 1000 * (time.process_time() - begin)
    assert answer.status_code == 200, answer.text
    return taken


def make_map(options: argparse.Namespace) -> dict[str, object]:
    """Lays the index out on a map."""
    return dict(verb("index", "map", options.folder / "index", "--threads", 1, "--json"))


STEPS = {
    "build": build,
    "search_like": partial(search, ask=["--like", "E7"]),
    "search_like_of_type": partial(search, ask=["--like", "E7", "--type", "T3"]),
    "search_entity": partial(search, ask=["--entity", "E7"]),
    "search_least": partial(search, ask=["--like", "E7", "--min-score", "0.2"]),
    "questions": questions,
    "map": make_map,
}

if __name__ == "__main__":
    main()
