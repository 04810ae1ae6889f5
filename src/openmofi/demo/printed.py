"""Prints a caption's name into a photo, as memes, shop banners and watermarked stock photos do.

In: the bytes of a JPEG and a text. Out: the bytes of another JPEG, with the text written over a
part of the image: light letters with a dark edge, or letters on a coloured banner. Such images
are a trap for training: the text agrees with the caption, whatever is shown, so that a model can
learn to read instead of to look ("Less is More", arXiv 2305.05095).
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
"""Writes a text into the photo of a JPEG."""
Colour = tuple[int, int, int]

_SENSE_NAMES = {sense.id: sense.name for sense in SENSES}
_LARGEST, _SMALLEST = 0.22, 0.125
"""Heights of the letters as shares of the image's; at 64 pixels less than 8 is illegible."""
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
    """Returns the name of the first thing that a caption names, else the caption's first words."""
    if not caption.mentioned:
        return " ".join(caption.text.split()[:3])
    first = caption.mentioned[0]
    return by_id[first].name if first in by_id else _SENSE_NAMES.get(first, caption.text)


def print_text(jpeg: bytes, text: str, rng: np.random.Generator) -> bytes:
    """Returns the photo with a text near its top or bottom, as JPEG bytes.

    The text is broken into lines and made smaller until it fits the width; what is too long even
    then loses its last words.
    """
    image = Image.open(io.BytesIO(jpeg)).convert("RGB")
    if rng.random() < 0.4:
        text = text.upper()
    letters = round(image.height * rng.uniform(_SMALLEST + 0.03, _LARGEST))
    font, lines = _fit(text, image, letters)
    block = _block(font, lines, image, rng)
    if rng.random() < 0.5:
        _draw_banner(image, block, font, rng)
    else:
        _draw_outlined(image, block, font, rng)
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=int(rng.integers(*_QUALITIES)))
    return stream.getvalue()


def print_bar(jpeg: bytes, text: str, rng: np.random.Generator) -> bytes:
    """Returns the photo with a text in white on a black bar below, as an agency's watermark.

    The same text always looks the same and is as large as the bar allows, so that a small encoder
    can learn to know it; one too long at 6 pixels loses its ends. Nothing is drawn by `rng`.
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
    """Returns the font inside Pillow, Aileron Regular (CC0)."""
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont), "Pillow was built without FreeType"
    return font


_Line = tuple[str, float, float]
"""A line of text and where its upper left corner lies."""


def _fit(
    text: str, image: Image.Image, letters: int
) -> tuple[ImageFont.FreeTypeFont, Sequence[str]]:
    """Returns the largest font up to `letters` high in which at most two lines hold the text."""
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


def _draw_banner(
    image: Image.Image,
    block: list[_Line],
    font: ImageFont.FreeTypeFont,
    rng: np.random.Generator,
) -> None:
    """Draws the lines on a bar across the image, in place."""
    ink, ground = _one_of(_BANNERS, rng)
    pen = ImageDraw.Draw(image)
    top, bottom = block[0][2] - 1, block[-1][2] + font.size * 1.15
    pen.rectangle((0, top, image.width, bottom), fill=ground)
    for line, x, y in block:
        pen.text((x, y), line, font=font, fill=ink)


def _draw_outlined(
    image: Image.Image,
    block: list[_Line],
    font: ImageFont.FreeTypeFont,
    rng: np.random.Generator,
) -> None:
    """Draws the lines on the image itself, with a dark edge, in place."""
    pen, ink = ImageDraw.Draw(image), _one_of(_LETTERS, rng)
    edge = max(1, round(font.size / 14))
    for line, x, y in block:
        pen.text((x, y), line, font=font, fill=ink, stroke_width=edge, stroke_fill=(10, 10, 10))


def _one_of(items: Sequence[T], rng: np.random.Generator) -> T:
    return items[int(rng.integers(len(items)))]
