"""Two linear maps that bring the vectors of two encoders together; dense maths.

Legend: M pairs, B batch, I width of images, J width of texts, D width of the result.

First in closed form: canonical correlations, regularised (Hotelling 1936; Vinod 1976). With the
centred covariances X of images, Y of texts and C between them,

    P = (X + ridge * trace(X) / I)^-1/2,  Q = (Y + ridge * trace(Y) / J)^-1/2
    U S V' = P C Q,  image map = (P U S^power)',  text map = (Q V S^power)'

Then, from there on, by gradients: the symmetric InfoNCE of locked-image tuning (arXiv 2111.07991;
both encoders stay as they are), and CosFace over the entities where they are known.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from openmofi.arrays.random_keys import Purpose, random_key
from openmofi.config import HeadSettings, PairSettings
from openmofi.train.entity_head import EntityHead
from openmofi.train.linear_maps import (
    apply_map,
    logit_scale_for,
    masked_info_nce,
    shuffled_batches,
    unit_floats,
)

RIDGES = (0.03, 0.1, 0.3, 1.0, 3.0)
POWERS = (0.5, 1.0)
SCALES = (5.0, 10.0, 14.0, 20.0, 30.0, 50.0, 75.0, 100.0)
_CHUNK = 16_384
_NUM_SAMPLED = 2048


@dataclass(frozen=True)
class PairVectors:
    """Cached vectors of images and texts, and which belong together."""

    images: Float[np.ndarray, "N I"]
    texts: Float[np.ndarray, "T J"]
    """Of every different text."""
    rows_M: Int[np.ndarray, " M"]
    """Images that have a text."""
    texts_MK: Int[np.ndarray, "M K"]
    """Rows of their texts: the caption, then name and name with description of the entity; -1
    where there is none."""
    classes_M: Int[np.ndarray, " M"]
    """Entity of each image, -1 where it is not known."""
    num_classes: int = 0

    def take(self, chosen: np.ndarray) -> PairVectors:
        """Returns some of the pairs."""
        return PairVectors(
            self.images,
            self.texts,
            self.rows_M[chosen],
            self.texts_MK[chosen],
            self.classes_M[chosen],
            self.num_classes,
        )


@dataclass(frozen=True)
class Alignment:
    """Maps of both sides: a unit vector x becomes unit(M (x - mean))."""

    image_DI: Float[Tensor, "D I"]
    text_DJ: Float[Tensor, "D J"]
    image_mean_I: Float[Tensor, " I"]
    text_mean_J: Float[Tensor, " J"]

    def of_images(self, vectors: np.ndarray) -> Float[np.ndarray, "n D"]:
        """Returns the mapped vectors of images."""
        return apply_map(vectors, self.image_DI.detach(), self.image_mean_I)

    def of_texts(self, vectors: np.ndarray) -> Float[np.ndarray, "n D"]:
        """Returns the mapped vectors of texts."""
        return apply_map(vectors, self.text_DJ.detach(), self.text_mean_J)


def canonical_alignments(
    pairs: PairVectors, dim: int
) -> Iterator[tuple[tuple[float, float], Alignment]]:
    """Yields ((ridge, power), alignment) for every closed form; all texts of a pair count alike."""
    image_mean, text_mean, images_II, texts_JJ, between_IJ = _covariances(pairs)
    for ridge in RIDGES:
        whiten_II, whiten_JJ = _inverse_root(images_II, ridge), _inverse_root(texts_JJ, ridge)
        left, strengths, right = np.linalg.svd(whiten_II @ between_IJ @ whiten_JJ)
        for power in POWERS:
            weights_D = strengths[:dim] ** power
            parts = (whiten_II @ left[:, :dim] * weights_D, whiten_JJ @ right[:dim].T * weights_D)
            # The length of what comes out does not count; near 1, gradients are of usual size.
            image, text = (
                part.T / np.sqrt(np.trace(part.T @ s @ part))
                for part, s in zip(parts, (images_II, texts_JJ), strict=True)
            )
            values = (image, text, image_mean, text_mean)
            yield (ridge, power), Alignment(*(torch.from_numpy(v).float() for v in values))


def _covariances(pairs: PairVectors) -> tuple[np.ndarray, ...]:
    """Returns (mean of images, of texts, covariance of images, of texts, between them), float64."""
    width, height = pairs.images.shape[1], pairs.texts.shape[1]
    sums = [np.zeros(width), np.zeros(height)]
    squares = [np.zeros((width, width)), np.zeros((height, height)), np.zeros((width, height))]
    count = 0
    for kind in pairs.texts_MK.T:
        known = np.flatnonzero(kind >= 0)
        for start in range(0, len(known), _CHUNK):
            part = known[start : start + _CHUNK]
            x = unit_floats(pairs.images[pairs.rows_M[part]]).double().numpy()
            y = unit_floats(pairs.texts[kind[part]]).double().numpy()
            for total, value in zip(sums, (x.sum(0), y.sum(0)), strict=True):
                total += value
            for total, value in zip(squares, (x.T @ x, y.T @ y, x.T @ y), strict=True):
                total += value
            count += len(part)
    x, y = (total / count for total in sums)
    centred = zip(squares, (np.outer(x, x), np.outer(y, y), np.outer(x, y)), strict=True)
    return (x, y, *(total / count - mean for total, mean in centred))


def _inverse_root(covariance: np.ndarray, ridge: float) -> np.ndarray:
    level = ridge * np.trace(covariance) / len(covariance)
    values, axes = np.linalg.eigh(covariance + level * np.eye(len(covariance)))
    return (axes / np.sqrt(np.maximum(values, 1e-12))) @ axes.T


class Refinement:
    """An alignment in training."""

    def __init__(
        self, pairs: PairVectors, settings: PairSettings, start: Alignment, *, scale: float
    ):
        self.pairs, self.settings, self.steps = pairs, settings, 0
        self.alignment = Alignment(
            start.image_DI.clone().requires_grad_(),
            start.text_DJ.clone().requires_grad_(),
            start.image_mean_I,
            start.text_mean_J,
        )
        self._maps = [self.alignment.image_DI, self.alignment.text_DJ]
        self._log_scale = torch.tensor(math.log(scale), requires_grad=True)
        self._sizes = [float(m.detach().square().mean().sqrt()) for m in self._maps]
        groups = [{"params": [parameter]} for parameter in (*self._maps, self._log_scale)]
        self._adam = torch.optim.Adam(groups, betas=(0.9, 0.99))
        size = min(settings.batch_size, len(pairs.rows_M))
        key = random_key(settings.seed, Purpose.PAIR_ORDER)
        self._order = shuffled_batches(len(pairs.rows_M), size, key)
        self.head: EntityHead | None = None
        if settings.supervised and pairs.num_classes > 1:
            self.head = class_rows(pairs, start, seed=settings.seed)

    def advance(self, steps: int) -> dict[str, float]:
        """Takes steps, their size falling to zero as a cosine, and returns the last one's loss."""
        terms: dict[str, float] = {}
        for _ in range(steps):
            self.steps += 1
            terms = self._step(next(self._order))
        return terms

    def _step(self, places_B: np.ndarray) -> dict[str, float]:
        settings = self.settings
        factor = (1 + math.cos(math.pi * (self.steps - 1) / settings.steps)) / 2
        # A step of Adam moves every entry alike, so it is measured in their size.
        for group, size in zip(self._adam.param_groups, (*self._sizes, 1.0), strict=True):
            group["lr"] = settings.learning_rate * size * factor
        self._adam.zero_grad()
        terms = self.losses(places_B)
        torch.stack(list(terms.values())).sum().backward()
        self._adam.step()
        with torch.no_grad():
            self._log_scale.clamp_(0, math.log(100))
        if "supervised" in terms:
            assert self.head is not None
            self.head.step(learning_rate=self.head.settings.learning_rate * factor)
        return {name: term.item() for name, term in terms.items()}

    def losses(self, places_B: np.ndarray) -> dict[str, Tensor]:
        """Returns the terms of the loss of some pairs, with one of each pair's texts."""
        pairs, step = self.pairs, self.steps
        alignment, classes_B = self.alignment, pairs.classes_M[places_B]
        images_BI = unit_floats(pairs.images[pairs.rows_M[places_B]]) - alignment.image_mean_I
        images_BD = F.normalize(images_BI @ alignment.image_DI.T, dim=-1)
        random = np.random.default_rng(random_key(self.settings.seed, Purpose.PAIR_TEXTS, step))
        kinds_B = random.integers(pairs.texts_MK.shape[1], size=len(places_B))
        texts_B = pairs.texts_MK[places_B, kinds_B]
        captions_B = pairs.texts_MK[places_B, 0]
        kinds_B = np.where(texts_B < 0, 0, kinds_B)
        texts_B = np.where(texts_B < 0, captions_B, texts_B)
        has_B = texts_B >= 0
        texts_BJ = unit_floats(pairs.texts[texts_B[has_B]]) - alignment.text_mean_J
        texts_BD = F.normalize(texts_BJ @ alignment.text_DJ.T, dim=-1)
        masked_BB = right_for_others(texts_B[has_B], classes_B[has_B], kinds_B[has_B] > 0)
        contrastive = masked_info_nce(
            images_BD[torch.from_numpy(has_B)],
            texts_BD,
            masked_BB,
            logit_scale=self._log_scale.exp(),
        )
        terms = {"contrastive": contrastive}
        known_B = classes_B >= 0
        if self.head is not None and known_B.any():
            targets_BK = torch.from_numpy(classes_B[known_B][:, None])
            images_BD = images_BD[torch.from_numpy(known_B)]
            loss, _ = self.head.loss(images_BD, targets_BK, step=step)
            terms["supervised"] = self.settings.supervised * loss
        return terms


def right_for_others(
    texts_B: Int[np.ndarray, " B"],
    classes_B: Int[np.ndarray, " B"],
    names_entity_B: Bool[np.ndarray, " B"],
) -> Bool[Tensor, "B B"]:
    """Returns which text j is no negative of image i != j.

    It is the same text as the image's own, or it names the entity that the image shows; a caption
    of another image of that entity may say more than this image shows, and stays a negative.
    """
    right_BB = texts_B[:, None] == texts_B[None, :]
    same_BB = (classes_B[:, None] == classes_B[None, :]) & (classes_B >= 0)[:, None]
    right_BB |= same_BB & names_entity_B[None, :]
    np.fill_diagonal(right_BB, False)
    return torch.from_numpy(right_BB)


def class_rows(pairs: PairVectors, alignment: Alignment, *, seed: int) -> EntityHead:
    """Returns a class head whose rows are the directions of the classes' means."""
    scale = logit_scale_for(min(pairs.num_classes, _NUM_SAMPLED))
    settings = HeadSettings(margin=0.15, scale=scale, num_sampled=_NUM_SAMPLED)
    head = EntityHead(pairs.num_classes, len(alignment.image_DI), settings, seed=seed)
    known = np.flatnonzero(pairs.classes_M >= 0)
    sums_ND = torch.zeros_like(head.rows_ND)
    for start in range(0, len(known), _CHUNK):
        part = known[start : start + _CHUNK]
        mapped = torch.from_numpy(alignment.of_images(pairs.images[pairs.rows_M[part]]))
        sums_ND.index_add_(0, torch.from_numpy(pairs.classes_M[part]), mapped)
    seen_N = sums_ND.square().sum(1) > 0
    head.rows_ND[seen_N] = F.normalize(sums_ND[seen_N], dim=-1)
    return head


def best_scale(images: Float[np.ndarray, "n D"], texts: Float[np.ndarray, "n D"]) -> float:
    """Returns the inverse temperature at which held-out pairs have the least InfoNCE."""
    cosines = torch.from_numpy(images @ texts.T)
    own = torch.arange(len(cosines))

    def loss(scale: float) -> float:
        logits = scale * cosines
        return float(F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own))

    return min(SCALES, key=loss)
