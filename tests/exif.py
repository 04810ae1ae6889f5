"""Exif blocks and JPEGs made by hand, so that they can hold what no library writes."""

import io
import struct

import numpy as np
from PIL import Image

ORIENTATION = 0x0112
UPRIGHT = np.kron(np.arange(6).reshape(2, 3) * 40 + 20, np.ones((16, 16))).astype(np.uint8)
"""Grey levels [32, 48] of six squares; as they lie in `jpeg`."""
SEEN = {
    1: UPRIGHT,
    2: UPRIGHT[:, ::-1],
    3: UPRIGHT[::-1, ::-1],
    4: UPRIGHT[::-1],
    5: UPRIGHT.T,
    6: np.rot90(UPRIGHT, -1),
    7: UPRIGHT[::-1, ::-1].T,
    8: np.rot90(UPRIGHT),
}
"""The same, as each orientation says that they are meant (Exif 2.32, 4.6.4 A)."""


def short(value: int, order: str = "<") -> bytes:
    return struct.pack(order + "H", value)


def directory(*entries: tuple[int, int, int, bytes], order: str = "<", at: int = 8) -> bytes:
    """A TIFF header and a directory of (tag, type, count, bytes of the value)."""
    place, table, behind = 8 + 2 + 12 * len(entries) + 4, b"", b""
    for tag, kind, count, value in entries:
        table += struct.pack(order + "HHL", tag, kind, count)
        if len(value) > 4:
            table += struct.pack(order + "L", place + len(behind))
            behind += value
        else:
            table += value.ljust(4, b"\0")
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "L", at)
    return head + struct.pack(order + "H", len(entries)) + table + bytes(4) + behind


def segment(marker: int, data: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


def jpeg(exif: bytes | None = None, *, mode: str = "L", more: bytes = b"") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(UPRIGHT).convert(mode).save(buffer, "JPEG", quality=100, subsampling=0)
    data = buffer.getvalue()
    block = b"" if exif is None else segment(0xE1, b"Exif\0\0" + exif)
    return data[:2] + block + more + data[2:]
