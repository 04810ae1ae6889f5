"""Training: rows of own_code.py."""

from __future__ import annotations

import functools
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from own.rivals import ROUNDS, Finding, brings, ratios, rival
from reading import taking_turns


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
