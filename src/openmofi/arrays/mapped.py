"""Flat arrays on disk: written piece by piece, mapped into memory by every process."""

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa

from openmofi.errors import InputError


def open_array(path: Path) -> np.ndarray:
    """Maps a .npy file.

    Raises:
        InputError: the file is damaged.
    """
    try:
        # A plain array over the mapping: np.memmap's own indexing is several times slower.
        return np.asarray(np.load(path, mmap_mode="r"))
    except ValueError:
        pass  # an empty array, which cannot be mapped, or a damaged file
    try:
        return np.load(path)
    except (ValueError, EOFError):
        raise InputError(f"{path} is damaged; build the knowledge base again.") from None


def one_chunk(column: pa.ChunkedArray) -> pa.Array:
    """Returns a column as one array."""
    if column.num_chunks == 1:
        return column.chunk(0)
    return pa.concat_arrays([pa.array([], column.type), *column.chunks])


def raw_to_npy(path: Path, dtype: np.dtype) -> None:
    """Turns NAME.raw, the bytes of an array, into NAME.npy; `path` is NAME without a suffix."""
    raw = path.with_suffix(".raw")
    count = raw.stat().st_size // dtype.itemsize
    with path.with_suffix(".npy").open("wb") as target, raw.open("rb") as source:
        header = {"descr": dtype.str, "fortran_order": False, "shape": (count,)}
        np.lib.format.write_array_header_1_0(target, header)
        shutil.copyfileobj(source, target, 1 << 20)
    raw.unlink()
