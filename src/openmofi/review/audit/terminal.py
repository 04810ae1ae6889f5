"""Labels shown one by one in a terminal, and keys that answer them.

Without a terminal, each line of standard input is a key.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from openmofi.export.audits import floor_percent
from openmofi.images.decode import decode_image
from openmofi.images.look import fetch
from openmofi.pairs import ImageReader
from openmofi.refused import Refused
from openmofi.review.audit.answers import NO, UNSURE, YES
from openmofi.review.audit.audit import BACK, QUIT
from openmofi.review.audit.certificate import Audited
from openmofi.review.audit.draws import Draw

KEYS = {"y": YES, "n": NO, "u": UNSURE, "b": BACK, "q": QUIT}
_COLUMNS, _LINES = 60, 24
_SHOWN_CAPTION = 400


class TerminalAsker:
    """Asks about labels, see `audit.Ask`."""

    def __init__(self) -> None:
        self._reader: ImageReader | None = None

    def __call__(self, draw: Draw, audited: Audited) -> str:
        """Shows a label, and returns what the key that was pressed means."""
        self._show(draw, audited)
        while (key := _key()) not in KEYS:
            if not key:
                return QUIT
            print("y yes, n no, u unsure, b back, q quit", flush=True)
        print(KEYS[key], flush=True)
        return KEYS[key]

    def _show(self, draw: Draw, audited: Audited) -> None:
        about = f" ({draw.description})" if draw.description else ""
        print(f"\n{_standing(audited)}")
        place = f"{_plain(draw.shard)} {_plain(draw.key)}".strip()
        print(f"[{draw.number:,}/{len(audited.draws):,}] {place}")
        for line in self._image(draw, audited):
            print(line)
        print(f"caption: {_plain(draw.caption)[:_SHOWN_CAPTION]}")
        if draw.url:
            print(f"from: {_plain(draw.url)}")
        # Neither the score nor the stratum, which would suggest an answer.
        print(
            f"Does the image show {_plain(draw.name + about)} {draw.entity}? [y/n/u/b/q] ",
            end="",
            flush=True,
        )

    def _image(self, draw: Draw, audited: Audited) -> Iterator[str]:
        """Yields the lines of the image, or one that says why there is none."""
        if self._reader is None:
            self._reader = ImageReader(audited.card["input"])
        data = fetch(self._reader.read, draw.where)
        if isinstance(data, Refused):
            yield f"(the image cannot be read: {data.reason})"
        elif sys.stdout.isatty() and "NO_COLOR" not in os.environ:
            try:
                image, _ = decode_image(data, 2 * _COLUMNS)
            except Exception as error:  # any decoder's
                yield f"(the image cannot be decoded: {error})"
                return
            yield from _half_blocks(image)


def _half_blocks(image: Any) -> Iterator[str]:
    """Yields the lines of an image: a character is two pixels, the upper and the lower one."""
    image.thumbnail((_COLUMNS, 2 * _LINES))
    width, height = image.size
    pixels = image.convert("RGB").load()
    for top in range(0, height - height % 2, 2):
        cells = (
            "\x1b[38;2;{};{};{}m\x1b[48;2;{};{};{}m▀".format(*pixels[x, top], *pixels[x, top + 1])
            for x in range(width)
        )
        yield "".join(cells) + "\x1b[0m"


def _standing(audited: Audited) -> str:
    """Returns what is known by now, in one line."""
    whole, *others = audited.bounds()
    if not whole.checked:
        return f"{whole.labels:,} labels, none checked yet"
    tail = next((row for row in others if row.name.startswith("long tail")), None)
    more = f", of those of the long tail {floor_percent(tail.at_least)}" if tail else ""
    return (
        f"checked {whole.checked:,}: right {whole.right:,}, wrong {whole.wrong:,}, unsure "
        f"{whole.unsure:,}; at least {floor_percent(whole.at_least)} of all labels are right{more}"
    )


def _plain(text: str) -> str:
    """Returns a text without the characters that could command the terminal."""
    return "".join(c if c.isprintable() else " " for c in text)


def _key() -> str:
    """Returns the key that is pressed, or the first letter of the next line; "": there is none."""
    if sys.stdin.isatty():
        with _unbuffered():
            return os.read(sys.stdin.fileno(), 1).decode(errors="replace").lower()
    while line := sys.stdin.readline():
        if line.strip():
            return line.strip()[0].lower()
    return ""


@contextmanager
def _unbuffered() -> Iterator[None]:
    """Lets keys be read one by one, without echo."""
    import termios
    import tty

    before = termios.tcgetattr(sys.stdin)
    try:
        tty.setcbreak(sys.stdin, termios.TCSADRAIN)  # keeps what was typed ahead
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)
