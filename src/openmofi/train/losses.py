"""The losses of the three recipes; dense maths, kept plain.

Legend: B batch, C classes in this step, D embedding width.
Supervised: CosFace (arXiv 1801.09414) over entities. Contrastive: symmetric InfoNCE as in CLIP
(arXiv 2103.00020). Multi-task: their weighted sum (MOFI, arXiv 2306.07952, section 3).
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

INITIAL_LOGIT_SCALE = math.log(1 / 0.07)
MAX_LOGIT_SCALE = math.log(100.0)
_MINUS_INFINITY = -1e9  # finite: a fully masked row must not give NaN


def cosface(
    cosines_BC: Float[Tensor, "B C"],
    targets_B: Int[Tensor, " B"],
    *,
    margin: float,
    scale: float,
    log_correction_C: Float[Tensor, " C"] | None = None,
    masked_BC: Bool[Tensor, "B C"] | None = None,
) -> Float[Tensor, ""]:
    """Returns the mean cross entropy of z = s (cos - m [c = target]) - log_correction.

    Args:
        cosines_BC: cosines of images and class rows.
        targets_B: column of each image's true class.
        margin: m, lowers only the true class, so that training must exceed it.
        scale: s, the inverse temperature.
        log_correction_C: log of each class's expected count among the sampled ones (logQ).
        masked_BC: classes that are no negatives of an image (its other true entities).
    """
    onehot_BC = F.one_hot(targets_B, cosines_BC.shape[1]).to(cosines_BC.dtype)
    logits_BC = scale * (cosines_BC - margin * onehot_BC)
    if log_correction_C is not None:
        logits_BC = logits_BC - log_correction_C
    if masked_BC is not None:
        logits_BC = logits_BC.masked_fill(masked_BC & (onehot_BC == 0), _MINUS_INFINITY)
    return F.cross_entropy(logits_BC, targets_B)


def info_nce(
    images_BD: Float[Tensor, "B D"],
    texts_BD: Float[Tensor, "B D"],
    logit_scale: Float[Tensor, ""],
    *,
    groups_B: Int[Tensor, " B"] | None = None,
) -> Float[Tensor, ""]:
    """Returns the mean of the image-to-text and text-to-image cross entropies.

    Args:
        images_BD: unit vectors; row i belongs to row i of the texts.
        texts_BD: unit vectors.
        logit_scale: log of the inverse temperature, capped at log 100 as in CLIP.
        groups_B: rows of one group (the same entity) are not each other's negatives; negative
            numbers belong to no group.
    """
    logits_BB = logit_scale.clamp(max=MAX_LOGIT_SCALE).exp() * images_BD @ texts_BD.T
    if groups_B is not None:
        same_BB = (groups_B[:, None] == groups_B[None, :]) & (groups_B >= 0)[:, None]
        same_BB.fill_diagonal_(False)
        logits_BB = logits_BB.masked_fill(same_BB, _MINUS_INFINITY)
    targets_B = torch.arange(len(images_BD), device=images_BD.device)
    both = F.cross_entropy(logits_BB, targets_B) + F.cross_entropy(logits_BB.T, targets_B)
    return both / 2
