"""The labelling job without an encoder: images per CPU-second, overhead, memory, start-up.

    python benchmarks/labelling.py [--images 20000] [--ray]

Draws tars of JPEGs of 64 to 128 px with captions of which all name something, so that every image
is opened, and a catalogue of names. Prints JSON:
  job        read + text + decode + hashes + labels on disk, one process
  colour     the same with every image decoded in colour, which the job leaves to an encoder
  ray_data   Ray Data doing the same work (read_webdataset, map_batches with our linker and Pillow,
             write_parquet), CPU time of all its processes (--ray; Ray Data needs pandas)
  overhead   run_shards against a bare loop over the same shard function that writes Parquet
  memory     peak of a process with 20 shards and with 200
  start_up   `openmofi label` on one image, seconds on the clock
"""

import argparse
import io
import json
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from openmofi.config import LabelSettings
from openmofi.kb import KnowledgeBase, build_kb
from openmofi.label import label
from openmofi.label.shard_labeller import Job, ShardLabeller
from openmofi.link import Linker, WordEncoder
from openmofi.pairs import find_shards

_SETTINGS = LabelSettings(workers=1)
_ROUNDS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--ray", action="store_true")
    parser.add_argument("--one-job", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one_job:
        tars, kb, out = arguments.one_job
        label(tars, kb=kb, out=out, settings=_SETTINGS)
        print(own_peak())
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        photos = draw_images(np.random.default_rng(0))
        kb = make_kb(folder)
        tars = write_tars(folder / "tars", photos, arguments.images // 1000, 1000)
        found = {"images": arguments.images, **rates(folder, tars, kb)}
        found["memory_mb"] = {
            shards: peak_memory(folder, write_tars(folder / shards, photos, int(shards), 500), kb)
            for shards in ("20", "200")
        }
        found["start_up_seconds"] = start_up(folder, photos, kb)
        if arguments.ray:
            found["ray_data"] = ray_data(tars, kb, folder / "ray", arguments.images)
        print(json.dumps(found, indent=1))


def draw_images(rng: np.random.Generator) -> list[bytes]:
    """Returns JPEGs with the smooth shapes and the noise of small photos."""
    photos = []
    for _ in range(400):
        side = int(rng.choice((64, 96, 128)))
        coarse = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC), float)
        noisy = np.clip(smooth + rng.normal(0, 12, smooth.shape), 0, 255).astype(np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(noisy).save(buffer, "JPEG", quality=85)
        photos.append(buffer.getvalue())
    return photos


def make_kb(folder: Path) -> Path:
    lines = [f"E{i},product {i:04d},a thing of kind {i % 37}" for i in range(5000)]
    (folder / "things.csv").write_text("id,name,description\n" + "\n".join(lines))
    return build_kb(folder / "things.csv", out=folder / "kb").out


def write_tars(folder: Path, photos: list[bytes], shards: int, each: int) -> Path:
    folder.mkdir()
    rng = np.random.default_rng(1)
    for shard in range(shards):
        with tarfile.open(folder / f"{shard:05d}.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
            for i in range(each):
                caption = f"our product {rng.integers(5000):04d} on a shelf, photo {i} of the day"
                image = photos[rng.integers(len(photos))]
                for suffix, data in (("jpg", image), ("txt", caption.encode())):
                    info = tarfile.TarInfo(f"{shard:05d}{i:06d}.{suffix}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
    return folder


def rates(folder: Path, tars: Path, kb: Path) -> dict:
    """Times the job, the bare loop, and the job in colour, in turns."""
    label(tars, kb=kb, out=folder / "warm", settings=_SETTINGS)  # compiles
    seconds: dict[str, list[float]] = {"job": [], "bare": [], "colour": []}
    for number in range(_ROUNDS):
        for name, run in (("job", job), ("bare", bare), ("colour", in_colour)):
            began = time.process_time()
            count = run(tars, kb, folder / f"{name}{number}")
            seconds[name].append(time.process_time() - began)
    middle = {name: statistics.median(values) for name, values in seconds.items()}
    return {
        "images_per_cpu_second": {name: round(count / t) for name, t in middle.items()},
        "overhead": round(middle["job"] / middle["bare"] - 1, 4),
    }


def job(tars: Path, kb: Path, out: Path) -> int:
    return label(tars, kb=kb, out=out, settings=_SETTINGS).rows


def bare(tars: Path, kb: Path, out: Path) -> int:
    """Does what the job does, without a plan, attempts, commits and counts."""
    found, out_rows = find_shards(tars), 0
    out.mkdir()
    labeller = ShardLabeller(Job(found.root, kb, None, out, _SETTINGS, out / "none"))
    for shard in found.shards:
        table = labeller(shard).table
        pq.write_table(table, out / f"{shard.name}.parquet", compression="zstd")
        out_rows += len(table)
    return out_rows


def in_colour(tars: Path, kb: Path, out: Path) -> int:
    import openmofi.label.shard_labeller as module
    from openmofi.images.look import look

    module.look = lambda data, transform, keep_image: look(data, transform, keep_image=True)
    try:
        return job(tars, kb, out)
    finally:
        module.look = look


def own_peak() -> int:
    """Returns this process's largest memory so far, in MB; getrusage would count its parent's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) // 1024 for line in lines if line.startswith("VmHWM"))


def peak_memory(folder: Path, tars: Path, kb: Path) -> int:
    line = [sys.executable, __file__, "--one-job", tars, kb, folder / f"out-{tars.name}"]
    return int(subprocess.run(line, check=True, capture_output=True, text=True).stdout)


def start_up(folder: Path, photos: list[bytes], kb: Path) -> float:
    one = write_tars(folder / "one", photos, 1, 1)
    times = []
    for number in range(5):
        line = [sys.executable, "-m", "openmofi", "label", one, "--kb", kb]
        began = time.monotonic()
        subprocess.run([*line, "--out", folder / f"s{number}"], check=True, capture_output=True)
        times.append(time.monotonic() - began)
    return round(statistics.median(times), 2)


def ray_data(tars: Path, kb: Path, out: Path, images: int) -> dict:
    import ray

    os.environ["RAY_AUTH_MODE"] = "disabled"
    ray.init(num_cpus=2, log_to_driver=False, include_dashboard=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    began = cpu_seconds()
    table = ray.data.read_webdataset(str(tars), suffixes=["jpg", "txt"], decoder=None)
    table = table.map_batches(
        LinkAndDecode, fn_constructor_args=(str(kb),), concurrency=1, batch_format="pandas"
    )
    table.write_parquet(str(out))
    spent = cpu_seconds() - began
    rows = sum(pq.read_metadata(file).num_rows for file in out.glob("*.parquet"))
    memory = sum(process_memory(pid) for pid in family()) // 2**20
    ray.shutdown()
    assert rows == images
    return {"images_per_cpu_second": round(rows / spent), "memory_mb_of_all_processes": memory}


class LinkAndDecode:
    """What the job does to a pair, in a Ray Data actor."""

    def __init__(self, kb: str):
        knowledge = KnowledgeBase.open(Path(kb))
        self.linker = Linker(knowledge, encoder=WordEncoder(knowledge))

    def __call__(self, batch):
        """Takes and returns a pandas.DataFrame, in which Ray Data leaves bytes as they are."""
        captions = [bytes(text).decode() for text in batch["txt"]]
        found = self.linker.link(captions, all_candidates=True)
        batch["candidates"] = np.bincount(found["row"].to_numpy(), minlength=len(captions))
        batch["width"] = [decoded_width(bytes(data)) for data in batch["jpg"]]
        batch["caption"] = captions
        return batch[["__key__", "caption", "candidates", "width"]]


def decoded_width(data: bytes) -> int:
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        return image.width


def family() -> list[int]:
    """Returns this process and all that came of it."""
    parents = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(entry.parent.name)] = int(fields[1])
    mine = {os.getpid()}
    while True:
        more = {pid for pid, parent in parents.items() if parent in mine} - mine
        if not more:
            return sorted(mine)
        mine |= more


def cpu_seconds() -> float:
    """Returns the CPU time of the family so far, with that of its ended children."""
    ticks = 0
    for pid in family():
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        ticks += sum(int(field) for field in fields[11:15])
    return ticks / os.sysconf("SC_CLK_TCK")


def process_memory(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096
    except OSError:
        return 0


if __name__ == "__main__":
    main()
