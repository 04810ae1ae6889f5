"""How strongly the fit of the joint score should be drawn to the shipped weights.

    python benchmarks/selection_prior.py I2E [I2E ...] [--sizes 50 100 300 1000] [--samples 20]

I2E is an output of `openmofi label`. Fits the weights to the mentions of so many pairs with priors
of several strengths, and prints the loss of 1,500 other pairs (nats per mention; of which pairs are
own and which mismatched), the mean over the samples. No truth is needed. Best on data other than
what results are reported on.
"""

import argparse
from pathlib import Path

import numpy as np

from openmofi.label.joint_weights import Pairs, fit_weights
from openmofi.select.choose import read_mentions
from openmofi.shards import committed_files

_STRENGTHS = (0.0, 1.0, 3.0, 10.0, 30.0, 100.0, 1e6)
_HELD_OUT = 1500


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("jobs", nargs="+", type=Path)
    parser.add_argument("--sizes", nargs="+", type=int, default=[50, 100, 300, 1000])
    parser.add_argument("--samples", type=int, default=20)
    arguments = parser.parse_args()
    print("| labels | pairs |", *(f" {s:g} |" for s in _STRENGTHS), sep="")
    for job in arguments.jobs:
        images = read_images(job)
        for size in arguments.sizes:
            rng = np.random.default_rng(size)
            losses = [one_sample(images, size, rng) for _ in range(arguments.samples)]
            cells = (f" {loss:.4f} |" for loss in np.mean(losses, axis=0))
            print(f"| {job} | {size} |", *cells, sep="")


def read_images(job: Path) -> list[tuple[np.ndarray, ...]]:
    """Returns (text score, clip_z, clip_z_other, mention within the image) of each image."""
    found = []
    for path in committed_files(job):
        part = read_mentions(path, "joint")
        mention = np.searchsorted(part.begins, np.arange(len(part.row)), "right")
        cuts = np.flatnonzero(np.diff(part.row)) + 1
        columns = (part.text, part.clip_z, part.clip_z_other, mention)
        found += zip(*(np.split(column, cuts) for column in columns), strict=True)
    return found


def one_sample(images: list, size: int, rng: np.random.Generator) -> list[float]:
    """Returns the held-out loss with each strength."""
    drawn = rng.permutation(len(images))
    fitted, held_out = (
        joined([images[i] for i in part]) for part in (drawn[:size], drawn[size : size + _HELD_OUT])
    )
    text, clip_z, other, begins = held_out
    pairs, _ = Pairs.of(text, clip_z[:, None], other[..., None], begins)
    losses = []
    for strength in _STRENGTHS:
        found = fit_weights(*fitted, prior=strength)
        weights, share = found.weights, found.unshown_share
        values = [np.log(weights.text), np.log(weights.clip_z), weights.nil_z]
        values.append(np.log(share / (1 - share)))
        losses.append(-pairs.log_likelihood(np.array(values))[0].mean())
    return losses


def joined(images: list[tuple[np.ndarray, ...]]) -> tuple[np.ndarray, ...]:
    """Returns the images' columns one behind the other, and where their mentions begin."""
    *columns, mention = (np.concatenate(column) for column in zip(*images, strict=True))
    image = np.repeat(np.arange(len(images)), [len(one[0]) for one in images])
    changed = (image[1:] != image[:-1]) | (mention[1:] != mention[:-1])
    return *columns, np.flatnonzero(np.r_[True, changed])


if __name__ == "__main__":
    main()
