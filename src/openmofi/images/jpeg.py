"""Plain JPEGs, by far the most of what a crawl holds, decoded without Pillow's own header pass.

A header is plain if the pixels need nothing but decoding and turning: 8 bits, grey or three
colours. Any other file is Pillow's to open, without the metadata that may be odd and that nobody
needs. The decoder is Pillow's in both cases, so the pixels are the same; for small images this
takes two thirds of the time. Of several images in one file the first counts.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from PIL import Image

from openmofi.images.orientation import exif_orientation, is_sideways, upright, xmp_orientation

_START_OF_FRAME = (0xC0, 0xC1, 0xC2)  # baseline, extended, progressive
_START_OF_SCAN = 0xDA
_APP1, _APP2 = 0xE1, 0xE2  # Exif or XMP, which may turn the image; ICC, or further images
_XMP_NAME = b"http://ns.adobe.com/xap/1.0/\0"
_STANDALONE = (0x00, 0x01, *range(0xD0, 0xDA))
_SCALES = (8, 4, 2, 1)


@dataclass(frozen=True)
class PlainJpeg:
    """The header of a JPEG that needs no more than decoding."""

    width: int
    height: int
    """As the chip lay; `size` is upright."""
    mode: str
    """L | RGB."""
    orientation: int = 1
    """1 to 8, as in Exif."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height, upright."""
        turned = is_sideways(self.orientation)
        return (self.height, self.width) if turned else (self.width, self.height)

    def scale_for(self, side: int) -> int:
        """Returns by how much the decoder may shrink and leave `side` pixels each way."""
        room = min(self.width // side, self.height // side)
        return next((scale for scale in _SCALES if room >= scale), 1)

    def decode(self, data: bytes, *, scale: int = 1, grey: bool = False) -> Image.Image:
        """Returns the image, upright and 1/scale as large, in its own mode or in grey.

        Raises:
            OSError: the data end early or are damaged.
        """
        mode = "L" if grey else self.mode
        size = -(-self.width // scale), -(-self.height // scale)
        try:
            image = Image.frombytes(mode, size, data, "jpeg", mode, "", scale, 0)
        except ValueError as error:
            raise OSError(f"image is truncated or damaged: {error}") from None
        return upright(image, self.orientation)


def plain_jpeg(data: bytes) -> PlainJpeg | None:
    """Returns the header of encoded bytes, or None if they are anything but a plain JPEG."""
    found, turn = None, _Turn()
    try:
        for marker, start, stop in _segments(data):
            if marker in _START_OF_FRAME:
                found = _frame(data, start)
            elif marker == _APP1:
                turn.note(data[start:stop])
    except (IndexError, struct.error):
        return None  # Pillow says what is wrong
    return found and PlainJpeg(*found, turn.orientation)


def bare_jpeg(data: bytes) -> tuple[bytes, int]:
    """Returns (a JPEG without Exif, XMP and what tells of further images, its orientation).

    Bytes whose header cannot be followed come back as they are.
    """
    kept, turn, begin = [], _Turn(), 0
    try:
        for marker, start, stop in _segments(data):
            if marker in (_APP1, _APP2):
                turn.note(data[start:stop])
                kept.append(data[begin : start - 4])
                begin = stop
    except IndexError:
        pass
    return b"".join([*kept, data[begin:]]), turn.orientation


class _Turn:
    """What the segments say of how the image lies: Exif's word counts before XMP's."""

    def __init__(self) -> None:
        self._exif: int | None = None
        self._xmp: int | None = None

    def note(self, segment: bytes) -> None:
        if segment.startswith(b"Exif\0\0"):
            self._exif = self._exif or exif_orientation(segment)
        elif segment.startswith(_XMP_NAME):
            self._xmp = self._xmp or xmp_orientation(segment)

    @property
    def orientation(self) -> int:
        return self._exif or self._xmp or 1


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yields (marker, first byte, byte behind the last) of the segments before the pixels.

    Raises:
        IndexError: something else stands there, or the data end.
    """
    if data[:3] != b"\xff\xd8\xff":
        raise IndexError
    at = 2
    while True:
        while data[at + 1] == 0xFF and data[at] == 0xFF:  # fill bytes
            at += 1
        marker = data[at + 1]
        if marker == _START_OF_SCAN:
            return
        if data[at] != 0xFF or marker in _STANDALONE:
            raise IndexError
        stop = at + 2 + (data[at + 2] << 8 | data[at + 3])
        yield marker, at + 4, stop
        at = stop


def _frame(data: bytes, at: int) -> tuple[int, int, str] | None:
    bits, height, width, layers = struct.unpack_from(">BHHB", data, at)
    mode = {1: "L", 3: "RGB"}.get(layers)
    if bits != 8 or mode is None or not 0 < width * height <= (Image.MAX_IMAGE_PIXELS or 0):
        return None
    return width, height, mode
