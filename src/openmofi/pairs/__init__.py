"""Stage 2, pairs: image-caption pairs wherever they lie -> tables of schema.PAIRS."""

from openmofi.pairs.read import ImageReader, Input, count_errors, read_pairs, read_shard

__all__ = ["ImageReader", "Input", "count_errors", "read_pairs", "read_shard"]
