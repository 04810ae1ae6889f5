"""Korean particles, which are attached to the name before them: 서울의, 서울에서는.

In: the letters of a caption, with Hangul decomposed as in canonical text. Out: the class PARTICLE
at the first letter of each particle, which makes it a token of its own, like 's.

The list is closed, and a particle must fit the sound before it: 이 은 을 과 으로 follow a
consonant, 가 는 를 와 로 a vowel. Nouns that only seem to end in one (고양이, cat; 고양 is a city)
are cut too, in names as in captions, and are still found because the longest name wins.
After a single syllable, only particles are cut in which hardly any noun ends.
"""

import unicodedata

import numpy as np

from openmofi.arrays.compiled import compiled
from openmofi.kb.codepoints import DIGIT, LETTER, MARK, PARTICLE

_ANY, _CONSONANT, _VOWEL, _VOWEL_OR_L = range(4)
_PARTICLES = {
    "의": _ANY, "에": _ANY, "에서": _ANY, "에게": _ANY, "도": _ANY, "만": _ANY,
    "부터": _ANY, "까지": _ANY, "처럼": _ANY, "보다": _ANY,
    "은": _CONSONANT, "이": _CONSONANT, "을": _CONSONANT, "과": _CONSONANT, "으로": _CONSONANT,
    "이나": _CONSONANT, "이랑": _CONSONANT,
    "는": _VOWEL, "가": _VOWEL, "를": _VOWEL, "와": _VOWEL, "로": _VOWEL_OR_L,
    "나": _VOWEL, "랑": _VOWEL,
}  # fmt: skip
_AFTER_ONE_SYLLABLE = ("을", "를", "에서", "으로", "까지", "부터")
_LONGEST = 5
_FIRST_VOWEL, _FIRST_FINAL, _LAST_FINAL = 0x1161, 0x11A8, 0x11C2
_FINAL_L = 0x11AF


def _table() -> tuple[np.ndarray, np.ndarray]:
    """Returns the letters of each particle, padded with zeros, longest first; (rule, syllables)."""
    letters = {p: [ord(c) for c in unicodedata.normalize("NFKD", p)] for p in _PARTICLES}
    ordered = sorted(_PARTICLES, key=lambda particle: -len(letters[particle]))
    codes = np.zeros((len(ordered), _LONGEST), np.uint32)
    rules = np.zeros((len(ordered), 2), np.int64)
    for i, particle in enumerate(ordered):
        codes[i, : len(letters[particle])] = letters[particle]
        rules[i] = _PARTICLES[particle], 1 if particle in _AFTER_ONE_SYLLABLE else 2
    return codes, rules


_CODES, _RULES = _table()


@compiled
def is_hangul(code):
    """Returns whether a raw code point is a syllable or a letter of Hangul; compiled."""
    return 0xAC00 <= code <= 0xD7A3 or 0x1100 <= code <= 0x11FF


@compiled
def mark_particles(ch, cl, begin, stop):
    """Sets the class of each particle's first letter to PARTICLE; compiled.

    Args:
        ch: folded characters.
        cl: their classes, changed in place; the one before `begin` is not a letter.
        begin: position of the text's first character.
        stop: position after its last one.
    """
    start = begin
    while start < stop:
        end = start
        while end < stop and cl[end] == LETTER and 0x1100 <= ch[end] <= 0x11FF:
            end += 1
        if end > start and not LETTER <= cl[end] <= MARK:
            _cut(ch, cl, start, end, cl[start - 1] == LETTER or cl[start - 1] == DIGIT)
        start = end + 1


@compiled
def _cut(ch, cl, start, end, is_behind):
    """Marks the particles at the end of one word, starting from the last.

    After letters of another script, the word may consist of particles only: BTS의.
    """
    vowels = 2 * is_behind
    for k in range(start, end):
        vowels += _is_vowel(ch[k])
    while True:
        size = _particle_at_the_end(ch, start, end, vowels, is_behind)
        if size == 0:
            return
        end -= size
        cl[end] = PARTICLE
        for k in range(end, end + size):
            vowels -= _is_vowel(ch[k])


@compiled
def _particle_at_the_end(ch, start, end, vowels, is_behind):
    """Returns the number of letters of the particle in which the word ends, or 0."""
    for i in range(len(_CODES)):
        size = syllables = 0
        while size < _LONGEST and _CODES[i, size]:
            syllables += _is_vowel(_CODES[i, size])
            size += 1
        whole = is_behind and end - start == size
        if (end - start <= size and not whole) or vowels - syllables < _RULES[i, 1]:
            continue
        same = True
        for k in range(size):
            same &= ch[end - size + k] == _CODES[i, k]
        if same and (whole or _fits(ch[end - size - 1], _RULES[i, 0])):
            return size
    return 0


@compiled
def _fits(before, rule):
    """Returns whether a particle may follow a letter."""
    is_consonant = _FIRST_FINAL <= before <= _LAST_FINAL
    if rule == _CONSONANT:
        return is_consonant
    if rule == _VOWEL:
        return not is_consonant
    return rule == _ANY or not is_consonant or before == _FINAL_L


@compiled
def _is_vowel(code):
    return _FIRST_VOWEL <= code < _FIRST_FINAL
