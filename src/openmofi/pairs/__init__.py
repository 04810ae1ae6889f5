"""Stage 2, pairs: image-caption pairs wherever they lie -> tables of schema.PAIRS."""

from openmofi.pairs.captions import read_captions
from openmofi.pairs.read import (
    PICTURE_ERRORS,
    ImageReader,
    Input,
    count_errors,
    read_pairs,
    read_shard,
)

__all__ = [
    "PICTURE_ERRORS",
    "ImageReader",
    "Input",
    "count_errors",
    "read_captions",
    "read_pairs",
    "read_shard",
]
