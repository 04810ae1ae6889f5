"""Measures what the training loop costs beside its arithmetic: python benchmarks/loop_overhead.py.

A bare loop in plain PyTorch, as short as one can write it (decoded pixels in memory, crops and
colours, both towers, InfoNCE and a dense cosine softmax, AdamW), against `openmofi train`'s step
and loop with the same network, batch and number of classes, in turns in one process; and a bare
loop with nothing around the networks but their loss. Prints JSON: medians of CPU seconds a step,
and the ratio, which should stay under 1.25.

    python benchmarks/loop_overhead.py [--preset nano] [--batch 128] [--rounds 7] [--steps 6]
"""

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import torch
from torch.nn import functional as F

from openmofi.config import TrainSettings, override
from openmofi.train.augment import augment
from openmofi.train.data import open_train_data
from openmofi.train.distributed import World
from openmofi.train.loop import _make_loader, make_model
from openmofi.train.run import Run
from openmofi.train.texts import TextMix
from selected import write_selected


class BareLoop:
    """What a competent engineer writes in an afternoon."""

    def __init__(self, settings, data, batches, *, augments):
        torch.manual_seed(0)
        self.settings, self.augments = settings, augments
        self.model = make_model(settings, data, device="cpu")
        self.rows = torch.nn.Parameter(torch.randn(len(data.entity_ids), self.model.dim))
        parameters = [*self.model.network.parameters(), self.rows]
        self.optimizer = torch.optim.AdamW(parameters, lr=3e-3, fused=True)
        self.batches = batches

    def steps(self, count: int) -> None:
        self.model.network.train()
        for number in range(count):
            batch = self.batches[number % len(self.batches)]
            pixels = batch.pixels
            if self.augments:
                pixels = augment(pixels, self.settings.augment, batch.draws)
            images = F.normalize(self.model.image_features(self.model.transform.normalise(pixels)))
            texts = F.normalize(self.model.token_features(batch.tokens))
            logits = self.model.logit_scale.exp() * images @ texts.T
            own = torch.arange(len(logits))
            loss = (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
            cosines = images @ F.normalize(self.rows).T
            loss = loss + F.cross_entropy(16.0 * cosines, batch.targets[:, 0])
            self.optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.model.network.parameters(), 1.0)
            self.optimizer.step()


class OurLoop:
    """The loop of `train` without its checkpoints, from data to metrics."""

    def __init__(self, settings, data):
        torch.manual_seed(0)
        world = World(0, 1, torch.device("cpu"))
        model = make_model(settings, data, device="cpu")
        self.run = Run(model, data, settings, world)
        texts = TextMix(data, settings.loss.text)
        self.loader = _make_loader(settings, data, model, texts, [], world)
        self.done = 0

    def steps(self, count: int) -> None:
        measured = []
        for batch in self.loader.batches(self.done, self.done + count):
            measured.append(self.run.train_step(batch))
        torch.stack([m["loss"] for m in measured]).mean().item()
        self.done += count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", default="nano")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--images", type=int, default=1024)
    given = parser.parse_args()
    torch.set_num_threads(1)
    changes = {"batch_size": given.batch, "threads": 1, "model": {"preset": given.preset}}
    settings = override(TrainSettings(), changes)
    with tempfile.TemporaryDirectory() as folder:
        data = open_train_data(write_selected(Path(folder), images=given.images))
        ours = OurLoop(settings, data)
        ours.steps(-(-given.images // given.batch))  # every image is decoded once
        batches = list(ours.loader.batches(0, 8))
        loops = {
            "bare": BareLoop(settings, data, batches, augments=True),
            "bare_without_augmentation": BareLoop(settings, data, batches, augments=False),
            "ours": ours,
        }
        seconds = {name: [] for name in loops}
        for loop in loops.values():
            loop.steps(2)
        for _ in range(given.rounds):
            for name, loop in loops.items():
                started = time.process_time()
                loop.steps(given.steps)
                seconds[name].append((time.process_time() - started) / given.steps)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    result = {
        "preset": given.preset,
        "batch": given.batch,
        "cpu_seconds_per_step": {name: round(value, 4) for name, value in medians.items()},
        "ratio": round(medians["ours"] / medians["bare"], 3),
        "ratio_without_augmentation": round(
            medians["ours"] / medians["bare_without_augmentation"], 3
        ),
        "machine": platform.machine(),
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
