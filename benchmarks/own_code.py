"""What the package does itself though a library does it, too: each beside its rival, in one table.

    python benchmarks/own_code.py                    every row, four minutes
    python benchmarks/own_code.py tables phash       these alone
    python benchmarks/own_code.py --list             their names
    python benchmarks/own_code.py map --regl regl.min.js    that file as `npm pack regl` has it

Prints the rows of docs/why_ours.md as Markdown. A ratio is the rival's CPU time over ours, both in
one process and one thread, in turns, medians of the rounds: above 1 ours is faster, below 1 the
rival is. Inputs are made up here. Rivals that the package does not depend on are skipped with a
note if they are not installed (best beside a copy of the environment, never in it):

    pip install webdataset simplejpeg imagehash pyahocorasick ahocorasick_rs daachorse flashtext
        spacy xxhash polars pandas datasketch pyexiv2 diskcache lmdb deltalake tensorboard kornia
        datasets

In brackets: how many packages a rival would bring along that the package does not need anyway.
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")
os.environ.setdefault("RAYON_NUM_THREADS", "1")
os.environ.setdefault("POLARS_MAX_THREADS", "1")
os.environ.setdefault("SCIPY_ARRAY_API", "1")  # scikit-learn with PyTorch's arrays


import pyarrow as pa
from own import disk, images, measuring, page, pairs, text, training
from own.rivals import Row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rows", nargs="*", metavar="ROW", help="which; all if none is named")
    parser.add_argument("--list", action="store_true", help="print the names of the rows")
    parser.add_argument("--regl", type=Path, help="regl.min.js, for the row `map`")
    given = parser.parse_args()
    if unknown := set(given.rows) - set(ROWS):
        parser.error(f"no row {sorted(unknown)}; there are {', '.join(ROWS)}")
    if given.list:
        print(*ROWS, sep="\n")
        return
    page.REGL = given.regl
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    print(f"{platform.machine()}, Python {platform.python_version()}, one thread\n")
    print("| row | file | rival | times faster | and |\n|---|---|---|---|---|")
    for name in given.rows or ROWS:
        file, row = ROWS[name]
        with tempfile.TemporaryDirectory() as folder:
            for found in row(Path(folder)):
                ratio = "" if found.ratio is None else _short(found.ratio)
                print(f"| {name} | `{file}` | {found.rival} | {ratio} | {found.note} |", flush=True)


def _short(ratio: float) -> str:
    return f"{ratio:.0f}" if ratio >= 10 else f"{ratio:.2g}"


ROWS: dict[str, tuple[str, Row]] = {
    "tar_scan": ("pairs/tar_scan.py", pairs.tar_scan),
    "random_access": ("train/loader.py", pairs.random_access),
    "tables": ("files/tables.py", pairs.csv_and_json),
    "gzip_tail": ("files/compressed.py", pairs.gzip_tail),
    "arrow_folder": ("pairs/arrow.py", pairs.arrow_folder),
    "jpeg": ("images/jpeg.py", images.jpeg_header),
    "orientation": ("images/orientation.py", images.orientation),
    "phash": ("images/phash.py", images.phash),
    "duplicates": ("select/duplicates.py", images.duplicates),
    "matcher": ("kb/index.py, link/mentions.py", text.matcher),
    "canonical": ("kb/text.py", text.canonical),
    "ngram_hashes": ("arrays/hashing.py", text.ngram_hashes),
    "entities": ("kb/entities.py", text.html_entities),
    "strings": ("arrays/strings.py", text.strings),
    "average_precision": ("evaluate/gpr1200.py", measuring.average_precision),
    "revisited": ("evaluate/revisited.py", measuring.revisited_oxford),
    "nearest": ("evaluate/metrics.py", measuring.nearest),
    "probe": ("evaluate/probe_solvers.py", measuring.probe),
    "row_optimiser": ("train/row_optim.py", training.row_optimiser),
    "permutation": ("train/order.py", training.permutation),
    "augment": ("train/augment.py", training.augmentation),
    "metrics_log": ("train/metrics_log.py", training.metrics_log),
    "pickle": ("evaluate/plain_pickle.py", disk.plain_pickle),
    "xmp": ("tag/xmp.py", disk.xmp),
    "vector_cache": ("evaluate/cache.py", disk.vector_cache),
    "commits": ("shards/commits.py", disk.commits),
    "workers": ("shards/local.py", disk.dying_workers),
    "plots": ("select/plots.py", page.report_plots),
    "map": ("serve/static/map", page.webgl_map),
}

if __name__ == "__main__":
    main()
