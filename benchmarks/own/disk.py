"""What lies on disk: rows of own_code.py."""

from __future__ import annotations

import contextlib
import os
import pickle
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet as pq
from own.rivals import Finding, brings, ratios, rival


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
