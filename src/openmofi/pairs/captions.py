"""Captions alone, where no image is needed: of a text file, one a line, or of any pairs."""

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
        InputError: nothing is there, it holds no pairs, or the text file is damaged.
    """
    texts = _lines(path) if _is_text(path) else _of_pairs(path)
    while batch := list(islice(texts, batch_size)):
        yield batch


def _is_text(path: Path) -> bool:
    return path.is_file() and content_suffix(path) == ".txt"


def _lines(path: Path) -> Iterator[str]:
    try:
        for _, line in read_lines(path):
            yield line.decode(errors="replace")
    except TruncatedFile as error:
        raise InputError(f"{path} is damaged ({error}); expected a complete file.") from None


def _of_pairs(path: Path) -> Iterator[str]:
    found = find_shards(path)
    for shard in found.shards:
        for caption in read_shard(found.root, shard).table["caption"].to_pylist():
            yield caption or ""
