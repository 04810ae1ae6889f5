"""The class head against what it replaces: CPU seconds, memory, and the errors of its shortcuts.

    OMP_NUM_THREADS=1 python benchmarks/entity_head.py
    python benchmarks/entity_head.py --gpu

References, written here: PartialFC as in insightface's partial_fc_v2.py (rows are a parameter, the
step indexes a sample of them, whose backward makes a gradient of all rows, and fused AdamW passes
over all of them), and a dense softmax over all rows with fused AdamW. Times are medians of CPU
seconds of steps that alternate within one process, with one thread. Memory is the peak of a process
of its own, less what it held before it made rows; all pages of all states are touched, so nothing
counts as free because it was never used. Prints JSON.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from torch.nn import functional as F

from openmofi.config import HeadSettings
from openmofi.errors import SettingsError
from openmofi.train.entity_head import EntityHead

_MARGIN, _SCALE, _BATCH = 0.15, 16.0, 256
_OPTIMIZERS = ("row-adagrad", "row-adam", "lazy-adam")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gpu", action="store_true", help="the GPU part instead")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--classes", type=int, default=2_000_000)
    parser.add_argument("--peak", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.peak:
        result = peak_of(json.loads(options.peak))
    elif options.gpu:
        result = on_gpu()
    else:
        result = {
            "partial_fc": against_partial_fc(options.classes, 128, options.rounds),
            "dense": against_dense(200_000, 256, options.rounds),
            "exact_in_blocks": exact_in_blocks(),
            "log_q": log_q_bias(),
        }
    print(json.dumps(result, indent=2))


# ---------------------------------------------------------------------------- references


class Reference:
    """Rows as a parameter under fused AdamW; a step uses a sample of them, or all."""

    def __init__(self, num_classes, dim, num_sampled=None, device="cpu"):
        weight = torch.empty(num_classes, dim, device=device).normal_()
        for part in weight.split(65_536):  # in place: making the rows is not what is measured
            part.copy_(F.normalize(part, dim=-1))
        self.weight, self.num_sampled = torch.nn.Parameter(weight), num_sampled
        self.optimizer = torch.optim.AdamW([self.weight], lr=0.01, fused=True)

    def sample(self, targets):
        """partial_fc_v2.py: random numbers for all classes, the batch's own above them all."""
        chance = torch.rand(len(self.weight), device=targets.device)
        chance[targets.unique()] = 2.0
        return chance.topk(self.num_sampled).indices.sort().values

    def step(self, images, targets):
        rows = self.weight
        if self.num_sampled:
            index = self.sample(targets)
            rows, targets = self.weight[index], torch.searchsorted(index, targets)
        cosines = images @ F.normalize(rows, dim=-1).T
        lowered = cosines.gather(1, targets[:, None]) - _MARGIN
        loss = F.cross_entropy(_SCALE * cosines.scatter(1, targets[:, None], lowered), targets)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()


class Ours:
    """The class head with the same interface."""

    def __init__(self, num_classes, dim, optimizer, sampler="uniform", device="cpu"):
        settings = HeadSettings(optimizer=optimizer, sampler=sampler, scale=_SCALE)
        self.head, self.number = EntityHead(num_classes, dim, settings, device=device), 0
        for values in self.head.state_dict().values():
            values.mul_(1)  # touches every page

    def step(self, images, targets):
        loss, _ = self.head.loss(images, targets[:, None], step=self.number)
        loss.backward()
        self.head.step(learning_rate=0.01)
        self.number += 1


def batch(num_classes, dim, device="cpu", size=_BATCH):
    images = F.normalize(torch.randn(size, dim, device=device), dim=-1)
    return images.requires_grad_(), torch.randint(num_classes, (size,), device=device)


# ---------------------------------------------------------------------------- time and memory


def against_partial_fc(num_classes, dim, rounds):
    reference = Reference(num_classes, dim, 8192)
    ours = {name: Ours(num_classes, dim, name) for name in _OPTIMIZERS}
    seconds = alternating({"reference": reference, **ours}, num_classes, dim, rounds)
    began = time.process_time()
    for _ in range(3):
        reference.sample(torch.arange(_BATCH))
    sampling = (time.process_time() - began) / 3
    del reference, ours
    memory = {"reference": peak("reference", num_classes, dim, 8192)}
    memory |= {name: peak("ours", num_classes, dim, name) for name in _OPTIMIZERS}
    size = f"{num_classes} x {dim}, 8192 sampled, batch {_BATCH}"
    return compared(size, seconds, memory) | {"reference_sampling_seconds": round(sampling, 4)}


def against_dense(num_classes, dim, rounds):
    ours = {name: Ours(num_classes, dim, name) for name in _OPTIMIZERS}
    both = {"reference": Reference(num_classes, dim), **ours}
    seconds = alternating(both, num_classes, dim, min(rounds, 5))
    memory = {"reference": peak("reference", num_classes, dim, None)}
    memory |= {name: peak("ours", num_classes, dim, name) for name in _OPTIMIZERS}
    return compared(f"{num_classes} x {dim}, batch {_BATCH}", seconds, memory)


def alternating(methods, num_classes, dim, rounds):
    """Median CPU seconds of a step of each method, after one to warm up."""
    taken = {name: [] for name in methods}
    for turn in range(rounds + 1):
        images, targets = batch(num_classes, dim)
        for name, method in methods.items():
            began = time.process_time()
            method.step(images, targets)
            if turn:
                taken[name].append(time.process_time() - began)
    return {name: statistics.median(values) for name, values in taken.items()}


def compared(size, seconds, memory):
    return {
        "size": size,
        "cpu_seconds_per_step": {name: round(value, 4) for name, value in seconds.items()},
        "times_faster": {
            name: round(seconds["reference"] / seconds[name], 1) for name in _OPTIMIZERS
        },
        "peak_megabytes": {name: round(value / 1e6) for name, value in memory.items()},
        "share_of_memory": {
            name: round(memory[name] / memory["reference"], 3) for name in _OPTIMIZERS
        },
    }


def peak(*method):
    """Peak bytes of three steps in a process of their own."""
    command = [sys.executable, __file__, "--peak", json.dumps(method)]
    run = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(run.stdout)


def peak_of(method):
    kind, num_classes, dim, how, *rest = method
    warm, targets = batch(100, dim)
    Ours(100, dim, "sgd").step(warm, targets)  # loads what the first step loads
    before = most_resident()
    if kind == "reference":
        made = Reference(num_classes, dim, how)
        if rest:  # what a softmax itself costs: no state of an optimiser
            made.optimizer = torch.optim.SGD([made.weight], lr=0.01)
    else:
        made = Ours(num_classes, dim, how, *rest)
    for _ in range(3):
        made.step(*batch(num_classes, dim))
    return most_resident() - before


def most_resident():
    """Peak bytes of this process; getrusage would start from its parent's peak."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


# ---------------------------------------------------------------------------- errors of shortcuts


def exact_in_blocks():
    """The full softmax in blocks of classes against one dense matrix: errors and memory."""
    num_classes, dim = 50_000, 64
    head = Ours(num_classes, dim, "sgd", "full").head
    images, targets = batch(num_classes, dim)
    loss, _ = head.loss(images, targets[:, None], step=0)
    loss.backward()
    blocks = [gradient for _, gradient in head.row_gradients()]
    rows, others = head.rows_ND.clone().requires_grad_(), images.detach().requires_grad_()
    cosines = others @ rows.T
    lowered = cosines.gather(1, targets[:, None]) - _MARGIN
    dense = F.cross_entropy(_SCALE * cosines.scatter(1, targets[:, None], lowered), targets)
    dense.backward()
    rows_megabytes = 200_000 * 256 * 4 / 1e6
    whole = peak("reference", 200_000, 256, None, "no state") / 1e6
    parts = peak("ours", 200_000, 256, "sgd", "full") / 1e6
    return {
        "size": f"errors {num_classes} x {dim}, memory 200000 x 256 without optimiser state",
        "num_blocks": len(blocks),
        "loss_error": abs(loss.item() - dense.item()),
        "images_gradient_error": (images.grad - others.grad).abs().max().item(),
        "rows_gradient_error": (torch.cat(blocks) - rows.grad).abs().max().item(),
        "peak_megabytes": {"dense": round(whole), "blocks": round(parts)},
        "share_of_memory": round(parts / whole, 3),
        "share_of_memory_beside_the_rows": round(
            (parts - rows_megabytes) / (whole - rows_megabytes), 3
        ),
    }


def skewed_world(num_classes=20_000, dim=64, size=64):
    """Rows and images as after training: the more popular a class, the nearer to all images."""
    generator = torch.Generator().manual_seed(0)
    rank = torch.arange(1, num_classes + 1).double()
    common = F.normalize(torch.randn(dim, generator=generator), dim=0)
    pull = (0.6 / (1 + 0.3 * rank.log())).float()[:, None]
    noise = F.normalize(torch.randn(num_classes, dim, generator=generator), dim=-1)
    rows = F.normalize(pull * common + (1 - pull) * noise, dim=-1)
    counts = (1e6 / rank).long().clamp(min=1)
    targets = torch.multinomial(counts.double(), size, replacement=True, generator=generator)
    noise = F.normalize(torch.randn(size, dim, generator=generator), dim=-1)
    images = F.normalize(0.5 * rows[targets] + 0.35 * common + 0.5 * noise, dim=-1)
    return rows, counts, images, targets


def log_q_bias(num_sampled=1024, draws=400):
    """Bias of the sampled loss and images' gradient (mean over draws less the full softmax's)."""
    rows, counts, images, targets = skewed_world()

    def mean_of(draws, **changes):
        head = EntityHead(
            len(rows), rows.shape[1], HeadSettings(scale=_SCALE, **changes), class_counts=counts
        )
        head.rows_ND.copy_(rows)
        total, gradient = 0.0, torch.zeros_like(images)
        for step in range(draws):
            leaf = images.clone().requires_grad_()
            loss, _ = head.loss(leaf, targets[:, None], step=step)
            loss.backward()
            total, gradient = total + loss.item() / draws, gradient + leaf.grad / draws
        return total, gradient.flatten()

    exact, wanted = mean_of(1, sampler="full")
    result = {"size": f"{len(rows)} classes, {num_sampled} sampled, {draws} draws", "full": exact}
    for sampler in ("uniform", "log-uniform", "popularity"):
        found = {}
        for log_q in (True, False):
            loss, gradient = mean_of(draws, sampler=sampler, log_q=log_q, num_sampled=num_sampled)
            found[log_q] = (
                abs(loss - exact),
                ((gradient - wanted).norm() / wanted.norm()).item(),
                1 - F.cosine_similarity(gradient, wanted, dim=0).item(),
            )
        names = ("loss", "gradient", "gradient_direction")
        result[sampler] = {
            name: {
                "bias_corrected": found[True][i],
                "bias_uncorrected": found[False][i],
                "share": round(found[True][i] / found[False][i], 4),
            }
            for i, name in enumerate(names)
        }
    return result


# ---------------------------------------------------------------------------- GPU


def on_gpu():
    """Steps per second and peak memory on one GPU; 2M x 512 against PartialFC, and 10M x 512."""
    if not torch.cuda.is_available():
        raise SettingsError("--gpu needs a GPU that torch can use; found none, so leave it out.")
    torch.backends.cuda.matmul.allow_tf32 = True
    result = {"device": torch.cuda.get_device_name(), "batch": 4096, "sampled": 8192}
    result["2M x 512"] = {"reference": gpu_rate(lambda: Reference(2_000_000, 512, 8192, "cuda"))}
    for name in _OPTIMIZERS:
        result["2M x 512"][name] = gpu_rate(lambda n=name: Ours(2_000_000, 512, n, device="cuda"))
    result["10M x 512"] = {
        name: gpu_rate(lambda n=name: Ours(10_000_000, 512, n, device="cuda"), 10_000_000)
        for name in _OPTIMIZERS[:2]
    }
    return result


def gpu_rate(make, num_classes=2_000_000, steps=30):
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    method = make()
    batches = [batch(num_classes, 512, "cuda", 4096) for _ in range(4)]
    for turn in range(steps + 5):
        if turn == 5:
            torch.cuda.synchronize()
            began = time.perf_counter()
        method.step(*batches[turn % 4])
    torch.cuda.synchronize()
    seconds = time.perf_counter() - began
    return {
        "steps_per_second": round(steps / seconds, 1),
        "peak_gigabytes": round(torch.cuda.max_memory_allocated() / 1e9, 2),
    }


if __name__ == "__main__":
    main()
