"""Finds the regions of text in an image with RapidOCR's detector; the text is not read.

Images with text teach an encoder to read instead of to look ("Less is More", arXiv 2305.05095), so
that the area of text is a column of the labels, by which `select` filters.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from openmofi.errors import InputError

_SHORTEST, _LONGEST = 320, 736
"""Sizes in pixels: of the shorter side of small images and the longer side of large ones."""
_LARGEST_LINE = 0.4
"""Share of the image above which a region is discarded. The detector takes an object that fills a
small image for one large letter; a real line of that size would have at most four letters."""
_RASTER = 256
"""Side, in cells, of the raster on which the union of the regions is measured."""


@dataclass(frozen=True)
class Regions:
    """The text regions of an image."""

    area: float
    """Share of the image that their union covers."""
    boxes: list[list[float]]
    """Bounding boxes: x0, y0, x1, y1 as shares of width and height."""


class TextRegions:
    """Finds text regions; the detector's weights come with RapidOCR's package."""

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
        x, y = shares[..., 0], shares[..., 1]  # of the corners, for the shoelace formula
        areas = np.abs((x * np.roll(y, -1, 1) - np.roll(x, -1, 1) * y).sum(1)) / 2
        shares = shares[areas <= _LARGEST_LINE]
        if not len(shares):
            return Regions(0.0, [])
        boxes = np.concatenate([shares.min(1), shares.max(1)], axis=1)
        return Regions(_union(shares), boxes.astype(np.float32).tolist())


def _union(quadrilaterals: np.ndarray) -> float:
    """Returns the share of the unit square covered by the union of quadrilaterals [n, 4, 2]."""
    raster = Image.new("1", (_RASTER, _RASTER))
    draw = ImageDraw.Draw(raster)
    for corners in quadrilaterals * (_RASTER - 1):
        draw.polygon([tuple(corner) for corner in corners.tolist()], fill=1)
    return float(np.asarray(raster).mean())
