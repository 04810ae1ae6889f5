"""Captions alone, where no image is needed: from a text file, one per line, or from any pairs."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from openmofi.errors import InputError
from openmofi.files.lines import TruncatedFile, content_suffix, read_lines
from openmofi.pairs.find import find_shards
from openmofi.pairs.read import read_shard


def read_captions(path: Path, batch_size: int) -> Iterator[list[str]]:
    """Yields the captions of an input in batches of at most this size.

    Raises:
        InputError: there is no input, it holds no pairs, or the text file is damaged.
    """
    if path.is_file() and content_suffix(path) == ".txt":
        texts = _lines(path)
    else:
        found = find_shards(path)
        tables = (read_shard(found.root, shard).table for shard in found.shards)
        texts = (caption or "" for table in tables for caption in table["caption"].to_pylist())
    while batch := list(islice(texts, batch_size)):
        yield batch


def _lines(path: Path) -> Iterator[str]:
    try:
        for _, line in read_lines(path):
            yield line.decode(errors="replace")
    except TruncatedFile as error:
        raise InputError(f"{path} is damaged ({error}); expected a complete file.") from None
