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
import contextlib
import csv
import functools
import gc
import gzip
import html
import importlib
import io
import json
import os
import pickle
import platform
import re
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import tracemalloc
import unicodedata
import uuid
import warnings
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import PackageNotFoundError, requires
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")
os.environ.setdefault("RAYON_NUM_THREADS", "1")
os.environ.setdefault("POLARS_MAX_THREADS", "1")
os.environ.setdefault("SCIPY_ARRAY_API", "1")  # scikit-learn with PyTorch's arrays

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet as pq
from packaging.requirements import Requirement
from PIL import Image, ImageOps
from reading import by_tarfile, image, taking_turns, write_tar

ROUNDS = 5


class Finding(NamedTuple):
    """One rival of one row."""

    rival: str
    ratio: float | None
    """Its CPU time over ours; None: a matter of what comes out, not of time."""
    note: str = ""


Row = Callable[[Path], Iterator[Finding]]


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
    global REGL
    REGL = given.regl
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


# ---- rivals --------------------------------------------------------------------------------------

REGL: Path | None = None


def rival(module: str, package: str | None = None) -> Any:
    """Returns a module, or None with a note on standard error."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module(module)
    except ImportError:
        print(f"skipped: {package or module} is not installed", file=sys.stderr)
        return None


def brings(package: str) -> str:
    """Returns "[+N]", the packages that come with one beside those that openmofi needs."""
    return f"[+{len(_closure(package) - _closure('openmofi'))}]"


@functools.cache
def _closure(package: str) -> frozenset[str]:
    found, waiting = set(), [package]
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in found:
            continue
        found.add(name)
        with contextlib.suppress(PackageNotFoundError):
            needs = [Requirement(text) for text in requires(name) or ()]
            waiting += [r.name for r in needs if not r.marker or r.marker.evaluate({"extra": ""})]
    return frozenset(found)


def ratios(
    ours: Callable[[], object], rivals: dict[str, Callable[[], object]], rounds: int = ROUNDS
) -> dict[str, float]:
    """Returns each rival's CPU time over ours, medians of rounds that take turns."""
    gc.collect()
    gc.freeze()  # what the inputs hold is not a rival's to walk through again and again
    seconds = taking_turns({"ours": ours} | rivals, rounds)
    return {name: seconds[name] / seconds["ours"] for name in rivals}


# ---- reading pairs -------------------------------------------------------------------------------


def tar_scan(folder: Path) -> Iterator[Finding]:
    from openmofi.pairs.tar import scan_tar

    images = [image(number, 128) for number in range(64)]
    wds = rival("webdataset.tariterators", "webdataset")

    def by_webdataset(path: Path) -> None:
        with path.open("rb") as file:
            for _ in wds.tar_file_iterator(file):
                pass

    for kind, form in (("plain", tarfile.USTAR_FORMAT), ("pax", tarfile.PAX_FORMAT)):
        path = folder / f"{kind}.tar"
        write_tar(path, 6000, images, form, 0.5 if kind == "pax" else 0)
        same = by_tarfile(path) == [(m.name, m.offset, m.size) for m in scan_tar(path)]
        rivals = {"tarfile": lambda p=path: by_tarfile(p)}
        if wds:
            rivals["webdataset"] = lambda p=path: by_webdataset(p)
        found = ratios(lambda p=path: scan_tar(p), rivals)
        yield Finding(f"tarfile, {kind} headers", found["tarfile"], f"same members: {same}")
        if wds:
            note = f"reads the contents, too {brings('webdataset')}"
            yield Finding(f"webdataset, {kind} headers", found["webdataset"], note)
    cut = folder / "cut.tar"
    cut.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    found, kept = scan_tar(cut), 0
    with contextlib.suppress(tarfile.ReadError), tarfile.open(cut) as archive:
        for _ in archive:
            kept += 1
    note = f"ours {len(found)} members and `{found.damage}`; tarfile {kept}, the last not whole"
    yield Finding("tarfile, a file cut in half", None, note)


def random_access(folder: Path) -> Iterator[Finding]:
    import loader

    from openmofi.train.data import open_train_data

    paths = loader.make_tars(folder, 6400, 128)
    data = open_train_data(folder)
    places = np.random.default_rng(0).permutation(6400)
    members = [(tarfile.open(p), {}) for p in paths]  # noqa: SIM115
    tracemalloc.start()
    for archive, known in members:
        known.update({m.name: m for m in archive.getmembers()})
    held = tracemalloc.get_traced_memory()[0] / (3 * 6400)
    tracemalloc.stop()

    def by_tarfile_members() -> int:
        count = 0
        for place in places.tolist():
            archive, known = members[place // 1600]
            key = f"{place % 1600:09d}"
            pair = (archive.extractfile(known[f"{key}.{end}"]).read() for end in ("jpg", "txt"))
            count += all(pair)
        return count

    rivals = {"tarfile": by_tarfile_members}
    if rival("webdataset"):
        rivals["webdataset"] = lambda: loader.theirs_bytes(paths)
    found = ratios(lambda: loader.ours_bytes(data, 64), rivals)
    notes = {
        "tarfile": f"in the same order; its index, made before, holds {held:.0f} bytes a member",
        "webdataset": "in order, through a shuffle buffer of 1,000; a step cannot be asked for",
    }
    for name, ratio in found.items():
        yield Finding(name, ratio, notes[name])


def csv_and_json(folder: Path) -> Iterator[Finding]:
    import duckdb

    from openmofi.files.tables import read_rows

    def rows(path: Path) -> list[str]:
        return [row.fields["text"] for row in read_rows(path) if not row.refused]

    def python_csv(path: Path) -> list[str]:
        with path.open(newline="") as file:
            return [row["text"] for row in csv.DictReader(file)]

    def python_json(path: Path) -> list[str]:
        with path.open() as file:
            return [json.loads(line)["text"] for line in file]

    rivals = {"csv": python_csv, "pyarrow.csv": lambda path: pa.csv.read_csv(path)["text"]}
    if polars := rival("polars"):
        rivals["polars"] = lambda path: polars.read_csv(path)["text"]
        rivals["polars, ignore_errors"] = lambda path: polars.read_csv(path, ignore_errors=True)[
            "text"
        ]
    if pandas := rival("pandas"):
        rivals["pandas"] = lambda path: pandas.read_csv(path)["text"]
        rivals["pandas, on_bad_lines='skip'"] = lambda path: pandas.read_csv(
            path, on_bad_lines="skip"
        )["text"]
    told = """auto_detect=false, delim=',', quote='"', escape='"',
        columns={'id': 'varchar', 'name': 'varchar', 'text': 'varchar'}"""
    for name, options in (("guessing", "auto_detect=true"), ("told the dialect", told)):
        rivals[f"duckdb, {name}, store_rejects"] = lambda path, o=options: duckdb.sql(
            f"select text from read_csv('{path}', header=true, store_rejects=true, {o})"
        ).to_arrow_table()["text"]
    duckdb.sql("set threads=1")
    texts = [f"some longer text of thing {i}" for i in range(100_000)]
    plain = ["id,name,text", *(f"{i},thing {i},{text}" for i, text in enumerate(texts))]
    quoted = ["id,name,text", *(f'{i},"thing, {i}",{text}' for i, text in enumerate(texts))]
    for what, lines in (("the only quote is not closed", plain), ("one of many is not", quoted)):
        good, bad = folder / "good.csv", folder / "bad.csv"
        good.write_text("\n".join(lines))
        bad.write_text("\n".join([*lines[:1001], f'1000,"thing,{texts[1000]}', *lines[1002:]]))
        timed = {name: lambda r=read, g=good: list(r(g)) for name, read in rivals.items()}
        found = ratios(lambda g=good: rows(g), timed, 3)
        for name, read in rivals.items():
            note = f"ours {_right(rows, bad, texts)}; {_right(read, bad, texts)}"
            more = f" {brings(name[:6])}" if name[:6] in ("polars", "pandas") else ""
            yield Finding(f"{name}; {what}", found[name], note + more)
    good, bad = folder / "good.jsonl", folder / "bad.jsonl"
    lines = [json.dumps({"id": i, "text": text}) for i, text in enumerate(texts)]
    good.write_text("\n".join(lines))
    bad.write_text("\n".join([*lines[:1000], '{"id": 1000, "te', *lines[1001:]]))
    rivals = {"json": python_json, "pyarrow.json": lambda path: pa.json.read_json(path)["text"]}
    timed = {name: lambda r=read: list(r(good)) for name, read in rivals.items()}
    found = ratios(lambda: rows(good), timed, 3)
    for name, read in rivals.items():
        note = f"ours {_right(rows, bad, texts)}; {_right(read, bad, texts)}"
        yield Finding(f"{name}; one line cut off", found[name], note)


def _right(read: Callable[[Path], Any], path: Path, texts: list[str]) -> str:
    """Returns how many of the undamaged rows a reader gives, and how many wrong ones."""
    try:
        found = {str(text) for text in read(path)}
    except Exception as error:
        return f"it none ({type(error).__name__})"
    right = len(found & (set(texts) - {texts[1000]}))
    wrong = len(found - set(texts))
    return f"{right:,} of 99,999 rows and {wrong} wrong ones"


def gzip_tail(folder: Path) -> Iterator[Finding]:
    from isal import igzip

    from openmofi.files.lines import Blocks, TruncatedFile

    text = "\n".join(f"{i} {uuid.UUID(int=i * 7919**9 % 2**128)}" for i in range(300_000)).encode()
    whole, cut = folder / "whole.gz", folder / "cut.gz"
    whole.write_bytes(gzip.compress(text, 6))
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size * 6 // 10])

    def ours(path: Path) -> int:
        size = 0
        with contextlib.suppress(TruncatedFile), Blocks(path) as blocks:
            for block in blocks:
                size += len(block)
        return size

    def pieces(opened: Callable[[Path], Any]) -> Callable[[Path], int]:
        def read(path: Path) -> int:
            size = 0
            with contextlib.suppress(EOFError, zlib.error, OSError), opened(path) as file:
                while block := file.read(1 << 20):
                    size += len(block)
            return size

        return read

    rivals = {"gzip": pieces(gzip.open), "isal's igzip": pieces(igzip.open)}
    found = ratios(lambda: ours(whole), {n: lambda r=r: r(whole) for n, r in rivals.items()})
    possible = len(zlib.decompressobj(31).decompress(cut.read_bytes()))
    for name, read in rivals.items():
        lost = f"{possible - read(cut):,} of {possible:,} readable bytes; ours loses "
        note = f"of a file cut off, it loses {lost}{possible - ours(cut):,}"
        yield Finding(name, found[name], note)


def arrow_folder(folder: Path) -> Iterator[Finding]:
    from openmofi.pairs import find_shards, read_shard

    if not (datasets := rival("datasets")):
        return
    datasets.disable_progress_bars()
    rows = {"image": [image(i % 64, 64) for i in range(5000)]}
    rows["caption"] = [f"a photo of thing {i}" for i in range(5000)]
    features = datasets.Features({"image": datasets.Image(), "caption": datasets.Value("string")})
    table = {"image": [{"bytes": b, "path": None} for b in rows["image"]]}
    made = datasets.Dataset.from_dict(table | {"caption": rows["caption"]}, features=features)
    made.save_to_disk(str(folder / "saved"))

    def ours() -> int:
        source = find_shards(folder / "saved")
        return sum(len(read_shard(source.root, shard).table) for shard in source.shards)

    def theirs() -> int:
        return len(list(datasets.load_from_disk(str(folder / "saved"))["caption"]))

    note = f"captions and where the images lie {brings('datasets')}"
    yield Finding("datasets", ratios(ours, {"r": theirs})["r"], note)


# ---- images ------------------------------------------------------------------------------------


def jpeg_header(folder: Path) -> Iterator[Finding]:
    from openmofi.images.jpeg import PlainJpeg, plain_jpeg

    def header(data: bytes) -> PlainJpeg:
        found = plain_jpeg(data)
        assert found
        return found

    def drafted(data: bytes) -> Image.Image:
        image = Image.open(io.BytesIO(data))
        image.draft("L", (image.width // 2, image.height // 2))
        image.load()
        return image

    def opened(data: bytes) -> Image.Image:
        image = Image.open(io.BytesIO(data))
        image.load()
        return image

    simple = rival("simplejpeg")
    for side in (96, 1024):
        data = [image(number, side) for number in range(100 if side < 500 else 8)]
        ours = [header(d).decode(d).tobytes() for d in data]
        same = ours == [opened(d).tobytes() for d in data]
        jobs = {
            "header alone": (header, lambda d: Image.open(io.BytesIO(d)).size),
            "decoded": (lambda d: header(d).decode(d), opened),
            "grey at half the size": (lambda d: header(d).decode(d, scale=2, grey=True), drafted),
        }
        for what, (mine, theirs) in jobs.items():
            repeats = range(20 if what == "header alone" else 1)
            found = ratios(
                lambda f=mine, n=repeats, some=data: [f(d) for _ in n for d in some],
                {"r": lambda f=theirs, n=repeats, some=data: [f(d) for _ in n for d in some]},
            )
            note = f"same pixels: {same}" if what == "decoded" else ""
            yield Finding(f"Pillow, {side} px, {what}", found["r"], note)
        if simple:
            found = ratios(
                lambda some=data: [header(d).decode(d) for d in some],
                {"r": lambda some=data: [simple.decode_jpeg(d) for d in some]},
            )
            theirs = [simple.decode_jpeg(d).tobytes() for d in data]
            note = f"same pixels: {theirs == ours} {brings('simplejpeg')}"
            yield Finding(f"simplejpeg, {side} px, decoded", found["r"], note)
            half = {"min_height": side // 2, "min_width": side // 2, "colorspace": "GRAY"}
            found = ratios(
                lambda some=data: [header(d).decode(d, scale=2, grey=True) for d in some],
                {"r": lambda some=data, h=half: [simple.decode_jpeg(d, **h) for d in some]},
            )
            yield Finding(f"simplejpeg, {side} px, grey at half the size", found["r"])


def orientation(folder: Path) -> Iterator[Finding]:
    from openmofi.images.decode import decode_image

    def jpeg(entry: bytes) -> bytes:
        turned = b"\x12\x01\x03\0\x01\0\0\0\x06\0\0\0"
        block = b"Exif\0\0II*\0\x08\0\0\0\x02\0" + turned + entry + b"\0\0\0\0"
        buffer = io.BytesIO()
        Image.new("RGB", (96, 64), (90, 90, 200)).save(buffer, "JPEG", exif=block)
        return buffer.getvalue()

    good, odd = jpeg(b"\x1b\x01\x03\0\x01\0\0\0\x48\0\0\0"), jpeg(b"\x1a\x01\x02\0\x04\0\0\0abc\0")

    def pillow(data: bytes) -> tuple[int, int]:
        return ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB").size

    def ours(data: bytes) -> tuple[int, int]:
        image = decode_image(data)
        return (image[0] if isinstance(image, tuple) else image).size

    assert ours(good) == pillow(good) == (64, 96)
    try:
        came = f"{pillow(odd)}"
    except Exception as error:
        came = f"{type(error).__name__}, the image is lost"
    found = ratios(
        lambda: [ours(good) for _ in range(200)], {"r": lambda: [pillow(good) for _ in range(200)]}
    )
    note = f"a resolution written as text: ours {ours(odd)}; Pillow {came}"
    yield Finding("Pillow's exif_transpose", found["r"], note)


def phash(folder: Path) -> Iterator[Finding]:
    from openmofi.demo.entities import WORLD
    from openmofi.demo.flags import draw_flag
    from openmofi.demo.photograph import photograph
    from openmofi.images.phash import distance, perceptual_hash

    if not (theirs := rival("imagehash", "imagehash")):
        return
    rng = np.random.default_rng(0)
    drawn = [draw_flag(entity, 192) for entity in WORLD]
    flags = [flag.convert("RGB") for flag in drawn]
    photos = [photograph(flag, rng, size=192) for flag in drawn for _ in range(4)]

    def again(image: Image.Image) -> Image.Image:
        buffer = io.BytesIO()
        image.resize((image.width * 2 // 3, image.height * 2 // 3)).save(buffer, "JPEG", quality=60)
        return Image.open(buffer)

    def number(image: Image.Image) -> int:
        return int(str(theirs.phash(image)), 16)

    def told(hashed: Callable[[Image.Image], int | None], images: list[Image.Image]) -> str:
        first, second = ([hashed(image) for image in some] for some in (images, copies(images)))
        known = [h for h in first if h is not None]
        same = sum(
            distance(a, b) <= 4
            for a, b in zip(first, second, strict=True)
            if a is not None and b is not None
        )
        mixed = sum(distance(a, b) <= 4 for i, a in enumerate(known) for b in known[:i])
        flat = f", {len(first) - len(known)} called too flat" if len(known) < len(first) else ""
        return f"{same} of {len(first)} found again{flat}, {mixed} false pairs"

    def copies(images: list[Image.Image]) -> list[Image.Image]:
        return [again(image) for image in images]

    shots = [Image.open(io.BytesIO(data)).convert("RGB") for data in photos]
    found = ratios(
        lambda: [perceptual_hash(i) for i in shots], {"r": lambda: [number(i) for i in shots]}
    )
    notes = [
        f"{what}: ours {told(perceptual_hash, images)}; it {told(number, images)}"
        for what, images in (("photos of flags", shots), ("flags alone", flags))
    ]
    yield Finding("imagehash", found["r"], f"{'; '.join(notes)} {brings('imagehash')}")


def duplicates(folder: Path) -> Iterator[Finding]:
    import faiss

    from openmofi.select.duplicates import near_duplicates

    faiss.omp_set_num_threads(1)
    rng = np.random.default_rng(0)

    def made(num: int) -> np.ndarray:
        hashes = rng.integers(0, 1 << 63, num, dtype=np.uint64)
        again = rng.integers(0, num, num // 10)
        flips = np.uint64(1) << rng.integers(0, 63, (3, num // 10), dtype=np.uint64)
        copies = hashes[again] ^ np.bitwise_xor.reduce(flips)
        return rng.permutation(np.concatenate([hashes, copies]))

    def pairs(index: Any, codes: np.ndarray) -> list[tuple[int, int]]:
        index.add(codes)
        limits, _, found = index.range_search(codes, 5)  # less than 5 bits
        limits = np.asarray(limits).astype(np.int64)
        of = np.repeat(np.arange(len(codes)), np.diff(limits))
        return list(zip(of[of > found].tolist(), found[of > found].tolist(), strict=True))

    def left(removed: set[int], near: list[tuple[int, int]]) -> str:
        both = sum(a not in removed and b not in removed for a, b in near)
        return f"{both} of {len(near):,} near pairs are left, {len(removed):,} hashes removed"

    hashes = made(60_000)
    codes = hashes.view(np.uint8).reshape(-1, 8)
    rivals = {
        "faiss IndexBinaryFlat": lambda: pairs(faiss.IndexBinaryFlat(64), codes),
        "faiss IndexBinaryMultiHash": lambda: pairs(faiss.IndexBinaryMultiHash(64, 5, 12), codes),
    }
    timed = ratios(lambda: near_duplicates(hashes, 4), rivals, 3)
    ours = set(np.flatnonzero(near_duplicates(hashes, 4) >= 0).tolist())
    exact = rivals["faiss IndexBinaryFlat"]()
    for name, run in rivals.items():
        note = f"ours: {left(ours, exact)}; it lists {len(run()):,} pairs, of which to choose"
        yield Finding(f"{name}, 66,000 hashes", timed[name], note)
    if not (sketch := rival("datasketch")):
        return
    few = made(2000)

    def by_minhash() -> set[int]:
        lsh, removed = sketch.MinHashLSH(threshold=0.8, num_perm=128), set()
        for i, word in enumerate(few.tolist()):
            bits = sketch.MinHash(num_perm=128)
            bits.update_batch([b"%d %d" % (bit, word >> bit & 1) for bit in range(64)])
            if lsh.query(bits):
                removed.add(i)
            else:
                lsh.insert(i, bits)
        return removed

    timed = ratios(lambda: near_duplicates(few, 4), {"r": by_minhash}, 1)
    exact = pairs(faiss.IndexBinaryFlat(64), few.view(np.uint8).reshape(-1, 8))
    ours, theirs = set(np.flatnonzero(near_duplicates(few, 4) >= 0).tolist()), by_minhash()
    note = f"ours: {left(ours, exact)}; it: {left(theirs, exact)} {brings('datasketch')}"
    yield Finding("datasketch MinHashLSH, 2,200 hashes", timed["r"], note)


# ---- text and names ------------------------------------------------------------------------------

_TEMPLATES = (
    "Flag of {} flying in São Paulo, Brazil",
    "a postcard from {} - Dvořák's house, 1904",
    "{} & friends at the U.S. Open",
    "the old town of {}, seen from the river",
)


def _captions(count: int) -> list[str]:
    rng = np.random.default_rng(0)
    syllables = [c + v for c in "BDFGKLMNPRST" for v in "aeiouéü"]
    names = ["".join(rng.choice(syllables, 3)).title() for _ in range(1000)]
    return [_TEMPLATES[i % 4].format(names[i * 7 % 1000]) for i in range(count)]


def matcher(folder: Path) -> Iterator[Finding]:
    import matcher as rows

    words = rows.make_words()
    names = rows.build(words, 100_000, folder / "index", keep=True)
    captions = rows.make_captions(words, 100_000, 4000)
    texts = captions.to_pylist()
    index = rows.NameIndex.open(folder / "index")
    ours = rows.ours_from_tokens(index, captions)
    rivals: dict[str, tuple[str, Callable[[], int]]] = {}
    spaced = [rows.spaced(text) for text in texts]
    for name, make in rows.automata(names).items():
        package = name.split("(")[-1].rstrip(")")
        if not name.endswith("contiguous (ahocorasick_rs)") and not name.startswith("the same"):
            with contextlib.suppress(ImportError):
                find = make()
                rivals[name] = package, lambda f=find: sum(len(f(text)) for text in spaced)
    if flashtext := rival("flashtext"):
        processor = flashtext.KeywordProcessor(case_sensitive=True)
        processor.add_keywords_from_list(names)
        rivals["flashtext"] = (
            "flashtext",
            lambda: sum(len(processor.extract_keywords(text)) for text in texts),
        )
    if spacy := rival("spacy"):
        language = spacy.blank("en")
        phrases = rival("spacy.matcher").PhraseMatcher(language.vocab)
        phrases.add("NAME", list(language.tokenizer.pipe(names)))
        filtered = rival("spacy.util").filter_spans
        rivals["spaCy's PhraseMatcher"] = (
            "spacy",
            lambda: sum(
                len(filtered(phrases(doc, as_spans=True))) for doc in language.tokenizer.pipe(texts)
            ),
        )
    timed, wanted = ratios(ours, {name: run for name, (_, run) in rivals.items()}, 3), ours()
    for name, (package, run) in rivals.items():
        note = f"{run():,} names found, ours {wanted:,} {brings(package)}"
        yield Finding(f"{name}, 100,000 names", timed[name], note)
    whole = ratios(ours, {"r": lambda: rows.ours(index)(captions)}, 3)["r"]
    yield Finding("ours, with the canonical text", whole, "the rivals get canonical captions")


def canonical(folder: Path) -> Iterator[Finding]:
    from tokenizers import normalizers, pre_tokenizers

    from openmofi.kb.text import canonical_batch, tokenise

    texts = _captions(20_000)
    word = re.compile(r"\w+")

    def in_python() -> list[list[str]]:
        folded = (unicodedata.normalize("NFKD", text.casefold()) for text in texts)
        bare = ("".join(c for c in t if not unicodedata.combining(c)) for t in folded)
        return [word.findall(text) for text in bare]

    bert, split = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()

    def in_rust() -> list[list[str]]:
        return [[w for w, _ in split.pre_tokenize_str(bert.normalize_str(text))] for text in texts]

    rivals = {"unicodedata and re": in_python, "tokenizers' BERT": in_rust}
    array = pa.array(texts)

    def in_arrow() -> pa.Array:
        lower = pa.compute.utf8_lower(pa.compute.utf8_normalize(array, "NFKD"))
        return pa.compute.utf8_split_whitespace(lower)

    rivals["pyarrow.compute"] = in_arrow
    if spacy := rival("spacy"):
        tokenizer = spacy.blank("en").tokenizer
        rivals["spacy's tokenizer"] = lambda: [
            [token.lower_ for token in doc] for doc in tokenizer.pipe(texts)
        ]
    shown = "AT&T in the U.S.A.: Dvořák's"
    folded = unicodedata.normalize("NFKD", shown.casefold())
    bare = "".join(c for c in folded if not unicodedata.combining(c))
    theirs = {
        "unicodedata and re": word.findall(bare),
        "tokenizers' BERT": [w for w, _ in split.pre_tokenize_str(bert.normalize_str(shown))],
    }
    mine = canonical_batch([shown])[0].as_py()
    for name, ratio in ratios(lambda: tokenise(texts), rivals, 3).items():
        note = "keeps accents and signs"
        if name in theirs:
            note = f"«{shown}»: «{' '.join(theirs[name])}», ours «{mine}»"
        yield Finding(name, ratio, f"{note}; ours tells places and case, too")


def ngram_hashes(folder: Path) -> Iterator[Finding]:
    from openmofi.arrays.hashing import Hasher
    from openmofi.kb.text import tokenise

    tokens, hasher = tokenise(_captions(5000)), Hasher(0)
    first = np.arange(len(tokens))
    last = first[:, None] + np.arange(5)
    fits = last < tokens.row_start[tokens.row + 1][:, None]
    start, end = np.repeat(tokens.start, fits.sum(1)), tokens.end[last[fits]]
    hasher.spans(tokens.buffer, start, end)  # makes the table of powers

    def ours() -> np.ndarray:
        return hasher.spans(tokens.buffer, start, end)

    text = tokens.buffer.tobytes()
    spans = list(zip(start.tolist(), end.tolist(), strict=True))
    rivals = {"hash() of slices": lambda: [hash(text[a:b]) for a, b in spans]}
    if xxhash := rival("xxhash"):
        digest = xxhash.xxh3_64_intdigest
        rivals["xxhash of slices"] = lambda: [digest(text[a:b]) for a, b in spans]
    notes = {"hash() of slices": "another value in every process"}
    for name, ratio in ratios(ours, rivals).items():
        yield Finding(f"{name}, {len(spans):,} n-grams", ratio, notes.get(name, ""))


def html_entities(folder: Path) -> Iterator[Finding]:
    from openmofi.arrays.strings import string_buffers
    from openmofi.kb.entities import expand_entities

    def ours(texts: list[str]) -> Callable[[], Any]:
        offsets, data = string_buffers(pa.array(texts, pa.large_string()))
        return lambda: expand_entities(data, offsets)

    plain = [text.replace("&", "and") for text in _captions(20_000)]
    few = [
        text.replace(" and ", " &amp; ") if i % 20 == 2 else text for i, text in enumerate(plain)
    ]
    every = [f"{text} caf&eacute; &#39;n&#39;" for text in plain]
    for share, texts in (("none", plain), ("one caption in 20", few), ("each, three", every)):
        found = ratios(ours(texts), {"r": lambda t=texts: [html.unescape(text) for text in t]})
        yield Finding(f"html.unescape; {share} with entities", found["r"], "ours tells places, too")
    for text in ("shop?a=1&copy=2", "&amp;eacute;"):
        found = ours([text])()
        mine = found.data.tobytes().decode() if found else text
        note = f"of `{text}` it makes `{html.unescape(text)}`, ours `{mine}`"
        yield Finding("html.unescape", None, note)


def strings(folder: Path) -> Iterator[Finding]:
    from openmofi.arrays.strings import open_strings, write_strings

    batches = [
        pa.array([f"Q{i} thing number {i}" for i in range(at, at + 16_384)], pa.large_string())
        for at in range(0, 16_384 * 64, 16_384)
    ]
    write_strings(folder / "ours", batches)
    schema = pa.schema([("s", pa.large_string())])

    def write(path: Path, parts: list[pa.Array]) -> None:
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
            for part in parts:
                writer.write_batch(pa.record_batch([part], schema=schema))

    write(folder / "batches.arrow", batches)
    write(folder / "one.arrow", [pa.concat_arrays(batches)])

    def arrow(name: str) -> pa.ChunkedArray:
        return pa.ipc.open_file(pa.memory_map(str(folder / name))).read_all()["s"]

    rng = np.random.default_rng(0)
    rows = rng.integers(0, 16_384 * 64, 5000)
    wanted, single = pa.array(rows), rows.tolist()
    mapped = {"ours": open_strings(folder / "ours"), "one batch": arrow("one.arrow")}
    mapped["64 batches"] = arrow("batches.arrow")
    jobs = {
        "opening": lambda n: {
            "ours": lambda: [open_strings(folder / "ours") for _ in range(100)],
            "one batch": lambda: [arrow("one.arrow") for _ in range(100)],
            "64 batches": lambda: [arrow("batches.arrow") for _ in range(100)],
        }[n](),
        "5,000 rows at once": lambda n: mapped[n].take(wanted),
        "5,000 rows one by one": lambda n: [mapped[n][i].as_py() for i in single],
    }
    for what, job in jobs.items():
        names = ("one batch", "64 batches")
        found = ratios(lambda j=job: j("ours"), {n: lambda j=job, n=n: j(n) for n in names})
        for name, ratio in found.items():
            note = "written only by who holds all in memory" if name == "one batch" else ""
            yield Finding(f"Arrow IPC, mapped, {name}; {what}", ratio, note)


# ---- measuring -----------------------------------------------------------------------------------


def average_precision(folder: Path) -> Iterator[Finding]:
    import retrieval_protocols as protocols
    from sklearn.metrics import average_precision_score

    from openmofi.evaluate import gpr1200

    vectors = protocols.gpr_vectors(np.random.default_rng(0), 256, 4.0)
    labels = np.arange(12_000) // 10

    def by_sklearn(queries: int = 300) -> float:
        near = vectors[:queries] @ vectors.T
        pairs = zip(labels[:queries], near, strict=True)
        return float(np.mean([average_precision_score(labels == y, row) for y, row in pairs]))

    seconds = taking_turns(
        {
            "ours": lambda: gpr1200.mean_average_precision(vectors),
            "sort": lambda: protocols.sorted_gpr1200(vectors),
            "sklearn": by_sklearn,
        },
        3,
    )
    off = abs(
        gpr1200.mean_average_precision(vectors)["all"] - protocols.sorted_gpr1200(vectors)["all"]
    )
    ratio = seconds["sklearn"] * 40 / seconds["ours"]
    tied = np.tile(vectors[:1], (12_000, 1))
    by_chance = gpr1200.mean_average_precision(tied)["all"]
    by_sorting = protocols.sorted_gpr1200(tied)["all"]
    note = f"12,000 equal vectors score {by_chance:.4f} with ours, {by_sorting:.4f} by sorting"
    yield Finding("sorting, as the official code", seconds["sort"] / seconds["ours"], note)
    yield Finding(
        "scikit-learn, a 40th of the queries", ratio, f"differs from sorting by {off:.0e}"
    )


def revisited_oxford(folder: Path) -> Iterator[Finding]:
    import retrieval_protocols as protocols

    from openmofi.evaluate import revisited

    gallery, queries, truth = protocols.made_up_oxford(np.random.default_rng(0))
    similarity = queries @ gallery.T
    timed = ratios(
        lambda: revisited.score_similarities(similarity, truth),
        {"r": lambda: protocols.sorted_revisited(similarity, truth)},
    )
    yield Finding("sorting, as the official code", timed["r"], "from similarities; same scores")


def nearest(folder: Path) -> Iterator[Finding]:
    import faiss
    from sklearn.neighbors import NearestNeighbors

    from openmofi.evaluate.metrics import nearest as ours

    faiss.omp_set_num_threads(1)
    vectors = np.random.default_rng(0).standard_normal((22_000, 256), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    gallery, queries = vectors[:20_000], vectors[20_000:]

    def by_faiss() -> np.ndarray:
        index = faiss.IndexFlatIP(256)
        index.add(gallery)
        return index.search(queries, 20)[1]

    def by_sklearn() -> np.ndarray:
        found = NearestNeighbors(n_neighbors=20, algorithm="brute").fit(gallery)
        return found.kneighbors(queries, return_distance=False)

    rivals = {"faiss IndexFlatIP": by_faiss, "scikit-learn": by_sklearn}
    timed = ratios(lambda: ours(queries, gallery, 20, same=False), rivals)
    mine = ours(queries, gallery, 20, same=False)[0]
    for name, run in rivals.items():
        note = f"{np.mean(run() == mine):.4f} the same; ours: of equals the first"
        yield Finding(name, timed[name], note)


def probe(folder: Path) -> Iterator[Finding]:
    import sklearn
    import torch
    from sklearn.linear_model import LogisticRegression

    from openmofi.evaluate.probe_solvers import _prior, solve_sklearn, torch_solver

    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, 5000)
    vectors = rng.standard_normal((10, 512))[labels] + 2 * rng.standard_normal((5000, 512))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    tensors = torch.from_numpy(vectors.astype(np.float64)), torch.from_numpy(labels)

    def dispatched() -> object:
        model = LogisticRegression(
            C=10.0, tol=_prior(vectors, labels, 10.0).tolerance, max_iter=1000
        )
        with sklearn.config_context(array_api_dispatch=True):
            return model.fit(*tensors)

    rivals = {
        "scikit-learn, which a CPU gets": lambda: solve_sklearn(vectors, labels, 10.0),
        "scikit-learn on PyTorch's arrays": dispatched,
    }
    found = ratios(lambda: torch_solver("cpu")(vectors, labels, 10.0), rivals)
    for name, ratio in found.items():
        yield Finding(name, ratio, "ours is for GPUs, timed here on a CPU; same iterations")


# ---- training ------------------------------------------------------------------------------------


def row_optimiser(folder: Path) -> Iterator[Finding]:
    import torch
    from torch.nn.functional import normalize

    from openmofi.train.row_optim import make_state, through_normalise, update_rows

    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", message="Sparse invariant")  # in torch's Adagrad
    rows, dim, used = 300_000, 128, 8192
    gradient = torch.randn(used, dim) / 100
    index = torch.randperm(rows)[:used].sort().values
    start = normalize(torch.randn(rows, dim), dim=1)

    def of_torch(make: Callable[..., Any], kind: str) -> tuple[Callable[[], None], int]:
        weight = torch.nn.Parameter(start.clone())
        optimizer = make([weight], lr=0.01)

        def step() -> None:
            given = gradient
            if kind == "unit":
                given = through_normalise(weight.detach()[index], gradient)
            places = index[None]
            weight.grad = torch.sparse_coo_tensor(
                places, given, (rows, dim), is_coalesced=True, check_invariants=False
            )
            if kind == "dense":
                weight.grad = weight.grad.to_dense()
            optimizer.step()
            if kind == "unit":
                with torch.no_grad():
                    weight[index] = normalize(weight[index], dim=1)

        step()
        state = optimizer.state[weight].values()
        return step, sum(v.numel() * v.element_size() for v in state if torch.is_tensor(v))

    def of_ours(kind: str) -> tuple[Callable[[], None], int]:
        weight, state = start.clone(), make_state(kind, rows, dim, torch.device("cpu"))
        size = sum(v.numel() * v.element_size() for v in state.values())
        step = functools.partial(update_rows, kind, weight, state, index, gradient)
        return functools.partial(step, learning_rate=0.01), size

    optim = torch.optim
    cases = (
        ("lazy-adam", "SparseAdam", optim.SparseAdam, "plain"),
        ("lazy-adam", "SparseAdam, rows kept of length 1", optim.SparseAdam, "unit"),
        ("row-adam", "SparseAdam, rows kept of length 1", optim.SparseAdam, "unit"),
        ("row-adagrad", "Adagrad, rows kept of length 1", optim.Adagrad, "unit"),
        ("lazy-adam", "AdamW with a gradient of all rows", optim.AdamW, "dense"),
    )
    for kind, name, make, how in cases:
        (ours, own), (theirs, size) = of_ours(kind), of_torch(make, how)
        found = ratios(
            lambda f=ours: [f() for _ in range(4)], {"r": lambda f=theirs: [f() for _ in range(4)]}
        )
        note = f"state of {own / 1e6:.0f} MB, the rival's {size / 1e6:.0f}"
        if how == "plain":
            note += "; only ours keeps rows of length 1"
        yield Finding(f"torch's {name}; `{kind}`", found["r"], note)


def permutation(folder: Path) -> Iterator[Finding]:
    import torch

    from openmofi.train.order import permute

    total, batch = 100_000_000, 65_536
    seconds = taking_turns(
        {
            "ours": lambda: permute(np.arange(batch), total=total, key=1),
            "few": lambda: permute(np.arange(512), total=10 * total, key=1),
        },
        ROUNDS,
    )
    each = seconds["ours"] / batch
    rng = np.random.default_rng(0)
    rivals = {"torch.randperm": lambda: torch.randperm(total)}
    rivals["numpy's permutation"] = lambda: rng.permutation(total)
    for name, run in rivals.items():
        began = time.process_time()
        run()
        took = time.process_time() - began
        note = (
            f"a row of 100 million: {1e9 * each:.0f} ns, the rival {1e9 * took / total:.0f}, which "
            f"holds 8 bytes a row and waits {took:.0f} s before the first; ours holds nothing and "
            f"has 512 of 10^9 after {1e3 * seconds['few']:.1g} ms"
        )
        yield Finding(name, took / total / each, note)
    jobs = {
        f"{rows:,} rows, {batch} at once": functools.partial(
            permute, np.arange(batch), total=rows, key=1
        )
        for rows in (4096, 4097, 6400, 10**9)
        for batch in (64, 512)
    }
    seconds = taking_turns(jobs, 50)
    each = {name: 1e6 * taken / int(name.split()[-3]) for name, taken in seconds.items()}
    times = "; ".join(f"{name}: {taken:.1f} µs" for name, taken in each.items())
    yield Finding("ours, a row", None, times)


def augmentation(folder: Path) -> Iterator[Finding]:
    import torch

    from openmofi.config import AugmentSettings
    from openmofi.train.augment import NUM_DRAWS, augment

    if not rival("kornia"):
        return
    kornia = rival("kornia.augmentation", "kornia")
    torch.set_num_threads(1)
    pixels = torch.randint(0, 256, (128, 64, 64, 3), dtype=torch.uint8)
    draws, settings = torch.rand(128, NUM_DRAWS), AugmentSettings(crop=0.5, flip=True, colour=0.3)
    change = torch.nn.Sequential(
        kornia.RandomResizedCrop((64, 64), scale=(0.5, 1.0)),
        kornia.RandomHorizontalFlip(),
        kornia.ColorJitter(0.3, 0.3, 0.3, 0.0, p=1.0),
    )

    def theirs() -> torch.Tensor:
        images = change(pixels.permute(0, 3, 1, 2).float() / 255)
        return (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1)

    found = ratios(lambda: augment(pixels, settings, draws), {"r": theirs})
    note = f"draws from torch's global state; ours takes the numbers {brings('kornia')}"
    yield Finding("kornia", found["r"], note)


def metrics_log(folder: Path) -> Iterator[Finding]:
    from openmofi.config import TrainSettings
    from openmofi.train.metrics_log import MetricsLog

    if not rival("tensorboard"):
        return
    from torch.utils.tensorboard import SummaryWriter

    values = {f"metric_{i}": 1 / (i + 3) for i in range(10)}
    log, writer = MetricsLog(folder, TrainSettings()), SummaryWriter(str(folder / "board"))

    def theirs() -> None:
        for step in range(200):
            for name, value in values.items():
                writer.add_scalar(name, value, step)

    found = ratios(lambda: [log.write(step, values) for step in range(200)], {"r": theirs})
    writer.close()
    child = (
        "import os, sys\nfrom torch.utils.tensorboard import SummaryWriter\n"
        "w = SummaryWriter(sys.argv[1])\n"
        "for i in range(100): w.add_scalar('loss', 1.0, i)\nos.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", child, str(folder / "killed")], check=False)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(folder / "killed")).Reload()
    kept = len(board.Scalars("loss")) if "loss" in board.Tags()["scalars"] else 0
    note = f"after kill -9 right behind 100 steps it has {kept}, ours all {brings('tensorboard')}"
    yield Finding("tensorboard", found["r"], note)


# ---- what lies on disk ---------------------------------------------------------------------------


class _Touch:
    """Pickled, it is a call of a function, as an attack would be."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


def plain_pickle(folder: Path) -> Iterator[Finding]:
    from openmofi.errors import InputError
    from openmofi.evaluate.plain_pickle import plain_values

    rng = np.random.default_rng(0)
    truth = [{k: rng.integers(0, 5000, 60) for k in ("easy", "hard", "junk")} for _ in range(70)]
    data = pickle.dumps({"gnd": truth, "imlist": [f"image_{i}" for i in range(5000)]}, 2)
    found = ratios(lambda: plain_values(data), {"r": lambda: pickle.loads(data)})
    attack = pickle.dumps([_Touch(folder / "attacked")])
    try:
        plain_values(attack)
        said = "nothing"
    except InputError as error:
        said = str(error).split(",")[0]
    assert not (folder / "attacked").exists()
    pickle.loads(attack)
    ran = (folder / "attacked").exists()
    note = f"a file that calls a function: pickle runs it ({ran}); ours: «{said}»"
    yield Finding("pickle", found["r"], note)


def xmp(folder: Path) -> Iterator[Finding]:
    from openmofi.tag.tagger import Tag
    from openmofi.tag.xmp import write_sidecar

    if not (pyexiv2 := rival("pyexiv2")):
        return
    before = (
        '<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?>\n<!-- kept by hand -->\n'
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-'
        'syntax-ns#"><rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/" '
        'xmlns:my="urn:mine:1" my:rating="5"><dc:subject><rdf:Bag><rdf:li>holiday</rdf:li>'
        '</rdf:Bag></dc:subject></rdf:Description></rdf:RDF></x:xmpmeta>\n<?xpacket end="w"?>'
    )
    ours, theirs = folder / "ours.xmp", folder / "theirs.xmp"
    tag = Tag("Q657", "Chad", "a country", 0.5, 0.9, None)

    def by_ours() -> None:
        ours.write_text(before)
        write_sidecar(ours, [tag])

    def by_pyexiv2() -> None:
        theirs.write_text(before)
        with pyexiv2.Image(str(theirs)) as image:
            image.modify_xmp({"Xmp.dc.subject": ["holiday", "Chad"]})

    found = ratios(
        lambda: [by_ours() for _ in range(20)], {"r": lambda: [by_pyexiv2() for _ in range(20)]}
    )
    kept = {
        "a comment": "<!-- kept by hand -->",
        "another's namespace": '"urn:mine:1"',
        "the kind of list": "<rdf:Bag>",
    }
    lost = [
        ", ".join(what for what, text in kept.items() if text not in path.read_text()) or "nothing"
        for path in (ours, theirs)
    ]
    note = f"of a sidecar that is there, ours changes {lost[0]}, it {lost[1]}; GPL-3.0, native code"
    yield Finding("pyexiv2", found["r"], f"{note} {brings('pyexiv2')}")


def vector_cache(folder: Path) -> Iterator[Finding]:
    from openmofi.evaluate.cache import VectorCache, content_key

    vectors = np.random.default_rng(0).standard_normal((8192, 512)).astype(np.float32)
    keys = [content_key(b"%d" % i) for i in range(len(vectors))]
    blocks = [range(at, at + 256) for at in range(0, len(vectors), 256)]

    def ours(place: Path) -> None:
        cache = VectorCache(place, 512)
        for block in blocks:
            cache.put(keys[block.start : block.stop], vectors[block.start : block.stop])

    def from_ours(place: Path) -> list[np.ndarray | None]:
        cache = VectorCache(place, 512)
        return [cache.get(key) for key in keys]

    stores: dict[str, tuple[Callable[[Path], None], Callable[[Path], list]]] = {}
    if diskcache := rival("diskcache"):

        def by_diskcache(place: Path) -> None:
            with diskcache.Cache(str(place)) as cache:
                for block in blocks:
                    with cache.transact():
                        for i in block:
                            cache[keys[i]] = vectors[i].tobytes()

        def from_diskcache(place: Path) -> list[np.ndarray]:
            with diskcache.Cache(str(place)) as cache:
                return [np.frombuffer(cache[key], np.float32) for key in keys]

        stores["diskcache"] = by_diskcache, from_diskcache
    if lmdb := rival("lmdb"):

        def by_lmdb(place: Path) -> None:
            with lmdb.open(str(place), map_size=1 << 28) as store:
                for block in blocks:
                    with store.begin(write=True) as change:
                        for i in block:
                            change.put(keys[i], vectors[i].tobytes())

        def from_lmdb(place: Path) -> list[np.ndarray]:
            with lmdb.open(str(place), map_size=1 << 28) as store, store.begin() as asked:
                return [np.frombuffer(asked.get(key), np.float32).copy() for key in keys]

        stores["lmdb"] = by_lmdb, from_lmdb

    def fresh(write: Callable[[Path], None], read: Callable[[Path], list]) -> Callable[[], object]:
        def run() -> list:
            place = folder / uuid.uuid4().hex
            write(place)
            return read(place)

        return run

    def after_damage(write: Callable[[Path], None], read: Callable[[Path], list]) -> str:
        place = folder / uuid.uuid4().hex
        write(place)
        there = vectors[100, 8:12].tobytes()
        for path in place.rglob("*"):
            if path.is_file() and there in (content := path.read_bytes()):
                path.write_bytes(content.replace(there, b"\1" * len(there)))
        found = read(place)[100]
        if found is None:
            return "makes it again"
        return "returns wrong numbers" if (found != vectors[100]).any() else "was not hit"

    found = ratios(fresh(ours, from_ours), {n: fresh(*both) for n, both in stores.items()}, 3)
    mine = after_damage(ours, from_ours)
    for name, both in stores.items():
        note = f"of a vector damaged on disk: ours {mine}, it {after_damage(*both)}"
        yield Finding(name, found[name], f"{note} {brings(name)}")


def commits(folder: Path) -> Iterator[Finding]:
    from openmofi.shards.commits import ShardResult, committed_files, publish, write_attempt

    if not (deltalake := rival("deltalake")):
        return
    table = pa.table({"row": np.arange(1000), "score": np.random.default_rng(0).random(1000)})

    def ours(place: Path, names: list[str]) -> None:
        for part in ("labels", "_done"):
            (place / part).mkdir(parents=True, exist_ok=True)
        for name in names:
            publish(write_attempt(ShardResult(table), name, place, 0.1), place)

    def by_delta(place: Path, names: list[str]) -> None:
        for _ in names:
            deltalake.write_deltalake(str(place), table, mode="append")

    names = [f"{i:05d}" for i in range(20)]
    timed = ratios(
        lambda: ours(folder / uuid.uuid4().hex, names),
        {"r": lambda: by_delta(folder / uuid.uuid4().hex, names)},
        3,
    )
    ours(folder / "ours", ["00000", "00000"])
    by_delta(folder / "delta", ["00000", "00000"])
    mine = sum(pq.read_metadata(file).num_rows for file in committed_files(folder / "ours"))
    theirs = deltalake.DeltaTable(str(folder / "delta")).to_pyarrow_table().num_rows
    note = f"a shard of 1,000 rows done twice: {mine:,} rows with ours, {theirs:,} appended"
    yield Finding("deltalake", timed["r"], f"{note} {brings('deltalake')}")


def die_on_the_third(shard: Any) -> Any:
    """A shard function whose process dies on one shard, as of a decoder's crash."""
    from openmofi.shards.commits import ShardResult

    if shard == "3" or getattr(shard, "name", "") == "3":
        os.kill(os.getpid(), 9)
    time.sleep(0.05)
    return ShardResult(pa.table({"row": [1]}))


def make_dying() -> Callable:
    return die_on_the_third


def dying_workers(folder: Path) -> Iterator[Finding]:
    from openmofi.shards.local import run_local
    from openmofi.shards.plan import Shard

    for part in ("labels", "_done"):
        (folder / part).mkdir()
    names = [str(i) for i in range(12)]
    shards = [Shard(name, name, "tar", 0, 0) for name in names]
    options: dict[str, Any] = {"workers": 2, "retry": frozenset(), "count": lambda rows: None}
    statuses = [commit.status for commit in run_local(make_dying, shards, folder, **options)]
    done = 0
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        for future in as_completed([pool.submit(die_on_the_third, name) for name in names]):
            with contextlib.suppress(BrokenProcessPool):
                done += future.result() is not None
    note = f"12 shards, one kills its process: ours {statuses.count('done')} done and 1 `failed`"
    yield Finding("ProcessPoolExecutor", None, f"{note}; it {done}, the rest broke off")


# ---- the page and reports ------------------------------------------------------------------------


def report_plots(folder: Path) -> Iterator[Finding]:
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    from openmofi.select.plots import long_tail

    images = np.sort((1e5 / (np.arange(50_000) + 1)).astype(int).clip(1))[::-1]

    def theirs() -> str:
        ranks = np.unique(np.geomspace(1, len(images), 300).astype(int))
        figure, axes = plt.subplots(figsize=(6.4, 2.6))
        axes.loglog(ranks, images[ranks - 1])
        axes.set_xlabel("rank of the entity")
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg")
        plt.close(figure)
        return buffer.getvalue()

    found = ratios(lambda: long_tail(images), {"r": theirs})
    note = (
        f"{len(long_tail(images)) / 1e3:.0f} KB, the rival {len(theirs()) / 1e3:.0f}; ours follows "
        "the page's dark mode"
    )
    yield Finding("matplotlib's SVG", found["r"], note)


def webgl_map(folder: Path) -> Iterator[Finding]:
    import openmofi

    static = Path(openmofi.__file__).parent / "serve" / "static" / "map"
    own = sum(path.stat().st_size for path in static.glob("*.js"))
    if REGL is None:
        print("skipped: --regl names no regl.min.js (npm pack regl)", file=sys.stderr)
        return
    strict = _in_browser(REGL, "script-src 'self'")
    loose = _in_browser(REGL, "script-src 'self' 'unsafe-eval'")
    note = (
        f"under `script-src 'self'`: {strict}; with 'unsafe-eval': {loose}; regl alone is "
        f"{REGL.stat().st_size / 1e3:.0f} KB minified, our map {own / 1e3:.0f} KB as written"
    )
    yield Finding("regl, under regl-scatterplot", None, note)


_DRAW = """try {
  const regl = createREGL(document.querySelector("canvas"));
  regl({frag: "void main() { gl_FragColor = vec4(1); }", count: 1, primitive: "points",
    vert: "attribute vec2 p; void main() { gl_Position = vec4(p, 0, 1); }",
    attributes: {p: [[0, 0]]}})();
  window.came = "draws";
} catch (error) { window.came = error.name; }"""


def _in_browser(script: Path, policy: str) -> str:
    import shutil

    from playwright.sync_api import sync_playwright

    body = b"<canvas></canvas><script src=/regl.js></script><script src=/draw.js></script>"
    files = {"/": body, "/regl.js": script.read_bytes(), "/draw.js": _DRAW.encode()}

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            kind = "text/html" if self.path == "/" else "text/javascript"
            self.send_header("content-type", kind)
            self.send_header("content-security-policy", policy)
            self.end_headers()
            self.wfile.write(files.get(self.path, b""))

        def log_message(self, *_: object) -> None:
            """Stays silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    flags = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=flags)
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{server.server_port}/")
        page.wait_for_function("window.came")
        came = page.evaluate("window.came")
        browser.close()
    server.shutdown()
    return came


ROWS: dict[str, tuple[str, Row]] = {
    "tar_scan": ("pairs/tar_scan.py", tar_scan),
    "random_access": ("train/loader.py", random_access),
    "tables": ("files/tables.py", csv_and_json),
    "gzip_tail": ("files/compressed.py", gzip_tail),
    "arrow_folder": ("pairs/arrow.py", arrow_folder),
    "jpeg": ("images/jpeg.py", jpeg_header),
    "orientation": ("images/orientation.py", orientation),
    "phash": ("images/phash.py", phash),
    "duplicates": ("select/duplicates.py", duplicates),
    "matcher": ("kb/index.py, link/mentions.py", matcher),
    "canonical": ("kb/text.py", canonical),
    "ngram_hashes": ("arrays/hashing.py", ngram_hashes),
    "entities": ("kb/entities.py", html_entities),
    "strings": ("arrays/strings.py", strings),
    "average_precision": ("evaluate/gpr1200.py", average_precision),
    "revisited": ("evaluate/revisited.py", revisited_oxford),
    "nearest": ("evaluate/metrics.py", nearest),
    "probe": ("evaluate/probe_solvers.py", probe),
    "row_optimiser": ("train/row_optim.py", row_optimiser),
    "permutation": ("train/order.py", permutation),
    "augment": ("train/augment.py", augmentation),
    "metrics_log": ("train/metrics_log.py", metrics_log),
    "pickle": ("evaluate/plain_pickle.py", plain_pickle),
    "xmp": ("tag/xmp.py", xmp),
    "vector_cache": ("evaluate/cache.py", vector_cache),
    "commits": ("shards/commits.py", commits),
    "workers": ("shards/local.py", dying_workers),
    "plots": ("select/plots.py", report_plots),
    "map": ("serve/static/map", webgl_map),
}

if __name__ == "__main__":
    main()
