"""Files that other tools really wrote, read by ours: vectors, and img2dataset's three formats.

    python3 -m venv /tmp/tables && /tmp/tables/bin/pip install pandas polars duckdb pyarrow
    python3 -m venv /tmp/older && /tmp/older/bin/pip install img2dataset autofaiss 'pyarrow<18'
    python benchmarks/other_makers.py --python /tmp/tables/bin/python --older /tmp/older/bin/python

The other tools run in environments of their own, since img2dataset and autofaiss want old
packages. img2dataset downloads from a server of this script on 127.0.0.1. Prints a line for each
check with the versions, and ends with 1 if one fails. Nothing is timed.
"""

from __future__ import annotations

import argparse
import functools
import http.server
import io
import json
import shutil
import subprocess
import sys
import tempfile
import threading
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow.dataset as ds
from PIL import Image

from openmofi.embeddings import read_embeddings
from openmofi.kb import build_kb
from openmofi.label import label
from openmofi.pairs import find_shards, read_shard

ROWS, DIM, MISSING = 50, 16, (0, 7, 49)
_COMMON = "import sys, numpy as np; out = sys.argv[1]; v = np.load(sys.argv[2]); n = len(v)\n"
_PANDAS = """
import pandas as pd
rows = [None if i in {missing} else list(map(float, x)) for i, x in enumerate(v)]
frame = pd.DataFrame({{"id": [f"p{{i}}" for i in range(n)], "vector": rows}})
"""
_POLARS = """
import polars as pl
rows = [None if i in {missing} else x.tolist() for i, x in enumerate(v)]
frame = pl.DataFrame({{"id": [f"p{{i}}" for i in range(n)], "embedding": rows}},
    schema={{"id": pl.String, "embedding": {kind}}})
"""
_DUCKDB = """
import duckdb
rows = [(f"p{{i}}", None if i in {missing} else x.tolist()) for i, x in enumerate(v)]
base = duckdb.connect()
base.execute("create table t (id varchar, vector float{array})")
base.executemany("insert into t values (?, ?)", rows)
base.execute(f"copy t to '{{out}}' (format parquet)")
"""
WRITERS = {
    "pandas to_parquet (pyarrow)": (_PANDAS + "frame.to_parquet(out, engine='pyarrow')", "pandas"),
    "pandas to_feather": (_PANDAS + "frame.to_feather(out)", "pandas"),
    "polars List": (_POLARS + "frame.write_parquet(out)", "polars"),
    "polars Array": (_POLARS + "frame.write_parquet(out)", "polars"),
    "DuckDB FLOAT[]": (_DUCKDB, "duckdb"),
    # DuckDB 2.0.1 writes missing arrays of a fixed length with levels that pyarrow cannot read.
    "DuckDB FLOAT[16], none missing": (_DUCKDB, "duckdb"),
}


def run(python: Path, code: str, *arguments: Path) -> str:
    """Runs code in the other environment; returns what it printed."""
    command = [python, "-W", "ignore", "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{code[-300:]}\n{done.stderr[-2000:]}")
    return done.stdout


def version(python: Path, package: str) -> str:
    code = f"import importlib.metadata as m; print(m.version({package!r}), end='')"
    return run(python, code)


def check_vectors(python: Path, folder: Path) -> bool:
    """Has each tool write {id, vector} with missing rows, and reads it."""
    vectors = np.random.default_rng(0).standard_normal((ROWS, DIM)).astype(np.float32)
    np.save(folder / "v.npy", vectors)
    good = True
    for name, (code, package) in WRITERS.items():
        missing = () if "none missing" in name else MISSING
        rest = [i for i in range(ROWS) if i not in missing]
        fill = {"missing": missing, "kind": "pl.List(pl.Float32)", "array": "[]"}
        if "Array" in name:
            fill["kind"] = f"pl.Array(pl.Float32, {DIM})"
        if "[16]" in name:
            fill["array"] = f"[{DIM}]"
        out = folder / ("x.feather" if "feather" in name else "x.parquet")
        run(python, _COMMON + code.format(**fill), out, folder / "v.npy")
        found = read_embeddings(out)
        same = found.rows["id"].to_pylist() == [f"p{i}" for i in rest]
        same &= np.allclose(found.vectors, vectors[rest])
        same &= sum(found.refused.values()) == len(missing)
        print(f"{'ok ' if same else 'BAD'} {name} {version(python, package)}: {len(found.rows)}")
        good &= same
    return good


_AUTOFAISS = """
import faiss, json
from autofaiss import build_index
folder, where = sys.argv[1], sys.argv[3]
build_index(folder, index_path=where + "/knn.index", index_infos_path=where + "/infos.json",
    max_index_memory_usage="50MB", current_memory_available="100MB", metric_type="ip",
    index_key="Flat")
index = faiss.read_index(where + "/knn.index")
print("found", json.dumps(index.search(v[:20], 1)[1][:, 0].tolist()))
"""


def check_autofaiss(python: Path, folder: Path) -> bool:
    """Numbers the rows of a folder of .npy parts as autofaiss does."""
    vectors = np.random.default_rng(1).standard_normal((300, DIM)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    (folder / "parts").mkdir()
    for number in range(12):
        part = vectors[25 * number : 25 * number + 25]
        np.save(folder / f"parts/img_emb_{number:02d}.npy", part)
    np.save(folder / "q.npy", vectors[::15])
    said = run(python, _COMMON + _AUTOFAISS, folder / "parts", folder / "q.npy", folder)
    theirs = json.loads(said.split("found", 1)[1])
    found = read_embeddings(folder / "parts")
    nearest = (vectors[::15] @ found.vectors.T).argmax(1)
    same = theirs == [int(found.rows["id"][int(row)].as_py()) for row in nearest]
    print(f"{'ok ' if same else 'BAD'} autofaiss {version(python, 'autofaiss')}: same numbers")
    return same


@contextmanager
def served(folder: Path):
    """Yields the address under which a folder is served, on this machine only."""
    handler = functools.partial(_Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_) -> None:
        """Says nothing."""


_IMG2DATASET = """
from img2dataset import download
import sys
if __name__ == "__main__":
    download(url_list=sys.argv[1], output_folder=sys.argv[2], output_format=sys.argv[3],
        input_format="csv", url_col="url", caption_col="caption", save_additional_columns=["uid"],
        processes_count=1, thread_count=4, image_size=64, number_sample_per_shard=10,
        disallowed_header_directives=[])
"""


def check_img2dataset(python: Path, folder: Path) -> bool:
    """Downloads 24 images in each format, and labels them without an encoder."""
    colours = {"red apple": (200, 20, 20), "green apple": (30, 180, 40), "lime": (140, 220, 20)}
    catalogue = [{"id": name, "name": name} for name in colours]
    (folder / "fruit.jsonl").write_text("".join(json.dumps(row) + "\n" for row in catalogue))
    build_kb(folder / "fruit.jsonl", out=folder / "kb")
    (folder / "web").mkdir()
    good, captions = True, {}
    with served(folder / "web") as address:
        lines = ["url,caption,uid"]
        for number in range(24):
            name = list(colours)[number % 3]
            image = io.BytesIO()
            Image.new("RGB", (80, 60 + number), colours[name]).save(image, "JPEG")
            (folder / f"web/{number}.jpg").write_bytes(image.getvalue())
            url = f"{address}/{number}.jpg"
            captions[url] = f"a {name} on a table, {number}"
            lines.append(f'{url},"{captions[url]}",{number:032x}')
        (folder / "list.csv").write_text("\n".join(lines))
        (folder / "get.py").write_text(_IMG2DATASET)
        for kind in ("files", "webdataset", "parquet"):
            out = folder / kind
            command = [python, folder / "get.py", folder / "list.csv", out, kind]
            subprocess.run(list(map(str, command)), check=True, capture_output=True)
            source = find_shards(out)
            tables = [read_shard(source.root, shard).table for shard in source.shards]
            rows = [row for table in tables for row in table.to_pylist()]
            totals = label(out, kb=folder / "kb", out=folder / f"i2e-{kind}")
            labels = ds.dataset(folder / f"i2e-{kind}/labels").to_table()
            same = {row["url"]: row["caption"] for row in rows} == captions
            same &= (totals.rows, totals.errors) == (24, {}) and len(labels) == 24
            said = f"{len(source.shards)} shards, {totals.kept} of {totals.rows} to choose from"
            print(f"{'ok ' if same else 'BAD'} img2dataset {version(python, 'img2dataset')} "
                  f"{kind}: {said}")  # fmt: skip
            good &= same and totals.kept == 24
    return good


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", type=Path, required=True, help="with pandas and the like")
    parser.add_argument("--older", type=Path, required=True, help="with img2dataset, autofaiss")
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="openmofi-makers-"))
    results = [
        check_vectors(given.python, folder),
        check_autofaiss(given.older, folder),
        check_img2dataset(given.older, folder),
    ]
    shutil.rmtree(folder)
    sys.exit(not all(results))


if __name__ == "__main__":
    main()
