"""The losses between images and texts; dense maths, kept plain.

Legend: b this process's batch, B the batch of all processes, D embedding width, M keys of a pair, K
other classes of an image.
Each loss is the mean over this process's pairs; the features of the other processes are negatives
(see distributed.py for the consequences for gradients). The entity head has its own loss.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from openmofi.train.distributed import World, gather

MAX_LOGIT_SCALE = math.log(100.0)
TEACHER_SCALE = 100.0
_MINUS_INFINITY = -1e9  # finite: a fully masked row must not give NaN
_CHUNK = 1024


def info_nce(
    images_bD: Float[Tensor, "b D"],
    texts_bD: Float[Tensor, "b D"],
    logit_scale: Float[Tensor, ""],
    *,
    keys_bM: Int[Tensor, "b M"] | None = None,
    shown_bK: Int[Tensor, "b K"] | None = None,
    world: World | None = None,
) -> Float[Tensor, ""]:
    """Returns the mean of the image-to-text and text-to-image cross entropies (CLIP).

    Each process compares its own images with the texts of all, and its own texts with the images of
    all, so no process holds more than two b x B blocks (arXiv 2103.00020; the "local loss" of
    open_clip).

    Args:
        images_bD: unit vectors; row i belongs to row i of the texts.
        texts_bD: unit vectors.
        logit_scale: log of the inverse temperature, capped at log 100 as in CLIP.
        keys_bM: pairs that share a key (the same entity, the same text) are not each other's
            negatives; negative numbers are not keys.
        shown_bK: the other classes that each image shows, padded with negative numbers; a text
            whose first key is one of them is not a negative of that image.
        world: the processes that train together.
    """
    scale = logit_scale.clamp(max=MAX_LOGIT_SCALE).exp()
    images_BD, texts_BD = gather(images_bD, world), gather(texts_bD, world)
    to_texts_bB = scale * images_bD @ texts_BD.T
    to_images_bB = scale * texts_bD @ images_BD.T
    own_b = _own_columns(images_bD, world)
    if keys_bM is not None:
        keys_BM = _all(keys_bM, world)
        shown_BK = None if shown_bK is None else _all(shown_bK, world)
        texts_bB = no_negatives(keys_bM, keys_BM, own_b, shown_bK=shown_bK)
        images_bB = no_negatives(keys_bM, keys_BM, own_b, shown_BK=shown_BK)
        to_texts_bB = to_texts_bB.masked_fill(texts_bB, _MINUS_INFINITY)
        to_images_bB = to_images_bB.masked_fill(images_bB, _MINUS_INFINITY)
    return (F.cross_entropy(to_texts_bB, own_b) + F.cross_entropy(to_images_bB, own_b)) / 2


def siglip(
    images_bD: Float[Tensor, "b D"],
    texts_bD: Float[Tensor, "b D"],
    logit_scale: Float[Tensor, ""],
    logit_bias: Float[Tensor, ""],
    *,
    keys_bM: Int[Tensor, "b M"] | None = None,
    shown_bK: Int[Tensor, "b K"] | None = None,
    world: World | None = None,
    chunk: int = _CHUNK,
) -> Float[Tensor, ""]:
    """Returns the sigmoid loss of all pairs, summed over texts, mean over images (SigLIP).

    Texts are processed in chunks and their logits computed again for the gradient, so memory grows
    with b x chunk and not with b x B (arXiv 2303.15343, section 3.3).

    Args:
        images_bD: unit vectors; row i belongs to row i of the texts.
        texts_bD: unit vectors.
        logit_scale: log of the inverse temperature.
        logit_bias: added to every logit.
        keys_bM: as in `info_nce`.
        shown_bK: as in `info_nce`.
        world: the processes that train together.
        chunk: number of texts at a time.
    """
    texts_BD = gather(texts_bD, world)
    keys_BM = None if keys_bM is None else _all(keys_bM, world)
    own_b = _own_columns(images_bD, world)
    scale = logit_scale.exp()

    def part(images_bD: Tensor, texts_cD: Tensor, scale: Tensor, bias: Tensor, first: int):
        logits_bc = scale * images_bD @ texts_cD.T + bias
        columns_c = first + torch.arange(len(texts_cD), device=own_b.device)
        true_bc = own_b[:, None] == columns_c[None, :]
        losses_bc = -F.logsigmoid(torch.where(true_bc, logits_bc, -logits_bc))
        if keys_bM is not None and keys_BM is not None:
            same_bc = no_negatives(keys_bM, keys_BM[columns_c], own_b - first, shown_bK=shown_bK)
            losses_bc = losses_bc.masked_fill(same_bc, 0.0)
        return losses_bc.sum()

    total = images_bD.new_zeros(())
    for first in range(0, len(texts_BD), chunk):
        texts_cD = texts_BD[first : first + chunk]
        total = total + checkpoint(  # pyrefly: ignore[unsupported-operation]
            part, images_bD, texts_cD, scale, logit_bias, first, use_reentrant=False
        )
    return total / len(images_bD)


@dataclass(frozen=True)
class ImageTextLoss:
    """A loss between images and texts, and the settings of its scale and bias."""

    loss: Callable[..., Float[Tensor, ""]]
    """Takes images_bD, texts_bD, logit_scale and, if there is a bias, logit_bias."""
    logit_scale: float
    """Initial log of the inverse temperature in a new network."""
    max_logit_scale: float | None = None
    """Value to which it is clamped after a step; None does not clamp it."""
    logit_bias: float | None = None
    """Initial bias, unless the network has one; None learns no bias."""


IMAGE_TEXT = {
    "infonce": ImageTextLoss(info_nce, math.log(1 / 0.07), max_logit_scale=MAX_LOGIT_SCALE),
    "siglip": ImageTextLoss(siglip, math.log(10.0), logit_bias=-10.0),
}
"""By the names of the setting `loss.image_text`."""


def distillation(
    images_bD: Float[Tensor, "b D"],
    texts_bD: Float[Tensor, "b D"],
    logit_scale: Float[Tensor, ""],
    teachers: Sequence[tuple[Float[Tensor, "b _"], Float[Tensor, "b _"]]],
    *,
    world: World | None = None,
) -> Float[Tensor, ""]:
    """Returns the cross entropy of the student's rows against the mean of the teachers' rows.

    A row is the softmax of one image over the batch's texts, or of one text over its images
    (MobileCLIP, arXiv 2311.17049, section 4).

    Args:
        images_bD: unit vectors of the student.
        texts_bD: unit vectors of the student.
        logit_scale: log of the student's inverse temperature.
        teachers: each teacher's unit vectors of the same images and texts; widths may differ.
        world: the processes that train together.
    """
    scale = logit_scale.clamp(max=MAX_LOGIT_SCALE).exp()
    all_images, all_texts = gather(images_bD, world), gather(texts_bD, world)
    loss = images_bD.new_zeros(())
    for own_bD, others_BD, side in ((images_bD, all_texts, 0), (texts_bD, all_images, 1)):
        wanted_bB = torch.stack(
            [
                (TEACHER_SCALE * pair[side] @ _all(pair[1 - side], world).T).softmax(1)
                for pair in teachers
            ]
        ).mean(0)
        loss = loss + F.cross_entropy(scale * own_bD @ others_BD.T, wanted_bB) / 2
    return loss


def no_negatives(
    keys_bM: Int[Tensor, "b M"],
    keys_BM: Int[Tensor, "B M"],
    own_b: Int[Tensor, " b"],
    *,
    shown_bK: Int[Tensor, "b K"] | None = None,
    shown_BK: Int[Tensor, "B K"] | None = None,
) -> Bool[Tensor, "b B"]:
    """Returns which pairs belong together by their keys; a pair does not mask itself.

    Args:
        keys_bM: keys of this process's pairs; two pairs belong together if they share a key of the
            same kind. Negative numbers are not keys.
        keys_BM: keys of the others.
        own_b: column of each of this process's pairs; may be out of range.
        shown_bK: other classes of this process's images, compared with the others' first key.
        shown_BK: other classes of the others' images, compared with this process's first key.
    """
    compared = list(zip(keys_bM.unbind(1), keys_BM.unbind(1), strict=True))
    if shown_bK is not None:
        compared += [(shown_b, keys_BM[:, 0]) for shown_b in shown_bK.unbind(1)]
    if shown_BK is not None:
        compared += [(keys_bM[:, 0], shown_B) for shown_B in shown_BK.unbind(1)]
    same_bB = torch.zeros(len(keys_bM), len(keys_BM), dtype=torch.bool, device=keys_bM.device)
    for one_b, other_B in compared:
        same_bB |= (one_b[:, None] == other_B[None, :]) & (one_b >= 0)[:, None]
    columns_B = torch.arange(len(keys_BM), device=keys_bM.device)
    return same_bB & (own_b[:, None] != columns_B[None, :])


def _own_columns(rows_bD: Tensor, world: World | None) -> Int[Tensor, " b"]:
    first = world.rank * len(rows_bD) if world is not None else 0
    return first + torch.arange(len(rows_bD), device=rows_bD.device)


def _all(rows: Tensor, world: World | None) -> Tensor:
    return rows if world is None else world.all_gather(rows)
