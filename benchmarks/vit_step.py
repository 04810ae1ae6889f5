"""Measures a whole training step on a GPU: python benchmarks/vit_step.py [--preset b16].

The same step with and without the entity head, in turns in one process: pixels from memory, crops,
both towers in bf16, InfoNCE, backward, AdamW; and CosFace over `--classes` entities with the
row-wise update. Prints JSON: medians of seconds a step, the ratio of speeds (wanted: at least
0.95), memory at its peak, and MFU, which is 6 operations per weight and token over the peak that
you name. Runs on a processor with --device cpu, to see that it runs; such figures mean nothing.

    python benchmarks/vit_step.py --preset b16 --classes 2000000 --batch 256 --peak-tflops 989
"""

import argparse
import json
import statistics
import time

import torch

from openmofi.config import TrainSettings, override
from openmofi.model import MofiModel
from openmofi.model.presets import CONTEXT_LENGTHS, IMAGE_SIZES, SpecialTokens, build_network
from openmofi.model.transform import Transform
from openmofi.train.distributed import World
from openmofi.train.entity_head import EntityHead
from openmofi.train.loader import Batch
from openmofi.train.run import Run

VOCABULARY = SpecialTokens(50_000, 49_997, 49_999, 49_998)


class _NoData:
    """Entities without images: batches are made up."""

    def __init__(self, classes: int):
        self.entity_ids = range(classes)
        self.class_counts = torch.ones(classes, dtype=torch.int64).numpy()


def make_run(given: argparse.Namespace, *, supervised: bool) -> Run:
    size = given.image_size or IMAGE_SIZES[given.preset]
    torch.manual_seed(0)
    network = build_network(given.preset, VOCABULARY, image_size=size)

    class Tokenizer:
        model_max_length = CONTEXT_LENGTHS[given.preset]
        pad_token_id = VOCABULARY.pad

    model = MofiModel(network, Tokenizer(), Transform(size), given.device)
    changes = {
        "loss": {"supervised": float(supervised)},
        "head": {"optimizer": given.optimizer, "num_sampled": given.sampled},
        "precision": "bf16",
        "compile": given.compile,
        "grad_checkpointing": given.grad_checkpointing,
    }
    world = World(0, 1, torch.device(given.device))
    return Run(model, _NoData(given.classes), override(TrainSettings(), changes), world)


def make_batch(given: argparse.Namespace, step: int) -> Batch:
    size, count = given.image_size or IMAGE_SIZES[given.preset], given.batch
    tokens = torch.randint(VOCABULARY.bos, (count, CONTEXT_LENGTHS[given.preset]))
    tokens[:, -1] = VOCABULARY.eos
    return Batch(
        step=step,
        rows=torch.arange(count),
        epochs=torch.zeros(count, dtype=torch.int64),
        draws=torch.rand(count, 8),
        pixels=torch.randint(256, (count, size, size, 3), dtype=torch.uint8),
        targets=torch.randint(given.classes, (count, 1)),
        tokens={"input_ids": tokens},
        keys=torch.stack([torch.arange(count)] * 2, 1),
        teachers=(),
        num_unreadable=0,
    ).to(torch.device(given.device))


def seconds_of(run: Run, batches: list[Batch], device: str) -> float:
    started = time.perf_counter()
    for batch in batches:
        run.train_step(batch)
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return (time.perf_counter() - started) / len(batches)


def operations(run: Run, batch: Batch) -> float:
    """Returns 6 x weights x tokens of both towers; embeddings of tokens are not products."""
    network = run.model.network
    vision = sum(p.numel() for p in network.vision_model.parameters())
    text = sum(p.numel() for n, p in network.text_model.named_parameters() if "token_emb" not in n)
    patches = (batch.pixels.shape[1] // network.config.vision_config.patch_size) ** 2 + 1
    length = batch.tokens["input_ids"].shape[1]
    return 6.0 * len(batch.rows) * (vision * patches + text * length)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", default="b16", choices=["b16", "l14", "h14"])
    parser.add_argument("--classes", type=int, default=2_000_000)
    parser.add_argument("--sampled", type=int, default=65_536)
    parser.add_argument("--optimizer", default="row-adagrad")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--image-size", type=int)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--peak-tflops", type=float, help="of the GPU, dense bf16")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--grad-checkpointing", action="store_true")
    given = parser.parse_args()
    on_gpu = given.device.startswith("cuda")
    runs = {
        name: make_run(given, supervised=name == "with_head") for name in ("plain", "with_head")
    }
    batches = [make_batch(given, step) for step in range(given.steps)]
    seconds = {name: [] for name in runs}
    for run in runs.values():
        seconds_of(run, batches[:2], given.device)
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    for _ in range(given.rounds):
        for name, run in runs.items():
            seconds[name].append(seconds_of(run, batches, given.device))
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    rate = operations(runs["plain"], batches[0]) / medians["plain"]
    head = runs["with_head"].head
    assert isinstance(head, EntityHead)
    result = {
        "device": torch.cuda.get_device_name() if on_gpu else "cpu (means nothing)",
        "preset": given.preset,
        "batch": given.batch,
        "classes": head.num_classes,
        "seconds_per_step": medians,
        "speed_with_head": medians["plain"] / medians["with_head"],
        "images_per_second": given.batch / medians["with_head"],
        "tflops": rate / 1e12,
        "mfu": rate / 1e12 / given.peak_tflops if given.peak_tflops else None,
        "peak_gb_of_both": torch.cuda.max_memory_allocated() / 1e9 if on_gpu else None,
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
