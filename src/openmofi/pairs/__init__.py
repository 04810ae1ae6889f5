"""Stage 2, pairs: image-caption pairs in any format -> tables of schema.PAIRS.

Accepts WebDataset tars (with or without img2dataset's Parquet sidecars), Parquet files with image
bytes or paths, folders saved by Hugging Face `datasets`, a CSV / JSONL of files and captions, and a
folder of images with .txt captions; on this machine or at a URL.
"""

from openmofi.pairs.captions import read_captions
from openmofi.pairs.find import Input, find_shards
from openmofi.pairs.images import ImageReader
from openmofi.pairs.read import ShardPairs, ShardView, count_errors, open_shard, read_shard

__all__ = [
    "ImageReader",
    "Input",
    "ShardPairs",
    "ShardView",
    "count_errors",
    "find_shards",
    "open_shard",
    "read_captions",
    "read_shard",
]

read_pairs = find_shards  # the name until 2026-11, for code that still uses it
