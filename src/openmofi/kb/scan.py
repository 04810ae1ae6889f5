"""The compiled pass over captions: bytes -> tokens, by the rules in `text.py`.

In: the UTF-8 bytes of a batch of captions. Out: the canonical bytes of all tokens, and a table with
the place, the origin and the case of each. A barrier leaves its sign before the next token:
"Oak - 45" gives "oak -45 ", where that token begins at the 4.

`ch`, `cl` and `case` are the folded characters of one caption, their classes and their case; `char`
and `byte` are the places in the caption from which they come. Together with the number of
characters and the caption's place in the data they are its `text`.
"""

import numpy as np

from openmofi.arrays.compiled import compiled
from openmofi.kb.codepoints import (
    ACCENT,
    AMPERSAND,
    APOSTROPHE,
    BAR,
    CHARACTER,
    DASH,
    DIGIT,
    DOLLAR,
    DOT,
    LETTER,
    LOWER,
    MARK,
    NEWLINE,
    PARTICLE,
    PLUS,
    SPACE,
    UNSEEN,
    UPPER,
)
from openmofi.kb.particles import is_hangul, mark_particles
from openmofi.kb.unspaced import goes_on

_PAD = 2  # the rules look at most so far to either side
_REPLACEMENT = 0xFFFD
_NUM_CODES = 0x110000
_MOST_CHARACTERS_PER_BYTE = 6  # U+FDFA: 3 bytes, 18 characters

# Columns of the table of tokens, and the bits of its last column.
START, END, CHAR_START, CHAR_END, RAW_START, RAW_END, FLAGS, NUM_COLUMNS = range(8)
BARRIER, STANDS_ALONE, INSIDE, UNFINISHED, ACCENTED = 1, 2, 4, 8, 16
CASE_SHIFT = 5


# How a token is written, by its letters that have case.
CASELESS, LOWERCASE, CAPITALISED, UPPERCASE, MIXED, ONE_CAPITAL = range(6)


@compiled
def scan_tokens(data, offsets, expansions, abbreviations):
    """Returns (a code point without expansion or -1, buffer, table of tokens, row_start)."""
    num_rows = len(offsets) - 1
    num_bytes = offsets[-1] - offsets[0]
    is_ascii, longest_ascii, longest_other = _which_are_ascii(data, offsets)
    room_other = _MOST_CHARACTERS_PER_BYTE * longest_other + 2 * _PAD
    room = max(longest_ascii + 2 * _PAD, room_other)
    ch, cl, case = np.empty(room, np.uint32), np.empty(room, np.uint8), np.empty(room, np.uint8)
    char, byte = np.empty(room_other, np.int32), np.empty(room_other, np.int32)
    # In an ASCII caption, every character is one byte.
    same = np.arange(-_PAD, longest_ascii + _PAD).astype(np.int32)
    buffer = np.empty(2 * num_bytes + 64, np.uint8)
    table = np.empty((num_bytes // 4 + 64, NUM_COLUMNS), np.int64)
    row_start = np.zeros(num_rows + 1, np.int64)
    num_tokens, at = 0, 0
    for row in range(num_rows):
        begin, stop = offsets[row], offsets[row + 1]
        if is_ascii[row]:
            size = _expand_ascii(data, begin, stop, expansions, ch, cl, case)
        else:
            size = _expand(data, begin, stop, expansions, ch, cl, case, char, byte)
            if size < 0:
                return -size, buffer[:0], table[:0], row_start
        # A character becomes at most 4 bytes, plus the space after its token.
        if at + 5 * size > len(buffer):
            buffer = np.concatenate((buffer, np.empty(len(buffer) + 5 * size, np.uint8)))
        if num_tokens + size > len(table):
            more = np.empty((len(table) + size, NUM_COLUMNS), np.int64)
            table = np.concatenate((table, more))
        places = (same, same) if is_ascii[row] else (char, byte)
        text = size, ch, cl, case, *places, begin
        num_tokens, at = _scan(text, abbreviations, buffer, at, table, num_tokens)
        row_start[row + 1] = num_tokens
    return -1, buffer[:at], table[:num_tokens], row_start


@compiled
def _which_are_ascii(data, offsets):
    """Returns which captions are ASCII, and the bytes of the longest ASCII and other caption."""
    is_ascii = np.empty(len(offsets) - 1, np.bool_)
    longest_ascii = longest_other = np.int64(0)
    for row in range(len(offsets) - 1):
        bits = np.uint8(0)
        for at in range(offsets[row], offsets[row + 1]):
            bits |= data[at]
        is_ascii[row] = bits < 0x80
        if is_ascii[row]:
            longest_ascii = max(longest_ascii, offsets[row + 1] - offsets[row])
        else:
            longest_other = max(longest_other, offsets[row + 1] - offsets[row])
    return is_ascii, longest_ascii, longest_other


@compiled
def _expand_ascii(data, begin, stop, expansions, ch, cl, case):
    """Does what `_expand` does, for an ASCII caption, without recording places."""
    for at in range(begin, stop):
        code = data[at]
        k = expansions.first[code]
        ch[_PAD + at - begin] = expansions.chars[k]
        cl[_PAD + at - begin] = expansions.classes[k]
        case[_PAD + at - begin] = expansions.case[code]
    _pad(_PAD + stop - begin, ch, cl)
    return _PAD + stop - begin


@compiled
def _pad(size, ch, cl):
    for k in range(_PAD):
        ch[k], cl[k] = 10, NEWLINE
        ch[size + k], cl[size + k] = 10, NEWLINE


@compiled
def _expand(data, at, stop, expansions, ch, cl, case, char, byte):
    """Writes the folded characters of one caption; returns their number, or minus an unseen code.

    Every byte that is not UTF-8 becomes a replacement character.
    """
    width, first, chars, classes, case_of = expansions
    begin = at
    size, number = _PAD, 0
    korean = False
    while at < stop:
        code, length = np.uint32(data[at]), 1
        if code >= 0x80:
            code, length = _decode(data, at, stop)
        if width[code] == UNSEEN:
            return -np.int64(code)
        for k in range(first[code], first[code] + width[code]):
            ch[size], cl[size], case[size] = chars[k], classes[k], case_of[code]
            char[size], byte[size] = number, at - begin
            size += 1
        if not width[code]:  # a combining accent is one of the letter before it
            case[size - 1] |= case_of[code] & ACCENT
        korean |= is_hangul(code)
        number += 1
        at += length
    for k in range(_PAD):
        char[size + k], byte[size + k] = number, stop - begin
    _pad(size, ch, cl)
    if korean:
        mark_particles(ch, cl, _PAD, size)
    return size


@compiled
def _decode(data, at, stop):
    """Returns the code point that begins at a byte of 0x80 or more, and its length in bytes."""
    lead = data[at]
    length = 2 if lead < 0xE0 else (3 if lead < 0xF0 else 4)
    if lead < 0xC2 or lead > 0xF4 or at + length > stop:
        return np.uint32(_REPLACEMENT), 1
    code = np.uint32(lead & (0x7F >> length))
    for k in range(1, length):
        if data[at + k] & 0xC0 != 0x80:
            return np.uint32(_REPLACEMENT), 1
        code = (code << np.uint32(6)) | np.uint32(data[at + k] & 0x3F)
    # Longer than needed, a surrogate, or too large: not UTF-8.
    least = (0, 0, 0x80, 0x800, 0x10000)[length]
    if code < least or 0xD800 <= code < 0xE000 or code >= _NUM_CODES:
        return np.uint32(_REPLACEMENT), 1
    return code, length


@compiled
def _scan(text, abbreviations, buffer, at, table, number):
    """Writes the tokens of one caption; returns the new numbers of tokens and bytes."""
    size, ch, cl = text[:3]
    first_token = number
    barrier, in_word, after_character = True, False, False
    begin, p = 0, _PAD  # `begin` of the open token
    possessive_end = -1
    while p <= size:  # one character beyond the text: the padding closes the last token
        # The middle of a plain word, which is most of a caption.
        while in_word and not after_character and LETTER <= cl[p] <= DIGIT and ch[p] < 0x80:
            buffer[at] = ch[p]
            at, p = at + 1, p + 1
        kept = _is_plain(cl[p]) or (cl[p] >= APOSTROPHE and _joins(p, ch, cl))
        possessive = kept and cl[p] == APOSTROPHE
        glued = in_word and not possessive and cl[p] != CHARACTER and cl[p] != PARTICLE
        glued = glued and (not after_character or cl[p] == MARK) and p != possessive_end
        if possessive:
            possessive_end = p + 2  # 's is a token of its own, whatever sign follows
        inside = 0
        if in_word and not (kept and glued):
            if cl[p] == PARTICLE:
                inside = INSIDE
            elif (
                after_character
                and cl[p] == CHARACTER
                and goes_on(ch[begin], ch[p - 1], ch[p], ch[p + 1])
            ):
                inside = INSIDE
                table[number, FLAGS] |= UNFINISHED
            buffer[at] = 32
            _close(begin, p - 1, text, table[number], at)
            at, number, in_word = at + 1, number + 1, False
        if kept:
            if not in_word:
                begin, in_word = p, True
                table[number, START] = at
                alone = (cl[p] == CHARACTER) * STANDS_ALONE
                table[number, FLAGS] = barrier * BARRIER + alone + inside
                barrier = after_character = False
            after_character = cl[p] == CHARACTER or (after_character and cl[p] == MARK)
            at = _write(buffer, at, ch[p])
        elif _breaks(p, cl):
            initials = number > first_token and cl[p] == DOT
            if not (initials and _is_abbreviation(buffer, table[number - 1], abbreviations)):
                barrier = True
                if p < size:  # not in the padding
                    at = _write(buffer, at, ch[p])
        p += 1
    return number, at


@compiled
def _is_plain(kind):
    return LETTER <= kind <= PARTICLE


@compiled
def _joins(p, ch, cl):
    """Returns whether a sign belongs to the word around it."""
    kind, before, after = cl[p], cl[p - 1], cl[p + 1]
    if kind == APOSTROPHE:  # 's, whatever precedes it: tokenised corpora write "Turkey 's"
        return ch[p + 1] == 115 and not _is_plain(cl[p + 2])
    begin = p - 1 if kind == PLUS and before == PLUS else p
    if ch[begin - 1] == 115 and cl[begin - 2] == APOSTROPHE:  # after 's, which is a word
        return False
    if kind == AMPERSAND:
        return (before in (LETTER, DIGIT)) and (after in (LETTER, DIGIT))
    if kind == DOLLAR:
        return before == LETTER and after == LETTER
    if kind == DOT:  # between two letters that each stand alone
        alone = not _is_plain(cl[p - 2]) and not _is_plain(cl[p + 2])
        return before == LETTER and after == LETTER and alone
    if kind == PLUS:  # at most two, after a letter and at the end of a word
        last = p + 1 if after == PLUS else p
        ends = cl[last + 1] != PLUS and not _is_plain(cl[last + 1])
        return last - begin < 2 and cl[begin - 1] == LETTER and ends
    return False


@compiled
def _breaks(p, cl):
    """Returns whether the sign at p is a barrier, which no name spans."""
    kind, before, after = cl[p], cl[p - 1], cl[p + 1]
    if kind in (BAR, NEWLINE):
        return True
    followed = after in (SPACE, NEWLINE)
    if kind == DASH:
        return followed and (before in (SPACE, NEWLINE))
    # A dot after a single letter is an initial or an acronym: "J. K. Rowling", "the U.S. flag".
    return kind == DOT and followed and not (_is_plain(before) and not _is_plain(cl[p - 2]))


@compiled
def _is_abbreviation(buffer, token, abbreviations):
    if token[END] - token[START] > 5:
        return False
    code = np.uint64(0)
    for k in range(token[START], token[END]):
        code = (code << np.uint64(8)) | np.uint64(buffer[k])
    found = np.searchsorted(abbreviations, code)
    return found < len(abbreviations) and abbreviations[found] == code


@compiled
def _close(begin, last, text, token, at):
    """Fills in what is known at the end of a token: its place and how it is written."""
    _, _, cl, case, char, byte, offset = text
    token[END] = at
    # The surface of "U.S." includes the final dot, although the token is "u.s".
    acronym = last > begin and cl[last - 1] == DOT and cl[last + 1] == DOT
    end = last + 1 if acronym else last
    # Characters dropped before the next kept one, such as a combining accent, belong to the word.
    token[CHAR_START], token[CHAR_END] = char[begin], max(char[end] + 1, char[end + 1])
    token[RAW_START] = offset + byte[begin]
    token[RAW_END] = offset + _next_byte(end, char, byte)
    upper = lower = accents = 0
    for k in range(begin, last + 1):
        upper += case[k] & UPPER != 0
        lower += case[k] & LOWER != 0
        accents |= case[k] & ACCENT
    kind = MIXED
    if upper + lower == 0:
        kind = CASELESS
    elif upper == 0:
        kind = LOWERCASE
    elif lower == 0:
        kind = UPPERCASE if upper > 1 else ONE_CAPITAL
    elif upper == 1 and case[begin] & UPPER:
        kind = CAPITALISED
    token[FLAGS] |= (kind << CASE_SHIFT) | (ACCENTED if accents else 0)


@compiled
def _next_byte(p, char, byte):
    """Returns where the caption continues after the character from which p comes."""
    q = p + 1
    while char[q] == char[p]:
        q += 1
    return byte[q]


@compiled
def _write(buffer, at, code):
    """Appends a character as UTF-8; returns the new size."""
    if code < 0x80:
        buffer[at] = code
        return at + 1
    length = 2 if code < 0x800 else (3 if code < 0x10000 else 4)
    for k in range(length - 1, 0, -1):
        buffer[at + k] = 0x80 | (code & 0x3F)
        code >>= 6
    buffer[at] = ((0xF00 >> length) & 0xFF) | code
    return at + length


@compiled
def join_tokens(buffer, start, end, row_start, with_barriers):
    """Returns the offsets and bytes of the captions' tokens, joined by one space.

    With barriers, their signs are between the space and the token that follows.
    """
    num_rows = len(row_start) - 1
    offsets = np.zeros(num_rows + 1, np.int64)
    data = np.empty(len(buffer), np.uint8)
    size = 0
    for row in range(num_rows):
        low, high = row_start[row], row_start[row + 1]
        for token in range(low, high):
            begin = start[token]
            if token > low:
                data[size] = 32
                size += 1
                begin = end[token - 1] + 1 if with_barriers else begin
            data[size : size + end[token] - begin] = buffer[begin : end[token]]
            size += end[token] - begin
        offsets[row + 1] = size
    return offsets, data[:size]
