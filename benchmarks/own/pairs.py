"""Reading pairs: rows of own_code.py."""

from __future__ import annotations

import contextlib
import csv
import gzip
import json
import tarfile
import tracemalloc
import uuid
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.json
from own.rivals import Finding, brings, ratios, rival
from reading import by_tarfile, image, write_tar


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
