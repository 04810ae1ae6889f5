"""A tiny selected dataset, and processes that train on it together."""

import contextlib
import json
import os
import socket
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

import fruit
from conftest import write_tar
from openmofi.config import TrainSettings, override
from openmofi.pairs import find_shards, read_shard
from openmofi.schema import VOCABULARY
from openmofi.train import train

TINY = {
    "model": {"image_size": 32, "vocab_size": 300},
    "steps": 6,
    "batch_size": 8,
    "log_every": 1,
    "checkpoint_every": 2,
    "keep_checkpoints": 9,
    "threads": 1,
}


def write_selected(folder: Path, *, images: int = 24, second: int | None = None) -> Path:
    """Writes images of red, green and lime and what `select` would say of them.

    Args:
        folder: gets a.tar and select/.
        images: how many; of the lime half as many as of the others.
        second: a further class of every fourth image.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names = [fruit.NAMES[(0, 1, 0, 1, 2)[i % 5]] for i in range(images)]
    members = {}
    for number, name in enumerate(names):
        members[f"{number:03d}.jpg"] = fruit.photo(name, number)
        members[f"{number:03d}.txt"] = f"{fruit.CAPTIONS[name]} {number}".encode()
    write_tar(folder / "a.tar", members)
    source = find_shards(folder / "a.tar")
    table = read_shard(source.root, source.shards[0]).table
    classes = [[fruit.NAMES.index(name)] for name in names]
    for row in classes[::4] if second is not None else ():
        row.extend({second} - set(row))
    out = folder / "select"
    out.mkdir()
    keep = table.append_column("classes", pa.array(classes, pa.list_(pa.int64())))
    pq.write_table(keep, out / "keep.parquet")
    texts = {"id": list(fruit.NAMES), "label": ["Red Apple", "Green Apple", "Lime"]}
    texts |= {"description": ["a round red fruit", "", "a small citrus"], "images": [1, 1, 1]}
    pq.write_table(pa.table(texts, schema=VOCABULARY), out / "vocabulary.parquet")
    (out / "card.json").write_text(json.dumps({"input": str(source.root)}))
    return out


def tiny(**changes) -> TrainSettings:
    """Returns settings of a run of seconds."""
    return override(override(TrainSettings(), TINY), changes)


def losses(run: Path) -> dict[int, float]:
    """Returns {step: loss} of metrics.jsonl."""
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return {line["step"]: line["loss"] for line in lines if "loss" in line}


def in_processes(size: int, work, *arguments) -> None:
    """Runs work(*arguments) in processes that find themselves as torchrun would start them."""
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = mp.start_processes(
        _as_rank, (size, port, work, arguments), size, join=False, start_method="spawn"
    )
    assert context is not None
    try:
        patience = time.monotonic() + 120
        while not context.join(timeout=5):
            assert time.monotonic() < patience, "the processes wait for each other"
    finally:
        for process in context.processes:
            process.kill()


def _as_rank(rank, size, port, work, arguments):
    torch.set_num_threads(1)
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(size))
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    dist.init_process_group("gloo")  # once, however many runs there are
    work(*arguments)
    dist.destroy_process_group()


def train_in(settings: TrainSettings, data: Path, out: Path, resume: bool = False) -> None:
    """`train`, with what spawned processes can be handed."""
    train(settings, data=data, out=out, resume=resume)
