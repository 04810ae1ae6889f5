"""Stage 2, pairs: image-caption pairs wherever they lie -> tables of schema.PAIRS.

Accepts WebDataset tars (with img2dataset's Parquet sidecars or without), Parquet files with image
bytes or paths, folders saved by Hugging Face `datasets`, a CSV / JSONL of files and captions, and a
folder of images with .txt beside; on this machine or at a URL.
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

read_pairs = find_shards  # its name until 2026-11, which others' code may still use
