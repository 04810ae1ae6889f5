"""A caption as it was found -> clean text, or the reason for which its pair is refused."""

from __future__ import annotations

MAX_CHARS = 20_000


def check_caption(found: object) -> tuple[str, str]:
    """Returns (caption, reason for refusing it or "").

    Reasons: no_caption (absent, blank, or no text at all), caption_not_utf8, whose readable part
    is returned, and caption_too_long: a page of text names more than any picture shows.
    """
    if not isinstance(found, (str, bytes)):
        return "", "no_caption"
    text, error = found, ""
    try:
        # JSON may hold half of a surrogate pair, which no UTF-8 file can.
        text = found.decode("utf-8") if isinstance(found, bytes) else found
        text.encode("utf-8")
    except UnicodeError:
        raw = found if isinstance(found, bytes) else found.encode("utf-8", "replace")
        text, error = raw.decode("utf-8", "replace"), "caption_not_utf8"
    if not text.strip():
        return "", error or "no_caption"
    if len(text) > MAX_CHARS:
        return text[:MAX_CHARS], error or "caption_too_long"
    return text, error


def plain_name(name: str) -> str:
    """Returns a file name or key that UTF-8 can hold; undecodable bytes become U+FFFD."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
