"""Where words continue in scripts without spaces: no name begins or ends there.

In: two neighbouring characters of a run. Out: whether the place between them is inside a word.

    kana          a run of katakana is one word, so タイ is not found in ネクタイ; a run of hiragana
                  is cut only around characters that are mostly particles or endings
                  (いちごとりんご)
    Han           the mark 々 repeats the character before it
    Thai, Lao     vowels written before or after their consonant, and silenced consonants
    Khmer, Burmese  stacked consonants, and those that close a syllable

Elsewhere only a dictionary could tell: 京都 is found in 東京都, unless 東京 is a name too.
"""

import numpy as np

from openmofi.arrays.compiled import compiled

_LONG, _REPEATED = 0x30FC, 0x3005  # ー and 々
# Hiragana that never begin a word; that mostly come before a word; that mostly come after one.
_ENDS_ONLY = "ぁぃぅぇぉっゃゅょゎんゝゞー"
_BEFORE_A_WORD = "のはがをにへともやでいなたるお"
_BEHIND_A_WORD = "のはがをにへともやでかまよだ"
# Vowel signs that are characters of their own, before and after their consonant.
_LEADING = "เแโใไເແໂໃໄ"
_TRAILING = "ะาๅະາ"
_SILENT = "\u0e4c\u0ecc\u103a"  # on a consonant that closes the syllable before it
_STACKING = "\u1039\u17d2"  # on a consonant that carries the next one below it


def _codes(characters: str) -> np.ndarray:
    return np.array(sorted(map(ord, characters)), np.uint32)


_ENDS_ONLY_CODES, _LEADING_CODES = _codes(_ENDS_ONLY), _codes(_LEADING)
_BEFORE_CODES, _BEHIND_CODES = _codes(_BEFORE_A_WORD), _codes(_BEHIND_A_WORD)
_TRAILING_CODES, _SILENT_CODES = _codes(_TRAILING), _codes(_SILENT)
_STACKING_CODES = _codes(_STACKING)


@compiled
def goes_on(before, sign, code, next_sign):
    """Returns whether a word continues from one character to the next; compiled.

    Args:
        before: code point of the first character.
        sign: code point of the last mark on it, or `before` again.
        code: code point of the second character.
        next_sign: code point after that, perhaps a mark on it.
    """
    if _is_katakana(code):
        return _is_katakana(before) or (code == _LONG and _is_hiragana(before))
    if _is_hiragana(code) and (_is_hiragana(before) or before == _LONG):
        apart = _in(before, _BEFORE_CODES) or _in(code, _BEHIND_CODES)
        return _in(code, _ENDS_ONLY_CODES) or not apart
    if code == _REPEATED or _in(before, _LEADING_CODES) or _in(code, _TRAILING_CODES):
        return True
    return _in(sign, _STACKING_CODES) or _in(next_sign, _SILENT_CODES)


@compiled
def _is_katakana(code):
    return 0x30A1 <= code <= 0x30FF or 0x31F0 <= code <= 0x31FF


@compiled
def _is_hiragana(code):
    return 0x3041 <= code <= 0x309F


@compiled
def _in(code, codes):
    found = False
    for one in codes:
        found |= one == code
    return found
