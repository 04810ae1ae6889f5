"""Measures how fast training batches are made: python benchmarks/loader.py [--samples 6000].

Draws tars of noisy JPEGs with .txt and .json beside, as img2dataset leaves them, and prints JSON:

* ours and webdataset (needs `pip install webdataset`, outside this project's environment), one
  thread each, CPU time, medians of rounds that take turns, on the same tars: encoded bytes and
  captions alone, and decoded to uint8 of the network's side and stacked, as a training step gets
  them, in the first epoch and in later ones, for which ours keeps decoded images. webdataset
  reads in order with a shuffle buffer of 1,000; ours in a full permutation. It decodes with
  Pillow, `pil_draft` with the JPEG hint that ours gives, too;
* seek: seconds until a batch far into the epoch is there, for a fresh loader;
* epoch: whether every sample came once.
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
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from PIL import Image
from reading import image, write_tar

from openmofi.model.transform import Transform
from openmofi.train.data import TrainData, open_train_data
from openmofi.train.loader import BatchMaker, Loader
from openmofi.train.order import Order
from openmofi.train.texts import TextMix


def make_tars(folder: Path, samples: int, side: int, shards: int = 4) -> list[str]:
    images = [image(number, side) for number in range(64)]
    paths = []
    for shard in range(shards):
        path = folder / f"{shard:05d}.tar"
        write_tar(path, samples // shards, images, tarfile.USTAR_FORMAT, 0.0)
        paths.append(str(path))
    return paths


def ours_bytes(data: TrainData, batch: int) -> int:
    order, count = Order(len(data), 1), 0
    maker = BatchMaker(data, Transform(64), order, batch_size=batch, cache_bytes=0)
    texts = TextMix(data, ("caption",))
    offsets, sizes = (data.source[name].to_numpy() for name in ("offset", "size"))
    shards = data.source["shard"].to_pylist()
    for start in range(0, len(data) - batch + 1, batch):
        rows = order.rows(np.arange(start, start + batch))
        captions = texts.texts(np.zeros(batch, int), rows, rows)
        for row, caption in zip(rows.tolist(), captions, strict=True):
            encoded = maker._reader.read_place(shards[row], offsets[row], sizes[row], "")
            count += bool(encoded and caption)
    return count


def maker_of(data: TrainData, batch: int, side: int, cache_bytes: int) -> BatchMaker:
    return BatchMaker(
        data,
        Transform(side),
        Order(len(data), 1),
        batch_size=batch,
        texts=TextMix(data, ("caption",)),
        tokenize=lambda drawn: {},
        cache_bytes=cache_bytes,
    )


def ours_batches(maker: BatchMaker, data: TrainData, batch: int) -> int:
    return sum(len(maker[step].pixels) for step in range(len(data) // batch))


def _webdataset(paths: list[str]):
    import webdataset

    return webdataset.WebDataset(paths, shardshuffle=100).shuffle(1000)


def theirs_bytes(paths: list[str]) -> int:
    return sum(bool(b and t) for b, t in _webdataset(paths).to_tuple("jpg", "txt"))


def theirs_batches(paths: list[str], batch: int, side: int, draft: bool) -> int:
    def pixels(encoded: bytes) -> np.ndarray:
        image = Image.open(io.BytesIO(encoded))
        if draft:
            image.draft("RGB", (2 * side, 2 * side))
        return np.asarray(image.convert("RGB").resize((side, side), 3))

    pipeline = _webdataset(paths).to_tuple("jpg", "txt").map_tuple(pixels, bytes.decode)
    return sum(
        len(torch.from_numpy(stacked)) for stacked, _ in pipeline.batched(batch, partial=False)
    )


def seek_seconds(data: TrainData, batch: int, side: int) -> float:
    started = time.perf_counter()
    step = len(data) // batch * 1000 + len(data) // batch // 2
    maker = BatchMaker(data, Transform(side), Order(len(data), 1), batch_size=batch)
    next(iter(Loader(maker, threads=1).batches(step, step + 1)))
    return time.perf_counter() - started


def comes_once(data: TrainData, batch: int) -> bool:
    maker = BatchMaker(data, Transform(16), Order(len(data), 1), batch_size=batch)
    rows = torch.cat([maker[step].rows for step in range(len(data) // batch)])
    return len(data) % batch == 0 and len(rows.unique()) == len(data)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=6400)
    parser.add_argument("--side", type=int, default=128, help="of the stored images")
    parser.add_argument("--network", type=int, default=64, help="side of the network's input")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        paths = make_tars(Path(name), given.samples, given.side)
        data = open_train_data(Path(name))
        batch, side = given.batch, given.network
        fresh, kept = (maker_of(data, batch, side, most) for most in (0, 1 << 30))
        ours_batches(kept, data, batch)  # its first epoch, which is as slow as any
        runs = {
            "ours bytes": lambda: ours_bytes(data, batch),
            "webdataset bytes": lambda: theirs_bytes(paths),
            "ours batches": lambda: ours_batches(fresh, data, batch),
            "ours batches, later epochs": lambda: ours_batches(kept, data, batch),
            "webdataset batches": lambda: theirs_batches(paths, batch, side, False),
            "webdataset batches pil_draft": lambda: theirs_batches(paths, batch, side, True),
        }
        seconds = {name: [] for name in runs}
        for _ in range(given.rounds):
            for run, work in runs.items():
                started = time.process_time()
                count = work()
                seconds[run].append((time.process_time() - started) / count)
        medians = {run: statistics.median(values) for run, values in seconds.items()}
        result = {
            "samples": given.samples,
            "side": given.side,
            "network": side,
            "us_per_sample": {run: round(value * 1e6, 1) for run, value in medians.items()},
            "ratio_bytes": medians["webdataset bytes"] / medians["ours bytes"],
            "ratio_batches": medians["webdataset batches"] / medians["ours batches"],
            "ratio_batches_draft": medians["webdataset batches pil_draft"]
            / medians["ours batches"],
            "ratio_later_epochs": medians["webdataset batches"]
            / medians["ours batches, later epochs"],
            "seek_seconds": seek_seconds(data, batch, side),
            "every_sample_once": comes_once(data, batch),
            "machine": platform.machine(),
        }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
