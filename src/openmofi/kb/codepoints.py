"""What each character becomes in the canonical form: folded characters and their classes.

In: code points of raw text. Out: for each, the characters that replace it (none, one or several)
and the class of each, on which `text.py` bases its rules. "É" gives "e", "Æ" gives "ae", "½" gives
"1", "/", "2", a combining acute gives nothing, "中" gives itself in a class of its own.

An entry is made the first time that its code point is seen, so importing costs nothing.
"""

import threading
import unicodedata
from typing import NamedTuple

import numpy as np

# Classes. Words consist of the five after SEPARATOR; the meaning of those from APOSTROPHE on
# depends on their neighbours. Some letters become PARTICLE because of theirs, see particles.py.
SEPARATOR, LETTER, DIGIT, MARK, CHARACTER, PARTICLE, SPACE, NEWLINE = range(8)
APOSTROPHE, AMPERSAND, DOLLAR, PLUS, DOT, BAR, DASH = range(8, 15)

# Letters that Unicode does not decompose, but that writers replace if their keyboard lacks them.
_FOLDS = str.maketrans(
    {
        "ł": "l", "ø": "o", "đ": "d", "ð": "d", "þ": "th", "ß": "ss", "æ": "ae", "œ": "oe",
        "ħ": "h", "ŧ": "t", "ı": "i", "ŋ": "n", "ĸ": "k", "ɓ": "b", "ɖ": "d", "ƒ": "f",
    }
)  # fmt: skip
WITH_ACCENT = "".join(map(chr, _FOLDS))

# Characters of these scripts are words of their own: no spaces separate their words.
_CHARACTER_RANGES = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Burmese
    (0x1780, 0x17FF),  # Khmer
    (0x3005, 0x3007),  # ideographic iteration mark, closing mark, zero
    (0x3040, 0x30FF),  # Hiragana, Katakana
    (0x3105, 0x312F),  # Bopomofo
    (0x31A0, 0x31BF),
    (0x31F0, 0x31FF),
    (0x3400, 0x4DBF),  # Han
    (0x4E00, 0x9FFF),
    (0xA9E0, 0xA9FF),  # Burmese, extended
    (0xAA60, 0xAA7F),
    (0xF900, 0xFAFF),
    (0x20000, 0x323AF),
)

_APOSTROPHES = "'’‘ʼʻ´`′＇"
_DASHES = "-‐‑‒–−－"
_BARS = {"|": "|¦｜", "•": "•", "-": "—―", ".": "。｡"}
"""Signs that always separate, by the sign to which they are folded."""
_NEWLINES = "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"
# Signs that only stretch a word or fill the place of a letter (Default_Ignorable_Code_Point).
_WITHOUT_MEANING = (
    "\u0640\u07fa\u180a"  # tatweel of Arabic, of N'Ko and of Mongolian
    "\u115f\u1160\u17b4\u17b5\u3164\uffa0"  # fillers of Hangul, vowels inherent in Khmer
    "\u2065"
)
_SELECTOR = ("VARIATION SELECTOR", "MONGOLIAN FREE VARIATION SELECTOR")
# NFKD would turn these into letters (colaTM) or join words that they separate.
_PLAIN_SEPARATORS = "™℠\u200b_"

UNSEEN = 255
"""Width of a code point that has no entry yet."""
LOWER, UPPER, ACCENT = 1, 2, 4
"""Bits of `Expansions.case`; an accent may stand beside either."""
FIRST_ACCENT, LAST_ACCENT = "\u0300", "\u036f"
_NUM_CODES = 0x110000


def expand(character: str) -> tuple[str, bytes]:
    """Returns the canonical characters that replace one character, and their classes.

    Of the marks only U+0300 to U+036F are dropped. They belong to Latin, Greek and Cyrillic; those
    of Hindi, Thai or Arabic have blocks of their own and carry vowels that must stay.
    """
    for special, folded, kind in (
        (_APOSTROPHES, "'", APOSTROPHE),
        (_DASHES, "-", DASH),
        *((signs, folded, BAR) for folded, signs in _BARS.items()),
        (_NEWLINES, "\n", NEWLINE),
        (_PLAIN_SEPARATORS, " ", SEPARATOR),
    ):
        if character in special:
            return folded, bytes([kind])
    decomposed = unicodedata.normalize("NFKD", character).casefold()
    kept = unicodedata.normalize("NFKD", decomposed).translate(_FOLDS)
    kept = "".join(
        c
        for c in kept
        if not (FIRST_ACCENT <= c <= LAST_ACCENT or c in _WITHOUT_MEANING)
        # Format characters (joiners, direction marks, the byte order mark) and keycaps.
        and unicodedata.category(c) not in ("Cf", "Me")
        and not unicodedata.name(c, "").startswith(_SELECTOR)
    )
    return kept, bytes(_class_of(c) for c in kept)


def is_accented(character: str) -> bool:
    """Returns whether a character has an accent, or stands for others as ø for o; é, Й, ß."""
    marks = unicodedata.normalize("NFD", character)
    return any(FIRST_ACCENT <= c <= LAST_ACCENT for c in marks) or character.lower() in WITH_ACCENT


def _class_of(c: str) -> int:
    named = {"&": AMPERSAND, "$": DOLLAR, "+": PLUS, ".": DOT, "\t": SPACE, "|": BAR}
    if c in named:
        return named[c]
    category = unicodedata.category(c)
    if category.startswith("M"):
        return MARK
    if any(low <= ord(c) <= high for low, high in _CHARACTER_RANGES) and category[0] in "LN":
        return CHARACTER
    if category.startswith("L"):
        return LETTER
    if category.startswith("N"):
        return DIGIT
    return SPACE if category == "Zs" else SEPARATOR


class ExpansionTable:
    """The expansions of all code points seen so far, as arrays that a compiled pass reads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: set[str] = set()
        self._arrays: Expansions | None = None

    @property
    def arrays(self) -> "Expansions":
        """The expansions; code points of width UNSEEN must be learnt first."""
        if self._arrays is None:
            self.learn("".join(map(chr, range(128))))
        assert self._arrays is not None
        return self._arrays

    def learn(self, text: str) -> None:
        """Adds all characters of a text."""
        with self._lock:
            new = sorted((set(text) | {"\ufffd"}) - self._known)
            if not new:
                return
            known = self._arrays or Expansions(
                width=np.full(_NUM_CODES, UNSEEN, np.uint8),
                first=np.zeros(_NUM_CODES, np.int32),
                chars=np.zeros(0, np.uint32),
                classes=np.zeros(0, np.uint8),
                case=np.zeros(_NUM_CODES, np.uint8),
            )
            codes = np.array([ord(c) for c in new])
            entries = [expand(c) for c in new]
            chars = "".join(chars for chars, _ in entries).encode("utf-32-le", "surrogatepass")
            widths = np.array([len(chars) for chars, _ in entries], np.int64)
            classes = np.frombuffer(b"".join(classes for _, classes in entries), np.uint8)
            # Copies: other threads may be reading the old arrays.
            width, first, case = known.width.copy(), known.first.copy(), known.case.copy()
            width[codes] = widths
            first[codes] = len(known.chars) + np.cumsum(widths) - widths
            case[codes] = [
                (UPPER if c.isupper() else LOWER if c.islower() else 0) | ACCENT * is_accented(c)
                for c in new
            ]
            self._arrays = Expansions(
                width=width,
                first=first,
                chars=np.append(known.chars, np.frombuffer(chars, "<u4")),
                classes=np.append(known.classes, classes),
                case=case,
            )
            self._known.update(new)


class Expansions(NamedTuple):
    """By code point: its `case`, as bits; `width` items of `chars` and `classes` from `first`."""

    width: np.ndarray
    first: np.ndarray
    chars: np.ndarray
    classes: np.ndarray
    case: np.ndarray


TABLE = ExpansionTable()
