"""A caption as it was found -> clean text, or the reason for which its pair is refused.

One rule for tars, tables, listings and datasets: of a list, the first item with text is taken; of
an object, the value under a known caption name or, if its keys are languages, English or else the
first. Numbers are not text.
"""

from __future__ import annotations

import re
from typing import Any

from openmofi.files.wide import wide_encoding

CAPTION_COLUMNS = ("caption", "text", "TEXT", "txt", "captions", "alt", "title")
"""Names of captions, in order of preference."""
MAX_CHARS = 20_000

_INSIDE = (*CAPTION_COLUMNS, "raw", "value", "@value")
_LANGUAGE = re.compile(r"[a-zA-Z]{2}([-_]\w+)*|mul|und")
_DEEPEST = 8


def text_of(found: object, depth: int = 0) -> str | bytes | None:
    """Returns the text of a caption that may be a list or an object; None if there is no text.

    >>> text_of([None, {"de": "Apfel", "en": ["", "apple"]}])
    'apple'
    """
    if isinstance(found, (str, bytes)):
        return found
    if isinstance(found, (list, tuple)) and found and isinstance(found[0], tuple):
        found = dict(found)  # an Arrow map
    items: list[Any] = []
    if isinstance(found, (list, tuple)):
        items = list(found)
    elif isinstance(found, dict):
        items = [found[name] for name in _INSIDE if name in found]
        if not items and all(isinstance(key, str) and _LANGUAGE.fullmatch(key) for key in found):
            english_first = sorted(found, key=lambda key: key[:2].lower() != "en")
            items = [found[key] for key in english_first]
    texts = (text_of(item, depth + 1) for item in items if depth < _DEEPEST)
    return next((text for text in texts if text and text.strip()), None)


def caption_of(record: dict[str, Any]) -> str | bytes | None:
    """Returns the text under the first of CAPTION_COLUMNS that a record has."""
    name = next((name for name in CAPTION_COLUMNS if name in record), None)
    return None if name is None else text_of(record[name])


def check_caption(found: object) -> tuple[str, str]:
    """Returns (caption, reason for refusing it or "").

    Reasons: no_caption (absent, blank, or not text), caption_not_utf8, whose readable part is
    returned (all of it for UTF-16 and UTF-32), and caption_too_long: a page of text names more than
    any image shows.
    """
    if not isinstance(found, (str, bytes)):
        return "", "no_caption"
    codec = wide_encoding(found) if isinstance(found, bytes) else ""
    error = "caption_not_utf8" if codec else ""
    try:
        # JSON may contain a lone surrogate, which UTF-8 cannot encode.
        text = found.decode(codec or "utf-8") if isinstance(found, bytes) else found
        text.encode("utf-8")
    except UnicodeError:
        raw = found if isinstance(found, bytes) else found.encode("utf-8", "replace")
        text, error = raw.decode("utf-8", "replace"), "caption_not_utf8"
    text = text.removeprefix("\ufeff")  # a byte order mark
    if not text.strip():
        return "", error or "no_caption"
    if len(text) > MAX_CHARS:
        return text[:MAX_CHARS], error or "caption_too_long"
    return text, error


def plain_name(name: str) -> str:
    """Returns a file name or key as valid UTF-8; undecodable bytes become U+FFFD."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
