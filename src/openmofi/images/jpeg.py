"""Decodes plain JPEGs, by far the most of a crawl, without Pillow's own header pass.

A header is plain if the pixels need only decoding and turning: 8 bits, grey or three colours. Any
other file is opened by Pillow, without the metadata that may be malformed and is not needed. The
decoder is Pillow's in both cases, so the pixels are the same; for small images this takes two
thirds of the time. Of several images in one file, the first is taken.
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
    """As stored; `size` is upright."""
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
        """Returns how far the decoder may shrink the image and leave `side` pixels each way."""
        room = min(self.width // side, self.height // side)
        return next((scale for scale in _SCALES if room >= scale), 1)

    def decode(self, data: bytes, *, scale: int = 1, grey: bool = False) -> Image.Image:
        """Returns the image, upright and 1/scale as large, in its own mode or in grey.

        Raises:
            OSError: the data are truncated or damaged.
        """
        mode = "L" if grey else self.mode
        size = -(-self.width // scale), -(-self.height // scale)
        try:
            image = Image.frombytes(mode, size, data, "jpeg", mode, "", scale, 0)
        except ValueError as error:
            raise OSError(f"image is truncated or damaged: {error}") from None
        return upright(image, self.orientation)


def plain_jpeg(data: bytes) -> PlainJpeg | None:
    """Returns the header of encoded bytes, or None if they are not a plain JPEG."""
    found, turn = None, _Turn()
    try:
        for marker, start, stop in _segments(data):
            if marker in _START_OF_FRAME:
                bits, height, width, layers = struct.unpack_from(">BHHB", data, start)
                mode = {1: "L", 3: "RGB"}.get(layers)
                fits = 0 < width * height <= (Image.MAX_IMAGE_PIXELS or 0)
                found = (width, height, mode) if bits == 8 and mode and fits else None
            elif marker == _APP1:
                turn.note(data[start:stop])
    except (IndexError, struct.error):
        return None  # Pillow says what is wrong
    return found and PlainJpeg(*found, turn.orientation)


def bare_jpeg(data: bytes) -> tuple[bytes, int]:
    """Returns (a JPEG without Exif, XMP and the list of further images, its orientation).

    Bytes whose header cannot be parsed are returned unchanged.
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
    """The orientation that the segments state; Exif takes precedence over XMP."""

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
    """Yields (marker, start, stop) of the segments before the pixels.

    Raises:
        IndexError: something else is found there, or the data end.
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
