"""Where there is text in an image: the detector of RapidOCR, without the reading.

Images with text regions teach an encoder to read instead of to look ("Less is More", arXiv
2305.05095): their area is a column of the labels, and `select` filters by it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from openmofi.errors import InputError

_SHORTEST, _LONGEST = 320, 736
"""Pixels to which the shorter side of small images, and the longer one of large, is brought."""
_LARGEST_LINE = 0.4
"""Share of the image above which a region is none. The detector takes a thing that fills a small
image for one large letter; a line of text of that size would have four letters at most."""
_RASTER = 256
"""Side of the raster on which the regions' union is measured, in cells."""


@dataclass(frozen=True)
class Regions:
    """The text regions of an image."""

    area: float
    """Share of the image that they cover together."""
    boxes: list[list[float]]
    """x0, y0, x1, y1 around each, as shares of width and height."""


class TextRegions:
    """Finds text regions; the detector's weights lie in RapidOCR's package."""

    def __init__(self) -> None:
        try:
            from rapidocr import RapidOCR
        except ImportError:
            raise InputError(
                "--text-regions needs RapidOCR; install it with: pip install 'openmofi[ocr]'."
            ) from None
        self._detect: Any = RapidOCR(
            params={
                "Global.log_level": "error",
                "EngineConfig.onnxruntime.intra_op_num_threads": 1,
                "EngineConfig.onnxruntime.inter_op_num_threads": 1,
                "Det.limit_type": "min",
                "Det.limit_side_len": _SHORTEST,
            }
        )

    def find(self, image: Image.Image) -> Regions:
        """Returns the text regions of an RGB image."""
        small = image.copy()
        small.thumbnail((_LONGEST, _LONGEST))
        blue_first = np.ascontiguousarray(np.asarray(small)[:, :, ::-1])
        found = self._detect(blue_first, use_cls=False, use_rec=False)
        if found.boxes is None or not len(found.boxes):
            return Regions(0.0, [])
        shares = np.asarray(found.boxes, dtype=np.float64) / np.array(small.size)
        shares = shares.clip(0.0, 1.0)
        shares = shares[_areas(shares) <= _LARGEST_LINE]
        if not len(shares):
            return Regions(0.0, [])
        boxes = np.concatenate([shares.min(1), shares.max(1)], axis=1)
        return Regions(_union(shares), boxes.astype(np.float32).tolist())


def _areas(quadrilaterals: np.ndarray) -> np.ndarray:
    """Returns the area of each quadrilateral [n, 4, 2], by the shoelace formula."""
    x, y = quadrilaterals[..., 0], quadrilaterals[..., 1]
    return np.abs((x * np.roll(y, -1, 1) - np.roll(x, -1, 1) * y).sum(1)) / 2


def _union(quadrilaterals: np.ndarray) -> float:
    """Returns the share of the unit square that quadrilaterals [n, 4, 2] cover together."""
    raster = Image.new("1", (_RASTER, _RASTER))
    draw = ImageDraw.Draw(raster)
    for corners in quadrilaterals * (_RASTER - 1):
        draw.polygon([tuple(corner) for corner in corners.tolist()], fill=1)
    return float(np.asarray(raster).mean())
