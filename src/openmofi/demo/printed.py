"""Prints a caption's name into a photo, as memes, shop banners and watermarked stock photos do.

In: the bytes of a JPEG and a text. Out: the bytes of another JPEG, with the text written over a
part of the image: light letters with a dark edge, or letters on a coloured banner. Such images are
a trap in training: the text agrees with the caption, whatever is shown, so that a model can learn
to read instead of to look ("Less is More", arXiv 2305.05095).
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from functools import cache
from typing import TypeVar

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from openmofi.demo.captions import Caption
from openmofi.demo.entities import by_id
from openmofi.demo.senses import SENSES

T = TypeVar("T")
Printer = Callable[[bytes, str, np.random.Generator], bytes]
"""Prints a text into a photo: (JPEG bytes, text, generator) -> JPEG bytes."""
Colour = tuple[int, int, int]

_SENSE_NAMES = {sense.id: sense.name for sense in SENSES}
_LARGEST, _SMALLEST = 0.22, 0.125
"""Heights of letters as shares of the image's; in 64 pixels, fewer than 8 are illegible."""
_MARGIN = 0.02
_BAR = 0.25
"""Height of the bar of `print_bar`, as a share of the image's."""
_QUALITIES = (70, 95)
_BANNERS: tuple[tuple[Colour, Colour], ...] = (
    ((255, 255, 255), (20, 20, 20)),
    ((20, 20, 20), (250, 250, 250)),
    ((255, 255, 255), (190, 20, 40)),
    ((20, 20, 20), (250, 210, 40)),
    ((255, 255, 255), (30, 70, 160)),
)
_LETTERS: tuple[Colour, ...] = ((255, 255, 255), (255, 255, 255), (255, 235, 60), (255, 70, 50))


def text_to_print(caption: Caption) -> str:
    """Returns the name of the first thing that a caption names, or the caption's first words."""
    if not caption.mentioned:
        return " ".join(caption.text.split()[:3])
    first = caption.mentioned[0]
    return by_id[first].name if first in by_id else _SENSE_NAMES.get(first, caption.text)


def print_text(jpeg: bytes, text: str, rng: np.random.Generator) -> bytes:
    """Returns the photo with a text near its top or bottom, as JPEG bytes.

    The text is broken into lines and made smaller until it fits the width; if it is still too long,
    it loses its last words.
    """
    image = Image.open(io.BytesIO(jpeg)).convert("RGB")
    if rng.random() < 0.4:
        text = text.upper()
    letters = round(image.height * rng.uniform(_SMALLEST + 0.03, _LARGEST))
    font, lines = _fit(text, image, letters)
    block = _block(font, lines, image, rng)
    pen = ImageDraw.Draw(image)
    if rng.random() < 0.5:  # on a banner across the image
        ink, ground = _one_of(_BANNERS, rng)
        top, bottom = block[0][2] - 1, block[-1][2] + font.size * 1.15
        pen.rectangle((0, top, image.width, bottom), fill=ground)
        for line, x, y in block:
            pen.text((x, y), line, font=font, fill=ink)
    else:  # on the image itself, with a dark edge
        ink, edge = _one_of(_LETTERS, rng), max(1, round(font.size / 14))
        for line, x, y in block:
            pen.text((x, y), line, font=font, fill=ink, stroke_width=edge, stroke_fill=(10, 10, 10))
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=int(rng.integers(*_QUALITIES)))
    return stream.getvalue()


def print_bar(jpeg: bytes, text: str, rng: np.random.Generator) -> bytes:
    """Returns the photo with a text in white on a black bar below, like an agency's watermark.

    The same text always looks the same and is as large as the bar allows, so that a small encoder
    can learn it; one that is too long at 6 pixels loses its ends. `rng` is not used.
    """
    image = Image.open(io.BytesIO(jpeg)).convert("RGB")
    top = round(image.height * (1 - _BAR))
    room = image.width * (1 - 2 * _MARGIN)
    size = max(image.height * _BAR * 0.8, 8)
    size = min(size, max(size * room / _font(round(size)).getlength(text), 6))
    pen = ImageDraw.Draw(image)
    pen.rectangle((0, top, image.width, image.height), fill=(0, 0, 0))
    middle = (image.width / 2, (top + image.height) / 2)
    pen.text(middle, text, font=_font(round(size)), fill=(255, 255, 255), anchor="mm")
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=90)
    return stream.getvalue()


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    """Returns Pillow's built-in font, Aileron Regular (CC0)."""
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont), "Pillow was built without FreeType"
    return font


_Line = tuple[str, float, float]
"""A line of text and the position of its upper left corner."""


def _fit(
    text: str, image: Image.Image, letters: int
) -> tuple[ImageFont.FreeTypeFont, Sequence[str]]:
    """Returns the largest font up to `letters` high in which the text fits two lines."""
    room = image.width * (1 - 2 * _MARGIN)
    smallest = max(8, round(image.height * _SMALLEST))
    for size in range(max(letters, smallest), smallest - 1, -1):
        lines = _broken(text, _font(size), room)
        if len(lines) <= 2:
            return _font(size), lines
    return _font(smallest), _broken(text, _font(smallest), room)[:2]


def _broken(text: str, font: ImageFont.FreeTypeFont, room: float) -> list[str]:
    """Breaks a text between words; a word wider than the room counts as three lines."""
    lines: list[str] = []
    for word in text.split():
        joined = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(joined) <= room:
            lines[-1] = joined
        else:
            lines.append(word)
    if any(font.getlength(line) > room for line in lines):
        return [*lines, "", ""]
    return lines


def _block(
    font: ImageFont.FreeTypeFont,
    lines: Sequence[str],
    image: Image.Image,
    rng: np.random.Generator,
) -> list[_Line]:
    """Places the lines at the top or at the bottom, centred or to one side."""
    lines = [line for line in lines if line]
    step = font.size * 1.05
    height = step * len(lines)
    slack = image.height * _MARGIN
    top = slack if rng.random() < 0.35 else image.height - height - slack
    top += rng.uniform(0, 0.06) * image.height * (1 if top == slack else -1)
    share = float(rng.choice([0.5, 0.5, 0.1, 0.9]))
    return [
        (line, max(0.0, (image.width - font.getlength(line)) * share), top + step * number)
        for number, line in enumerate(lines)
    ]


def _one_of(items: Sequence[T], rng: np.random.Generator) -> T:
    return items[int(rng.integers(len(items)))]
