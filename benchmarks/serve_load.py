"""How `openmofi serve` stands up to many clients at once, on loopback.

    python benchmarks/serve_load.py --index demo/index --clients 50 --seconds 60

Starts the real server as a process of its own, on the index that is given or on one that is made
up, and lets every client ask one thing after the other: searches by row, entity, text and upload,
facets, suggestions, thumbnails, provenance. Prints requests per second, and median and 95th
percentile of each kind; exits 1 after any error. Clients and server share the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from openmofi.schema import embeddings
from openmofi.search import Index

WEIGHTS = {
    "search by row": 4,
    "search by entity": 2,
    "search by text": 2,
    "search by upload": 1,
    "browse with facets": 2,
    "suggestions": 4,
    "thumbnail": 16,
    "upload": 1,
    "provenance": 1,
}


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--index", type=Path, help="default: one is made up")
    parser.add_argument("--rows", type=int, default=200_000, help="of the made-up index")
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def make_up(folder: Path, rows: int, rng: np.random.Generator) -> Path:
    """Writes an index of clustered vectors with entities, and 200 images that rows share."""
    for number in range(200):
        noise = rng.integers(0, 256, (240, 320, 3), np.uint8)
        Image.fromarray(noise).resize((1280, 960)).save(folder / f"{number}.jpg")
    centres = rng.standard_normal((2_000, 256))
    entity = rng.zipf(1.3, rows) % len(centres)
    vectors = centres[entity] + 0.8 * rng.standard_normal((rows, 256))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    schema = embeddings(256).with_metadata({"openmofi.root": str(folder)})
    columns = {
        "id": [str(i) for i in range(rows)],
        "shard": [""] * rows,
        "path": [f"{i % 200}.jpg" for i in range(rows)],
        "offset": [-1] * rows,
        "size": [0] * rows,
        "caption": [f"image {i}" for i in range(rows)],
        "url": [f"https://site{i % 9}.example/{i}" for i in range(rows)],
        "entities": [[f"E{e}"] for e in entity.tolist()],
        "label_scores": [[0.9]] * rows,
        "text_area": [0.0] * rows,
        "labels_row": [None] * rows,
        "vector": list(vectors.astype(np.float16)),
    }
    pq.write_table(pa.table(columns, schema=schema), folder / "e.parquet")
    Index.build(folder / "e.parquet", folder / "index")
    return folder / "index"


@contextlib.contextmanager
def served(index: Path) -> Iterator[str]:
    """Yields the address of a server on a free port; it must end without a failure."""
    command = [sys.executable, "-m", "openmofi", "serve", str(index), "--port", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        line = process.stderr.readline()
        if "http://" not in line:
            raise SystemExit(line + process.stderr.read())
        yield next(word for word in line.split() if word.startswith("http://"))
        process.terminate()
        if process.wait(timeout=60):
            raise SystemExit(f"the server ended with {process.returncode}")
    finally:
        process.kill()


class Load:
    """What clients ask, and how it went."""

    def __init__(self, http: httpx.AsyncClient, info: dict, entities: list[str], seed: int):
        self.http, self.info, self.entities = http, info, entities
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self.errors: dict[str, int] = defaultdict(int)
        self.random = random.Random(seed)
        self.uploads: list[str] = []
        has = info["has"]
        missing = {"provenance"} if not has["provenance"] else set()
        if not has["text"]:
            missing |= {"search by text", "search by upload", "upload"}
        if not entities:
            missing.add("search by entity")
        self.weights = {kind: w for kind, w in WEIGHTS.items() if kind not in missing}

    async def client(self, until: float) -> None:
        """Asks one thing after the other."""
        while time.perf_counter() < until:
            [kind] = self.random.choices(list(self.weights), list(self.weights.values()))
            begin = time.perf_counter()
            try:
                answer = await self.ask(kind)
                failed = answer.status_code != 200
                why = f"{kind}: {answer.status_code} {answer.text[:100]}" if failed else ""
            except httpx.HTTPError as error:
                why = f"{kind}: {error!r}"
            self.seconds[kind].append(time.perf_counter() - begin)
            if why:
                self.errors[why] += 1

    async def ask(self, kind: str) -> httpx.Response:
        row = self.random.randrange(self.info["images"])
        if kind == "thumbnail":
            return await self.http.get(f"/api/images/{row}/thumbnail")
        if kind == "provenance":
            return await self.http.get(f"/api/images/{row}/provenance")
        if kind == "suggestions":
            return await self.http.get("/api/entities", params={"q": self.random.choice("abcefgs")})
        if kind == "upload":
            answer = await self.http.post("/api/uploads", content=self.image())
            self.uploads = [*self.uploads[-99:], answer.json()["id"]]
            return answer
        if kind == "browse with facets":
            wanted = self.random.sample(self.entities, min(3, len(self.entities)))
            return await self.search(filter={"entities": wanted})
        if kind == "search by entity":
            return await self.search({"entity": self.random.choice(self.entities)})
        if kind == "search by text":
            return await self.search({"text": f"an image of number {row}"})
        if kind == "search by upload" and self.uploads:
            return await self.search({"upload": self.random.choice(self.uploads)})
        return await self.search({"row": row})

    async def search(self, *terms: dict, **question: dict) -> httpx.Response:
        return await self.http.post("/api/search", json={"terms": terms, **question})

    def image(self) -> bytes:
        """An image that was not sent before."""
        colour = tuple(self.random.randrange(256) for _ in range(3))
        buffer = io.BytesIO()
        Image.new("RGB", (640, 480), colour).save(buffer, "JPEG")
        return buffer.getvalue()

    def report(self, seconds: float) -> None:
        """Prints what came of it."""
        everything = [value for values in self.seconds.values() for value in values]
        print(f"{'kind':20}{'requests':>10}{'p50 ms':>10}{'p95 ms':>10}{'max ms':>10}")
        for kind, values in [*sorted(self.seconds.items()), ("all", everything)]:
            p50, p95 = (1000 * np.quantile(values, q) for q in (0.5, 0.95))
            print(f"{kind:20}{len(values):>10}{p50:>10.1f}{p95:>10.1f}{1000 * max(values):>10.1f}")
        errors = sum(self.errors.values())
        print(f"{len(everything) / seconds:,.0f} requests/s, {errors} errors")
        for why, count in self.errors.items():
            print(f"  {count} x {why}")


async def run(address: str, arguments: argparse.Namespace) -> Load:
    limits = httpx.Limits(max_connections=arguments.clients)
    async with httpx.AsyncClient(base_url=address, limits=limits, timeout=60) as http:
        info = (await http.get("/api/info")).json()
        listed = (await http.get("/api/entities", params={"k": 100})).json()["entities"]
        load = Load(http, info, [entity["id"] for entity in listed], arguments.seed)
        if info["has"]["text"]:
            await load.ask("search by text")  # waits for the encoder
        until = time.perf_counter() + arguments.seconds
        await asyncio.gather(*(load.client(until) for _ in range(arguments.clients)))
    return load


def main() -> None:
    arguments = parse_arguments()
    with tempfile.TemporaryDirectory(prefix="openmofi-load-") as folder:
        os.environ["OPENMOFI_CACHE"] = str(Path(folder) / "cache")  # thumbnails are made again
        rng = np.random.default_rng(arguments.seed)
        index = arguments.index or make_up(Path(folder), arguments.rows, rng)
        with served(index) as address:
            load = asyncio.run(run(address, arguments))
    print(f"{arguments.clients} clients, {arguments.seconds:g} s, {load.info['images']:,} images")
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores for both sides")
    load.report(arguments.seconds)
    sys.exit(bool(load.errors))


if __name__ == "__main__":
    main()
