"""What an image costs in each preset's image encoder, in each form that the package computes.

    pip install 'openmofi[onnx]' && python benchmarks/latency.py > latency.json
    python benchmarks/latency.py --plot latency.png --read latency.json

Presets nano, s0, s1, s2 and b16, and a CLIP of ViT-B/32's size (b32), all with random weights,
MobileCLIP's merged as saved models are. Forms: fp32, auto (`--precision auto`), onnx and int8 (as
`openmofi compile` and `compile --int8` write them). Prints JSON, per preset:

  millions   parameters of the image encoder, with its projection
  gflops     of one image; a multiplication and an addition count as two
  forms      megabytes on disk; ms and cpu_ms, clock and CPU time of one image alone, medians; and
             images_per_cpu_second in batches; one thread; forms take turns, round by round
  gpu        the same of fp32 and auto on a GPU, clock time, or "not measured"
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch.utils.flop_counter import FlopCounterMode

from openmofi.compile.int8 import to_int8
from openmofi.compile.towers import export_images
from openmofi.model import MofiModel
from openmofi.model.mobileone import has_branches, merge_branches
from openmofi.model.onnx_encoder import FILE, OnnxConfig, OnnxEncoder
from openmofi.model.presets import (
    IMAGE_SIZES,
    SpecialTokens,
    build_network,
    preset_transform,
)
from openmofi.model.sides import EncoderSide, join
from openmofi.model.transform import Transform

PRESETS = ("nano", "s0", "s1", "s2", "b32", "b16")
FORMS = ("fp32", "auto", "onnx", "int8")
TOKENS = SpecialTokens(300, 298, 299, 297)
EXAMPLES = 32
"""Images of noise on which int8's ranges are measured."""
GPU_BATCH = 256


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--presets", nargs="+", default=PRESETS, choices=PRESETS)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--images", type=int, default=16, help="of the batches")
    parser.add_argument("--plot", type=Path, help="PNG or SVG to draw")
    parser.add_argument("--read", type=Path, help="measured before; only draws")
    arguments = parser.parse_args()
    if arguments.read:
        found = json.loads(arguments.read.read_text())
    else:
        torch.set_num_threads(1)
        found = {name: measure(name, arguments) for name in arguments.presets}
        print(json.dumps(found, indent=1))
    if arguments.plot:
        plot(found, arguments.plot)


def measure(preset: str, arguments: argparse.Namespace) -> dict[str, Any]:
    network, transform = random_network(preset)
    side = transform.size
    noise = np.random.default_rng(0).integers(0, 256, (EXAMPLES, side, side, 3), dtype=np.uint8)
    with tempfile.TemporaryDirectory() as temporary:
        forms, sizes = made(network, transform, noise, Path(temporary))
        forms_found = on_processor(forms, noise[: arguments.images], arguments.rounds)
    for form, size in sizes.items():
        forms_found[form]["megabytes"] = round(size / 1e6, 1)
    return {
        "weights": "random",
        "pixels": side,
        "millions": round(image_parameters(network) / 1e6, 2),
        "gflops": round(flops(forms["fp32"], noise) / 1e9, 2),
        "forms": forms_found,
        "gpu": on_gpu(network, transform, arguments.rounds),
    }


def random_network(preset: str) -> tuple[Any, Transform]:
    torch.manual_seed(0)
    if preset == "b32":
        return transformers.CLIPModel(transformers.CLIPConfig()).eval(), Transform(224)
    size = IMAGE_SIZES[preset]
    network = build_network(preset, TOKENS, image_size=size).eval()
    if has_branches(network):
        network = merge_branches(network)
    return network, preset_transform(preset, image_size=size)


def image_parameters(network: Any) -> int:
    own = [p for n, p in network.named_parameters() if n.startswith(("vision_", "visual_"))]
    return sum(parameter.numel() for parameter in own)


def made(
    network: Any, transform: Transform, noise: np.ndarray, folder: Path
) -> tuple[dict[str, MofiModel], dict[str, int]]:
    """Returns the model in each form, and its bytes on disk."""
    fp32, auto = (MofiModel(network, None, transform, "cpu", p) for p in ("fp32", "auto"))
    export_images(fp32, folder / FILE)
    examples = transform.normalise(torch.from_numpy(noise)).numpy()
    alone = to_int8(folder / FILE, folder / f"int8_{FILE}", examples)
    onnx = opened(folder / FILE, fp32, alone=False)
    int8 = opened(folder / f"int8_{FILE}", fp32, alone=alone)
    size = 4 * image_parameters(network)
    files = {"onnx": folder / FILE, "int8": folder / f"int8_{FILE}"}
    sizes = {"fp32": size, "auto": size} | {n: f.stat().st_size for n, f in files.items()}
    return {"fp32": fp32, "auto": auto, "onnx": onnx, "int8": int8}, sizes


def opened(file: Path, like: MofiModel, *, alone: bool) -> MofiModel:
    shape = {"hidden_size": like.dim, "image_size": like.transform.size}
    encoder = OnnxEncoder(OnnxConfig(**shape, rows_alone=alone))
    encoder.open(file)
    side = EncoderSide(encoder, "pooler", (), like.transform)
    return MofiModel(join(side, None, dim=like.dim).eval(), None, like.transform, "cpu")


def flops(model: MofiModel, noise: np.ndarray) -> int:
    with FlopCounterMode(display=False) as counter:
        model.encode_pixels(noise[:1])
    return counter.get_total_flops()


def on_processor(
    forms: dict[str, MofiModel], noise: np.ndarray, rounds: int
) -> dict[str, dict[str, float]]:
    clock, one, many = ({form: [] for form in forms} for _ in range(3))
    for model in forms.values():
        model.encode_pixels(noise)
    for number in range(rounds):
        for form, model in forms.items():
            began, cpu = time.perf_counter(), time.process_time()
            model.encode_pixels(noise[:1])
            one[form].append(time.process_time() - cpu)
            clock[form].append(time.perf_counter() - began)
            if number % 3 == 0:
                cpu = time.process_time()
                model.encode_pixels(noise)
                many[form].append(time.process_time() - cpu)
    return {
        form: {
            "ms": round(1000 * statistics.median(clock[form]), 2),
            "cpu_ms": round(1000 * statistics.median(one[form]), 2),
            "images_per_cpu_second": round(len(noise) / statistics.median(many[form]), 1),
        }
        for form in forms
    }


def on_gpu(network: Any, transform: Transform, rounds: int) -> Any:
    if not torch.cuda.is_available():
        return "not measured"
    side = transform.size
    noise = np.random.default_rng(0).integers(0, 256, (GPU_BATCH, side, side, 3), dtype=np.uint8)
    found = {"device": torch.cuda.get_device_name()}
    for precision in ("fp32", "auto"):
        model = MofiModel(network, None, transform, "cuda", precision)
        seconds = {}
        for count in (1, GPU_BATCH):
            model.encode_pixels(noise[:count])
            times = []
            for _ in range(rounds):
                began = time.perf_counter()
                model.encode_pixels(noise[:count])  # its result is on the processor
                times.append(time.perf_counter() - began)
            seconds[count] = statistics.median(times)
        found[precision] = {
            "ms": round(1000 * seconds[1], 2),
            "images_per_second": round(GPU_BATCH / seconds[GPU_BATCH], 1),
        }
    network.to("cpu")
    return found


def plot(found: dict[str, Any], out: Path) -> None:
    """Draws images per CPU-second of each preset, a bar per form."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    colours = ("#9db4d3", "#4a78b8", "#e0a97a", "#c7702e")
    for number, (form, colour) in enumerate(zip(FORMS, colours, strict=True)):
        places = np.arange(len(found)) + (number - 1.5) * 0.2
        rates = [row["forms"][form]["images_per_cpu_second"] for row in found.values()]
        bars = axes.bar(places, rates, 0.2, label=form, color=colour)
        axes.bar_label(bars, [f"{rate:,.0f}" for rate in rates], fontsize=7)
    names = [f"{n}\n{r['millions']} M\n{r['pixels']} px" for n, r in found.items()]
    axes.set_xticks(np.arange(len(found)), names)
    axes.set_yscale("log")
    axes.set_ylabel("images a CPU-second (log)")
    axes.legend(title="random weights")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(out, dpi=150)


if __name__ == "__main__":
    main()
