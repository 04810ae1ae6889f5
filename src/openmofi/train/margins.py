"""Margins: the true class's logit is lowered before the softmax, so that training must exceed it.

CosFace (arXiv 1801.09414) subtracts m from the cosine, ArcFace (arXiv 1801.07698) adds m to the
angle. Both apply only to an image's true class, so they work on one number per image.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

_LEAST_SQUARED_SINE = 1e-6  # keeps ArcFace's slope finite if image and row coincide


def apply_margin(
    cosines_B: Float[Tensor, " B"], *, loss: Literal["cosface", "arcface", "plain"], margin: float
) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"]]:
    """Returns (lowered cosines, their slope with respect to the cosines).

    Args:
        cosines_B: cosine of each image with the row of its true class.
        loss: cosface: cos t - m; arcface: cos(t + m); plain: cos t.
        margin: m; a cosine for cosface, radians for arcface.
    """
    if loss == "arcface":
        return _arcface(cosines_B, margin)
    lowered_B = cosines_B - margin if loss == "cosface" else cosines_B
    return lowered_B, torch.ones_like(cosines_B)


def _arcface(cosines_B: Tensor, margin: float) -> tuple[Tensor, Tensor]:
    """cos(t + m) = cos t cos m - sin t sin m, replaced by a straight line where t + m exceeds pi.

    Beyond pi the cosine would rise again and reward being wrong; the line, cos t - m sin m, is that
    of the authors' implementation (github.com/deepinsight/insightface).
    """
    sines_B = (1 - cosines_B.square()).clamp(min=_LEAST_SQUARED_SINE).sqrt()
    inside_B = cosines_B > math.cos(math.pi - margin)
    lowered_B = cosines_B * math.cos(margin) - sines_B * math.sin(margin)
    slope_B = math.cos(margin) + cosines_B / sines_B * math.sin(margin)
    line_B = cosines_B - margin * math.sin(margin)
    return torch.where(inside_B, lowered_B, line_B), torch.where(inside_B, slope_B, 1.0)
