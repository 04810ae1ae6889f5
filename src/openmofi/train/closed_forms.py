"""Linear maps that need no training: vectors and classes -> where `adapt` may begin.

The numbers of unit vectors may be raised to a power first, signs kept, and the vectors scaled to
length 1 again: the power-law normalisation of image features (Perronnin et al. 2010, "Improving the
Fisher kernel for large-scale image classification").

With the within-class covariance W and the between-class covariance B of centred unit vectors:

    P = (W + shrinkage * trace(W) / D)^-1/2                       within-class whitening
    M = (floor + g / (g + 0.1))^1/2 P, along the eigenvectors of P B P, whose values are g

Whitening shrinks the directions in which images of one class differ. The second form also raises
those in which classes differ from each other, the more the lower the floor. With a floor of 0 that
is a linear discriminant analysis (Fisher 1936); above it no direction is lost, so classes that were
not learnt from stay apart. Sums are float64, over chunks; nothing of the size of the data is made.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int

from openmofi.train.linear_maps import Maps, unit_floats

POWERS = (1.0, 0.7)
SHRINKAGES = (0.1, 0.3, 1.0, 3.0, 10.0)
FLOORS = (1.0, 0.3, 0.1, 0.02, 0.0)
CENTRED = "centred"
"""Name of the form that takes the mean off, whatever the labels."""
_HALF = 0.1
"""Ratio of between- to within-class variance at which a direction has half of its weight."""
_CHUNK = 16_384


@dataclass(frozen=True)
class Moments:
    """What the closed forms need to know of vectors with classes."""

    mean_D: Float[np.ndarray, " D"]
    within_DD: Float[np.ndarray, "D D"]
    between_DD: Float[np.ndarray, "D D"]


@dataclass(frozen=True)
class ClosedForm:
    """A way to a map."""

    name: str
    maps: Maps
    plain: bool
    """It whitens alone, or does less: no direction between classes is raised."""


def moments(
    vectors: np.ndarray,
    rows: Int[np.ndarray, " M"],
    classes: Int[np.ndarray, " M"],
    *,
    power: float = 1.0,
) -> Moments:
    """Returns the moments of unit vectors.

    Args:
        vectors: [all images, D], float16 or float32, of any length but zero.
        rows: which of them count.
        classes: of each of these.
        power: to which their numbers are raised.
    """
    dim, counts = vectors.shape[1], np.bincount(classes)
    sums_ND, squares_DD = np.zeros((len(counts), dim)), np.zeros((dim, dim))
    for start in range(0, len(rows), _CHUNK):
        part = slice(start, start + _CHUNK)
        chunk = unit_floats(vectors[rows[part]], power).double().numpy()
        np.add.at(sums_ND, classes[part], chunk)
        squares_DD += chunk.T @ chunk
    mean_D = sums_ND.sum(0) / len(rows)
    known = counts > 0
    scaled_ND = sums_ND[known] / np.sqrt(counts[known])[:, None]
    means_DD = scaled_ND.T @ scaled_ND  # the sum over images of the square of their class's mean
    within = (squares_DD - means_DD) / len(rows)
    return Moments(mean_D, within, means_DD / len(rows) - np.outer(mean_D, mean_D))


def closed_forms(
    found: Moments, text_mean_D: Float[np.ndarray, " D"] | None, *, power: float = 1.0
) -> Iterator[ClosedForm]:
    """Yields every form, from the least change on; with a power, those that whiten.

    Args:
        found: of the images, with that power.
        text_mean_D: mean of the unit vectors of texts, which go through the images' map less their
            own mean; None leaves texts as they are.
        power: to which the numbers of both are raised.
    """
    dim, prefix = len(found.mean_D), "" if power == 1 else f"power {power:g}, "
    eye, means = np.eye(dim), (found.mean_D, text_mean_D, power)
    if power == 1:
        yield ClosedForm("identity", Maps.identity(dim), plain=True)
        yield ClosedForm(CENTRED, _maps(eye, *means), plain=True)
    values, within_axes = np.linalg.eigh(found.within_DD)  # the ridge leaves the axes as they are
    roots_KD = _roots(found.between_DD)
    for shrinkage in SHRINKAGES:
        level = shrinkage * np.trace(found.within_DD) / dim
        whitening = (within_axes / np.sqrt(np.maximum(values + level, 1e-12))) @ within_axes.T
        name = f"{prefix}whitened, shrinkage {shrinkage:g}"
        yield ClosedForm(name, _maps(whitening, *means), plain=True)
        # The eigenvectors of P B P with a value above 0, at most one per class.
        ratios_K, turns_KK = np.linalg.eigh(roots_KD @ whitening @ (roots_KD @ whitening).T)
        ratios_K = np.maximum(ratios_K, 1e-12)
        axes_KD = (turns_KK / np.sqrt(ratios_K)).T @ roots_KD @ whitening
        whitened_KD = axes_KD @ whitening
        for floor in FLOORS:
            gains_K = np.sqrt(floor + ratios_K / (ratios_K + _HALF)) - floor**0.5
            raised = floor**0.5 * whitening + (axes_KD.T * gains_K) @ whitened_KD
            named = f"{name}, floor {floor:g}"
            yield ClosedForm(named, _maps(raised, *means), plain=False)


def _roots(matrix_DD: Float[np.ndarray, "D D"]) -> Float[np.ndarray, "K D"]:
    """Returns R with R^T R = the positive semidefinite matrix, a row per eigenvalue above 0."""
    values, axes = np.linalg.eigh(matrix_DD)
    kept = values > 1e-10 * max(values[-1], 1e-300)
    return (axes[:, kept] * np.sqrt(values[kept])).T


def _maps(
    map_DD: Float[np.ndarray, "D D"],
    mean_D: Float[np.ndarray, " D"],
    text_mean_D: Float[np.ndarray, " D"] | None,
    power: float,
) -> Maps:
    """Returns maps that change lengths as little as the identity does, by their trace."""
    dim = len(map_DD)
    image = torch.from_numpy(map_DD * (dim**0.5 / np.linalg.norm(map_DD))).float()
    mean = torch.from_numpy(mean_D).float()
    if text_mean_D is None:
        return Maps(image, torch.eye(dim), mean, torch.zeros(dim), power)
    text_mean = torch.from_numpy(text_mean_D).float()
    return Maps(image, image.clone(), mean, text_mean, power, power)
