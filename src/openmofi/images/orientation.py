"""An image's orientation: the only Exif tag (0x0112) that matters here, read without the others.

Pillow reads and writes the whole directory to turn an image, so that one malformed tag, such as an
ASCII resolution or a zero denominator, would lose the image. Exif 2.32, 4.6.2: a TIFF header, then
a directory of 12-byte entries (tag, type, count, value or its offset).
"""

from __future__ import annotations

import re
import struct

from PIL import Image

_TAG = 0x0112
_NUMBERS = {1: "B", 3: "H", 4: "L", 6: "b", 8: "h", 9: "l", 11: "f", 12: "d", 16: "Q", 17: "q"}
_FRACTIONS = {5: "LL", 10: "ll"}
_ORDERS = {b"II": "<", b"MM": ">"}
# (offset of the first directory, number of its entries, one entry, bytes of a value inside it)
_PLAIN, _BIG = ("4xL", "H", "HHL", 4), ("8xQ", "Q", "HHQ", 8)
# The item: a 4-byte offset to the block, what it skips, and the block.
_EXIF_IN_AVIF = re.compile(rb"(?:\0{4}|Exif\0\0)(II\*\0|MM\0\*)")
_XMP = re.compile(rb"""tiff:Orientation(?:=["']|>)\s*([1-8])""")
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def exif_orientation(block: bytes) -> int | None:
    """Returns the orientation, 1 to 8, that an Exif block or a TIFF file states, or None.

    A single number of any numeric type is accepted; text, several numbers, and numbers beyond 8
    are ignored. Of a truncated directory, the complete entries are read.
    """
    block = block.removeprefix(b"Exif\0\0")
    order = _ORDERS.get(block[:2])
    if order is None:
        return None
    first, count, entry, room = _BIG if block[2:4] in (b"+\0", b"\0+") else _PLAIN
    found = None
    try:
        (at,) = struct.unpack_from(order + first, block)
        (entries,) = struct.unpack_from(order + count, block, at)
        at += struct.calcsize(order + count)
        head = struct.calcsize(order + entry)
        for _ in range(min(entries, len(block))):
            tag, kind, values = struct.unpack_from(order + entry, block, at)
            if tag == _TAG and values == 1:
                found = _one_number(block, order, kind, at + head, room) or found
            at += head + room
    except (struct.error, OverflowError):
        pass  # truncated; what was read before stands
    return found


def _one_number(block: bytes, order: str, kind: int, at: int, room: int) -> int | None:
    form = order + (_NUMBERS.get(kind) or _FRACTIONS.get(kind) or "")
    size = struct.calcsize(form)
    try:
        if size > room:
            (at,) = struct.unpack_from(order + ("Q" if room == 8 else "L"), block, at)
        numbers = struct.unpack_from(form, block, at)
    except (struct.error, OverflowError):
        return None
    if kind in _FRACTIONS:
        numbers = (numbers[0] / numbers[1] if numbers[1] else 0,)
    return next((int(number) for number in numbers if number in range(1, 9)), None)


def bare_avif(data: bytes) -> bytes:
    """Empties the Exif directory of an AVIF file; returns anything else unchanged.

    Pillow rewrites all tags if they disagree with the orientation that the file itself states.
    """
    found = _EXIF_IN_AVIF.search(data) if data[4:10] == b"ftypav" else None
    if found is None:
        return data
    order = _ORDERS[found[1][:2]]
    (first,) = struct.unpack_from(order + "L", data.ljust(found.end() + 4, b"\0"), found.end())
    at = found.start(1) + first
    return data[:at] + b"\0\0" + data[at + 2 :] if at + 2 <= len(data) else data


def xmp_orientation(packet: bytes) -> int | None:
    """Returns the orientation that an XMP packet states, or None."""
    found = _XMP.search(packet)
    return int(found[1]) if found else None


def is_sideways(orientation: int) -> bool:
    """Returns whether the orientation swaps width and height."""
    return orientation >= 5


def upright(image: Image.Image, orientation: int) -> Image.Image:
    """Returns an image turned as it is meant to be seen."""
    return image.transpose(_TURNS[orientation]) if orientation in _TURNS else image
