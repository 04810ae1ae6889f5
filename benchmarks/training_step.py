"""Where a training step of `nano` spends its time on a CPU, part by part.

    OMP_NUM_THREADS=2 python benchmarks/training_step.py

Draws the built-in world (seed 7), learns from its captions as the recipe `clip` does, and from
its true entities' texts as `contrastive` does. Prints the median milliseconds of each part for a
batch of 128 images of 64 pixels, alternating between the variants within one process.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from openmofi.config import LossSettings, TrainSettings
from openmofi.demo.world import draw_world
from openmofi.model import MofiModel
from openmofi.train.data import TrainData, open_train_data
from openmofi.train.distributed import World
from openmofi.train.loader import Batch, BatchMaker
from openmofi.train.loop import make_model
from openmofi.train.order import Order
from openmofi.train.run import Run
from openmofi.train.texts import TextMix

BATCH, ROUNDS, REPEATS = 128, 5, 4


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        draw_world(Path(folder), size="short", seed=7)
        data = open_train_data(Path(folder) / "shards")
        loss = LossSettings(supervised=0, text=("caption",), mask_same_entity=False)
        settings = TrainSettings(loss=loss, batch_size=BATCH)
        model = make_model(settings, data, device="cpu")
        run = Run(model, data, settings, World(0, 1, torch.device("cpu")))
        batch = make_batch(model, data)
        milliseconds = measure(parts(run, model, batch))
    print(f"{torch.get_num_threads()} threads, {BATCH} images of {model.transform.size} pixels")
    for name, value in milliseconds.items():
        print(f"{name:<45}{value:8.1f} ms")
    print(f"{BATCH / milliseconds['whole step'] * 1000:.0f} images a second in whole steps")


def make_batch(model: MofiModel, data: TrainData) -> Batch:
    maker = BatchMaker(
        data,
        model.transform,
        Order(len(data), 0),
        batch_size=BATCH,
        texts=TextMix(data, ("caption",)),
        tokenize=model.text_inputs,
    )
    return maker[0]


def parts(run: Run, model: MofiModel, batch: Batch) -> dict[str, Callable[[], object]]:
    """Returns what is measured, by name."""
    run.towers.train()
    inputs = model.transform.normalise(run._augmented(batch))
    towers, names = run.towers, entity_texts(model)

    def images(activation: Callable[[], torch.nn.Module]) -> None:
        for module in model.network.vision_model.modules():
            if getattr(module, "activation", None) is not None:
                module.activation = activation()
        model.image_features(inputs).sum().backward()

    return {
        "augmentation": lambda: run._augmented(batch),
        "image side, ReLU6 out of place": lambda: images(torch.nn.ReLU6),
        "image side": lambda: images(lambda: torch.nn.ReLU(inplace=True)),
        "captions": lambda: towers._text_features(batch.tokens).sum().backward(),
        "captions, repetitions and padding too": lambda: (
            model.token_features(batch.tokens).sum().backward()
        ),
        "entities' texts": lambda: towers._text_features(names).sum().backward(),
        "entities' texts, repetitions and padding too": lambda: (
            model.token_features(names).sum().backward()
        ),
        "whole step": lambda: run.train_step(batch),
    }


def entity_texts(model: MofiModel) -> dict[str, torch.Tensor]:
    """Returns a batch of names and descriptions of the world's entities, as they are drawn."""
    from openmofi.demo.entities import WORLD

    rng = np.random.default_rng(0)
    drawn = [WORLD[i] for i in rng.integers(0, len(WORLD), BATCH)]
    return model.text_inputs(
        [e.name if rng.random() < 0.5 else f"{e.name}: {e.description}" for e in drawn]
    )


def measure(functions: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Returns the median milliseconds of each function over rounds in which all take turns."""
    found: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(ROUNDS + 1):
        for name, function in functions.items():
            started = time.perf_counter()
            for _ in range(REPEATS):
                function()
            found[name].append((time.perf_counter() - started) / REPEATS * 1000)
    return {name: statistics.median(times[1:]) for name, times in found.items()}


if __name__ == "__main__":
    main()
