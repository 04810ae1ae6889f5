"""A column of strings as two memory-mapped arrays: any row can be read without the others."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from openmofi.arrays.compiled import compiled
from openmofi.arrays.mapped import open_array, raw_to_npy


def write_strings(folder: Path, batches: Iterable[pa.Array]) -> None:
    """Writes a column batch by batch; nulls become "".

    Args:
        folder: created here; gets offsets.npy and bytes.npy.
        batches: of strings.
    """
    folder.mkdir(parents=True)
    ends, total = [np.zeros(1, np.int64)], 0
    with (folder / "bytes.raw").open("wb") as file:
        for batch in batches:
            offsets, data = string_buffers(batch.cast(pa.large_string()))
            data[offsets[0] : offsets[-1]].tofile(file)
            ends.append(total + offsets[1:] - offsets[0])
            total += int(offsets[-1] - offsets[0])
    np.save(folder / "offsets.npy", np.concatenate(ends))
    raw_to_npy(folder / "bytes", np.dtype(np.uint8))


def open_strings(folder: Path) -> pa.LargeStringArray:
    """Maps a column into memory."""
    offsets, data = (open_array(folder / f"{name}.npy") for name in ("offsets", "bytes"))
    buffers = pa.py_buffer(offsets), pa.py_buffer(data)
    return pa.LargeStringArray.from_buffers(len(offsets) - 1, *buffers)


def string_buffers(strings: pa.LargeStringArray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the int64 offsets and the bytes of an Arrow array; nulls are empty."""
    if strings.null_count:
        strings = pc.fill_null(strings, "")  # Arrow allows any bytes under a null
    _, raw_offsets, raw_data = strings.buffers()
    if raw_offsets is None:
        return np.zeros(1, np.int64), np.zeros(0, np.uint8)
    low, high = strings.offset, strings.offset + len(strings) + 1
    offsets = np.frombuffer(raw_offsets, np.int64)[low:high]
    data = np.frombuffer(raw_data, np.uint8) if raw_data else np.zeros(0, np.uint8)
    return offsets, data


@compiled
def slices(data, starts, ends):
    """Returns the offsets and bytes of a column that holds data[starts[i]:ends[i]]; compiled."""
    offsets = np.zeros(len(starts) + 1, np.int64)
    for i in range(len(starts)):
        offsets[i + 1] = offsets[i] + ends[i] - starts[i]
    copied = np.empty(offsets[-1], np.uint8)
    for i in range(len(starts)):
        copied[offsets[i] : offsets[i + 1]] = data[starts[i] : ends[i]]
    return offsets, copied
