"""Measures how fast pairs are read: python benchmarks/reading.py [--samples 10000] [--rounds 5].

Draws tars of noisy JPEGs of 64, 96 and 128 px with .txt and .json beside, as img2dataset leaves
them, and prints JSON, all in CPU time of one thread, medians of rounds that take turns:

* scan: the index of a tar by our walk and by `tarfile`; names, offsets and sizes are compared;
* texts: `read_shard` with captions from .txt, and from a Parquet sidecar;
* job: texts through `open_shard`, then every image looked at (size, sha256, perceptual hash) as
  the labelling job does without an encoder;
* decode: a whole image to RGB, and a look at it, by side.
"""

import argparse
import io
import json
import os
import platform
import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from openmofi.images.decode import decode_image
from openmofi.images.look import SeenImage, look
from openmofi.pairs import find_shards, open_shard, read_shard
from openmofi.pairs.tar import scan_tar

SIDES = (64, 96, 128)


def image(number: int, side: int) -> bytes:
    """A JPEG with the bytes of a photo: broad shapes, fine texture."""
    random = np.random.default_rng([number, side])
    broad = Image.fromarray(random.integers(0, 256, (6, 6, 3), dtype=np.uint8))
    pixels = np.asarray(broad.resize((side, side), Image.Resampling.BICUBIC), dtype=np.int16)
    noisy = np.clip(pixels + random.normal(0, 8, pixels.shape), 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noisy).save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def write_tar(path: Path, samples: int, photos: list[bytes], kind: int, mtime: float) -> None:
    with tarfile.open(path, "w", format=kind) as archive:
        for i in range(samples):
            key, caption = f"{i:09d}", f"a photo of thing {i}, seen from the side"
            record = {"caption": caption, "url": f"https://example.org/{i}.jpg", "key": key}
            for suffix, data in (
                ("jpg", photos[i % len(photos)]),
                ("json", json.dumps(record | {"status": "success", "exif": "{}"}).encode()),
                ("txt", caption.encode()),
            ):
                info = tarfile.TarInfo(f"{key}.{suffix}")
                info.size, info.mtime = len(data), mtime
                archive.addfile(info, io.BytesIO(data))


def by_tarfile(path: Path) -> list[tuple[str, int, int]]:
    with tarfile.open(path) as archive:
        return [(m.name, m.offset_data, m.size) for m in archive if m.isreg()]


def taking_turns(jobs: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Returns the median CPU seconds of each job, after one round that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for number in range(rounds + 1):
        for name, job in jobs.items():
            begin = time.process_time()
            job()
            if number:
                seconds[name].append(time.process_time() - begin)
    return {name: statistics.median(values) for name, values in seconds.items()}


def measure_scan(path: Path, samples: int, rounds: int) -> dict[str, float]:
    assert by_tarfile(path) == [(m.name, m.offset, m.size) for m in scan_tar(path)]
    jobs = {"scan": lambda: scan_tar(path), "tarfile": lambda: by_tarfile(path)}
    seconds = taking_turns(jobs, rounds)
    micros = {f"{name}_us_per_sample": 1e6 * s / samples for name, s in seconds.items()}
    return micros | {"times_tarfile": seconds["tarfile"] / seconds["scan"]}


def read_all(path: Path) -> None:
    source = find_shards(path)
    for shard in source.shards:
        assert not any(read_shard(source.root, shard).table["error"].to_pylist())


def look_at_all(path: Path) -> None:
    source = find_shards(path)
    for shard in source.shards:
        with open_shard(source.root, shard) as view:
            for row in range(len(view.pairs.table)):
                assert isinstance(look(view.read(row), None), SeenImage)


def measure_decode(photos: list[bytes], rounds: int) -> dict[str, float]:
    jobs = {
        "decode_image": lambda: [decode_image(data) for data in photos],
        "look": lambda: [look(data, None) for data in photos],
    }
    seconds = taking_turns(jobs, rounds)
    return {f"{name}_us": 1e6 * s / len(photos) for name, s in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    samples, rounds = options.samples, options.rounds
    photos = {side: [image(i, side) for i in range(200)] for side in SIDES}
    mixed = [data for row in zip(*photos.values(), strict=True) for data in row]
    with tempfile.TemporaryDirectory() as folder:
        plain, pax = Path(folder) / "plain.tar", Path(folder) / "pax.tar"
        beside = Path(folder) / "beside" / "plain.tar"
        write_tar(plain, samples, mixed, tarfile.USTAR_FORMAT, 0)
        write_tar(pax, samples, mixed, tarfile.PAX_FORMAT, 0.5)  # as webdataset's writer
        beside.parent.mkdir()
        beside.symlink_to(plain)
        keys = [f"{i:09d}" for i in range(samples)]
        sidecar = {"key": keys, "caption": [f"a photo of thing {key}" for key in keys]}
        pq.write_table(pa.table(sidecar | {"url": keys}), beside.with_suffix(".parquet"))
        texts = {"txt": lambda: read_all(plain), "sidecar": lambda: read_all(beside)}
        seconds = taking_turns(texts, rounds)
        job = taking_turns({"job": lambda: look_at_all(plain)}, rounds)["job"]
        result = {
            "machine": f"{platform.machine()}, Python {platform.python_version()}, one thread",
            "samples": samples,
            "image_bytes": round(statistics.mean(map(len, mixed))),
            "scan": measure_scan(plain, samples, rounds),
            "scan_pax": measure_scan(pax, samples, rounds),
            "texts_us_per_sample": {name: 1e6 * s / samples for name, s in seconds.items()},
            "job_images_per_cpu_second": samples / job,
            "decode": {str(side): measure_decode(photos[side], rounds) for side in SIDES},
        }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
