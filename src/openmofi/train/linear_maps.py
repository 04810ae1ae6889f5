"""Linear maps for the two sides of a dual encoder, trained on its cached vectors; dense maths.

Legend: B batch, K labels of an image, D width, N entities, T kinds of texts.

    loss = supervised * CosFace(u, class rows) + contrastive * InfoNCE(u, w)
           + pull * (|M_image - S_image|^2 / |S_image|^2 + |M_text - S_text|^2 / |S_text|^2)
    u = unit(M_image (x - mean)),  w = unit(M_text (t - mean))

x and t are unit vectors, whose numbers may have been raised to a power. S is where the map M began:
the identity, or a closed form; the means stay as they are. The pull is relative, so one weight
suits all widths. CosFace: arXiv 1801.09414; InfoNCE as in CLIP: arXiv 2103.00020.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float16, Int
from torch import Tensor
from torch.nn import functional as F

from openmofi.arrays.random_keys import Purpose, random_key
from openmofi.config import AdaptSettings, HeadSettings
from openmofi.model.dual import unit_power
from openmofi.train.entity_head import EntityHead

_NUM_SAMPLED = 2048
"""Drawn classes of a step, in addition to the batch's own; they take most of a step's time."""
_CHUNK = 16384
_MINUS_INFINITY = -1e9  # finite: a fully masked row must not give NaN


@dataclass(frozen=True)
class EntityTexts:
    """Encoded texts of the entities: the name, and the name with description."""

    vectors_TND: Float16[np.ndarray, "T N D"]
    """Unit vectors, zero for an entity without texts."""
    groups_TN: Int[np.ndarray, "T N"]
    """Equal for equal texts, negative for an entity without texts."""
    logit_scale: float
    """The encoder's own inverse temperature."""


@dataclass(frozen=True)
class Examples:
    """Vectors and what they show."""

    vectors: np.ndarray
    """[all images, D], float16 or float32, of any length but zero."""
    rows: Int[np.ndarray, " M"]
    """Rows of the vectors to learn from."""
    targets_MK: Int[np.ndarray, "M K"]
    """Classes, the target first, padded with -1."""
    num_classes: int
    texts: EntityTexts | None = None


@dataclass
class Maps:
    """The parameters that are trained, in addition to the class rows."""

    image_DD: Float[Tensor, "D D"]
    text_DD: Float[Tensor, "D D"]
    image_mean_D: Float[Tensor, " D"]
    """Taken from an image's unit vector before it is mapped."""
    text_mean_D: Float[Tensor, " D"]
    image_power: float = 1.0
    """To which the numbers of an image's unit vector are raised before that, signs kept."""
    text_power: float = 1.0

    @staticmethod
    def identity(dim: int) -> Maps:
        """Returns maps that change nothing."""
        return Maps(torch.eye(dim), torch.eye(dim), torch.zeros(dim), torch.zeros(dim))

    @property
    def is_linear(self) -> bool:
        """Whether neither a mean is taken off nor a power taken."""
        means = self.image_mean_D.any() or self.text_mean_D.any()
        return not means and self.image_power == self.text_power == 1

    def copy(self) -> Maps:
        """Returns a copy without gradients."""
        parts = (self.image_DD, self.text_DD, self.image_mean_D, self.text_mean_D)
        image, text, image_mean, text_mean = (part.detach().clone() for part in parts)
        return Maps(image, text, image_mean, text_mean, self.image_power, self.text_power)

    def apply_to_images(self, vectors_ND: np.ndarray) -> Float[np.ndarray, "N D"]:
        """Returns the mapped vectors of images, float32 of length 1."""
        return apply_map(
            vectors_ND, self.image_DD.detach(), self.image_mean_D, power=self.image_power
        )

    def apply_to_texts(self, vectors_ND: np.ndarray) -> Float[np.ndarray, "N D"]:
        """Returns the mapped vectors of texts, float32 of length 1."""
        return apply_map(vectors_ND, self.text_DD.detach(), self.text_mean_D, power=self.text_power)


def apply_map(
    vectors_ND: np.ndarray,
    map_ED: Float[Tensor, "E D"],
    mean_D: Float[Tensor, " D"] | float = 0.0,
    *,
    power: float = 1.0,
) -> Float[np.ndarray, "N E"]:
    """Returns unit(M (unit(unit(x)^power) - mean)) of every vector x, float32."""
    return F.normalize((unit_floats(vectors_ND, power) - mean_D) @ map_ED.T, dim=-1).numpy()


def unit_floats(vectors_ND: np.ndarray, power: float = 1.0) -> Float[Tensor, "N D"]:
    """Returns unit vectors in float32, as `unit_power` does."""
    return unit_power(torch.from_numpy(np.array(vectors_ND, np.float32)), power)


def relative_distance(
    map_DD: Float[Tensor, "D D"], start_DD: Float[Tensor, "D D"]
) -> Float[Tensor, ""]:
    """Returns |M - S|^2 / |S|^2."""
    return (map_DD - start_DD).square().sum() / start_DD.square().sum()


def masked_info_nce(
    images_BD: Float[Tensor, "B D"],
    texts_BD: Float[Tensor, "B D"],
    masked_BB: Bool[Tensor, "B B"],
    *,
    logit_scale: float | Float[Tensor, ""],
) -> Float[Tensor, ""]:
    """Returns the mean of the image-to-text and text-to-image cross entropies.

    Args:
        images_BD: unit vectors; row i belongs to row i of the texts.
        texts_BD: unit vectors.
        masked_BB: whether text j is also right for image i and so not a negative; false on the
            diagonal.
        logit_scale: inverse temperature.
    """
    logits_BB = (logit_scale * images_BD @ texts_BD.T).masked_fill(masked_BB, _MINUS_INFINITY)
    own_B = torch.arange(len(images_BD))
    return (F.cross_entropy(logits_BB, own_B) + F.cross_entropy(logits_BB.T, own_B)) / 2


def also_right(
    targets_BK: Int[np.ndarray, "B K"], groups_B: Int[np.ndarray, " B"]
) -> Bool[np.ndarray, "B B"]:
    """Returns whether text j is right for image i != j: i shows its entity, or the texts agree."""
    right_BB = groups_B[:, None] == groups_B[None, :]
    for column_B in targets_BK.T:
        right_BB |= column_B[:, None] == targets_BK[None, :, 0]
    np.fill_diagonal(right_BB, False)
    return right_BB


def logit_scale_for(num_classes: int) -> float:
    """Returns sqrt(2) log(C - 1), at least 1: AdaCos' fixed scale (arXiv 1905.00292)."""
    return max(math.sqrt(2) * math.log(max(num_classes - 1, 1)), 1.0)


def class_means(examples: Examples, maps: Maps) -> Float[Tensor, "N D"]:
    """Returns the direction of each class's mean among the mapped vectors, by first labels."""
    sums_ND = torch.zeros(examples.num_classes, examples.vectors.shape[1])
    targets_M = torch.from_numpy(examples.targets_MK[:, 0].copy())
    for start in range(0, len(targets_M), _CHUNK):
        part = slice(start, start + _CHUNK)
        mapped = maps.apply_to_images(examples.vectors[examples.rows[part]])
        sums_ND.index_add_(0, targets_M[part], torch.from_numpy(mapped))
    return F.normalize(sums_ND, dim=-1)


def shuffled_batches(count: int, size: int, key: int) -> Iterator[Int[np.ndarray, " size"]]:
    """Yields batches of places without end, each place once before any comes again.

    Args:
        count: places there are.
        size: of a batch; at most `count`.
        key: of the order.
    """
    random, places = np.random.default_rng(key), np.zeros(0, np.int64)
    while True:
        if len(places) < size:
            places = np.concatenate([places, random.permutation(count)])
        yield places[:size]
        places = places[size:]


class Fit:
    """Maps and class rows in training."""

    def __init__(
        self, examples: Examples, settings: AdaptSettings, *, pull: float, start: Maps | None = None
    ):
        dim = examples.vectors.shape[1]
        compared = min(examples.num_classes, _NUM_SAMPLED)
        self.examples, self.settings, self.pull = examples, settings, pull
        self.start = start or Maps.identity(dim)
        self.maps = self.start.copy()
        self.steps = 0
        """Steps taken."""
        size = min(settings.batch_size, len(examples.rows))
        key = random_key(settings.seed, Purpose.ADAPT_ORDER)
        self._order = shuffled_batches(len(examples.rows), size, key)
        self._trained = [self.maps.image_DD.requires_grad_()]
        if examples.texts is not None:
            self._trained.append(self.maps.text_DD.requires_grad_())
        self._adam = torch.optim.Adam(self._trained, betas=(0.9, 0.99))
        # A step of Adam moves every entry alike, so it is measured in their size.
        self._step_size = settings.learning_rate * float(self.start.image_DD.square().mean().sqrt())
        head = HeadSettings(
            margin=settings.margin,
            scale=settings.scale or logit_scale_for(compared),
            num_sampled=_NUM_SAMPLED,
        )
        self.head = EntityHead(examples.num_classes, dim, head, seed=settings.seed)
        # The mean of its vectors is a far better class row to start from than a random one.
        self.head.rows_ND.copy_(class_means(examples, self.start))

    def advance(self, steps: int) -> dict[str, float]:
        """Takes steps, their size falling to zero as a cosine does over settings.steps.

        Args:
            steps: how many more.

        Returns:
            The terms of the last step's loss.
        """
        terms: dict[str, float] = {}
        for _ in range(steps):
            self.steps += 1
            terms = self._step(next(self._order), self.steps)
        return terms

    def _step(self, places: np.ndarray, step: int) -> dict[str, float]:
        factor = (1 + math.cos(math.pi * (step - 1) / self.settings.steps)) / 2
        self._adam.param_groups[0]["lr"] = self._step_size * factor
        self._adam.zero_grad()
        terms = self.losses(places, step)
        loss = torch.stack([term for name, term in terms.items() if name != "accuracy"]).sum()
        loss.backward()
        self._adam.step()
        self.head.step(learning_rate=self.head.settings.learning_rate * factor)
        return {"loss": loss.item(), **{name: term.item() for name, term in terms.items()}}

    def losses(self, places: np.ndarray, step: int) -> dict[str, Tensor]:
        """Returns the weighted terms of the loss, and the accuracy among the classes in use.

        Args:
            places: places in examples.rows.
            step: keys the draws of classes and texts.
        """
        settings, examples = self.settings, self.examples
        targets_BK = examples.targets_MK[places]
        cached_BD = unit_floats(examples.vectors[examples.rows[places]], self.maps.image_power)
        centred_BD = cached_BD - self.maps.image_mean_D
        images_BD = F.normalize(centred_BD @ self.maps.image_DD.T, dim=-1)
        supervised, accuracy = self.head.loss(images_BD, torch.from_numpy(targets_BK), step=step)
        starts = (self.start.image_DD, self.start.text_DD)
        distance = sum(map(relative_distance, self._trained, starts), torch.zeros(()))
        terms = {"supervised": settings.supervised * supervised, "pull": self.pull * distance}
        if self.examples.texts is not None and settings.contrastive:
            contrastive = self._contrastive(self.examples.texts, images_BD, targets_BK, step)
            terms["contrastive"] = settings.contrastive * contrastive
        return {**terms, "accuracy": accuracy}

    def _contrastive(
        self, texts: EntityTexts, images_BD: Tensor, targets_BK: np.ndarray, step: int
    ) -> Float[Tensor, ""]:
        """Returns InfoNCE against one text of each image's entity, drawn for this step."""
        random = np.random.default_rng(random_key(self.settings.seed, Purpose.ADAPT_TEXTS, step))
        kinds_B = random.integers(len(texts.vectors_TND), size=len(targets_BK))
        groups_B = texts.groups_TN[kinds_B, targets_BK[:, 0]]
        has_B = groups_B >= 0
        if has_B.sum() < 2:
            return torch.zeros(())
        chosen = texts.vectors_TND[kinds_B[has_B], targets_BK[has_B, 0]]
        centred_BD = unit_floats(chosen, self.maps.text_power) - self.maps.text_mean_D
        texts_BD = F.normalize(centred_BD @ self.maps.text_DD.T, dim=-1)
        masked_BB = torch.from_numpy(also_right(targets_BK[has_B], groups_B[has_B]))
        scale = texts.logit_scale
        return masked_info_nce(
            images_BD[torch.from_numpy(has_B)], texts_BD, masked_BB, logit_scale=scale
        )
