"""Flat arrays on disk: written without holding them, mapped into memory by every process."""

import shutil
from pathlib import Path

import numpy as np


def open_array(path: Path) -> np.ndarray:
    """Maps a .npy file; empty arrays cannot be mapped and are read."""
    try:
        # A plain array over the mapping: np.memmap's own indexing is several times slower.
        return np.asarray(np.load(path, mmap_mode="r"))
    except ValueError:
        return np.load(path)


def raw_to_npy(path: Path, dtype: np.dtype) -> None:
    """Turns NAME.raw, the bytes of an array, into NAME.npy; `path` is either without its suffix."""
    raw = path.with_suffix(".raw")
    count = raw.stat().st_size // dtype.itemsize
    with path.with_suffix(".npy").open("wb") as target, raw.open("rb") as source:
        header = {"descr": dtype.str, "fortran_order": False, "shape": (count,)}
        np.lib.format.write_array_header_1_0(target, header)
        shutil.copyfileobj(source, target, 1 << 20)
    raw.unlink()
