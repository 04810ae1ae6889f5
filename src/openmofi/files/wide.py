"""Detects UTF-16 and UTF-32, which Windows programs call Unicode, by a file's first bytes."""

from __future__ import annotations

import codecs

from openmofi.errors import InputError

_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_LOOKED_AT = 64


def wide_encoding(data: bytes) -> str:
    """Returns the codec of text in UTF-16 or UTF-32, or "" if it is neither.

    Without a byte order mark, text is recognised by the zero bytes next to its Latin letters.
    """
    start = data[:_LOOKED_AT]
    for mark, codec in _MARKS:
        if data.startswith(mark):
            rest = start.removeprefix(mark)
            # Followed by plain ASCII, these are stray bytes and not a mark.
            return codec if not rest or b"\0" in rest or not rest.isascii() else ""
    if b"\0" not in start:
        return ""
    for codec, width, letter, next_to_it in (
        ("utf-32-le", 4, 0, 1),
        ("utf-32-be", 4, 3, 2),
        ("utf-16-le", 2, 0, 1),
        ("utf-16-be", 2, 1, 0),
    ):
        letters = start[letter::width][: len(start) // width]
        others = start[next_to_it::width].count(0)
        empty = [start[side::width] for side in range(width) if side not in (letter, next_to_it)]
        is_text = len(letters) > 1 and 0 not in letters and not any(map(any, empty))
        if is_text and 4 * others >= 3 * len(letters):
            return codec
    return ""


def refuse_wide(data: bytes, name: object) -> None:
    """Rejects a file in UTF-16 or UTF-32.

    Args:
        data: the beginning of the file.
        name: the file's name, for the message.

    Raises:
        InputError: the file is UTF-16 or UTF-32.
    """
    if codec := wide_encoding(data):
        raise InputError(f"{str(name)!r} is {codec[:6].upper()}; save it as UTF-8.")
