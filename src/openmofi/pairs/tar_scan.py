"""The compiled walk over a tar's headers.

A header is 512 bytes: name at 0, size at 124, checksum at 148, kind at 156, "ustar" at 257, prefix
of the name at 345. It may be preceded by a pax record (kind x), which webdataset's own writer puts
before every file, or by GNU's long name (kind L). POSIX.1-2017, pax: "ustar Interchange Format".
"""

import numpy as np

from openmofi.arrays.compiled import compiled

BLOCK = 512
# Why the walk stopped.
MORE, END, NOT_A_HEADER, CUT_OFF, UNUSUAL = range(5)

_NUL, _SPACE, _SLASH, _EQUALS, _ZERO = 0, 32, 47, 61, 48
_UNKNOWN = -1
_LONGEST_NAME, _LONGEST_RECORD, _TOO_LARGE = 1 << 14, 1 << 20, 1 << 58


@compiled
def walk(window, base, total, names, name_ends, offsets, sizes, count):
    """Walks the headers in the part of a tar that is in memory.

    Args:
        window: uint8, the bytes from `base` on.
        base: offset of the window in the file, at a header.
        total: bytes of the file.
        names: uint8, buffer for the concatenated names of the members.
        name_ends: int64, where each name ends; name_ends[0] = 0.
        offsets: int64, first byte of each member.
        sizes: int64, bytes of each member.
        count: number of members found before.

    Returns:
        (why it stopped, number of members, offset of the next header, bytes needed from there).
    """
    position = base
    while True:
        at, size, name_from, name_size = position, _UNKNOWN, _UNKNOWN, 0
        while True:  # the records before a member, then its header
            here = at - base
            if at + BLOCK > total:
                return CUT_OFF, count, position, 0
            if here + BLOCK > len(window):
                return MORE, count, position, at + BLOCK - position
            if window[here] == _NUL and _is_blank(window, here):
                return END, count, position, 0
            kind = window[here + 156]
            found = _size(window, here)
            if found < 0 or not _checksum_holds(window, here):
                return NOT_A_HEADER, count, position, 0
            data = here + BLOCK
            if kind != ord("x") and kind != ord("L") and kind != ord("K"):
                break
            if found > total - at - BLOCK:
                return CUT_OFF, count, position, 0
            if found > _LONGEST_RECORD:
                return NOT_A_HEADER, count, position, 0
            if data + found > len(window):
                return MORE, count, position, at + BLOCK + found - position
            if kind == ord("L"):
                name_from, name_size = data, _until_nul(window, data, found)
            elif kind == ord("x"):
                good, size, start, length = _records(window, data, data + found, size)
                if not good:
                    return UNUSUAL, count, position, 0
                if start >= 0:
                    name_from, name_size = start, length
            at += BLOCK + _padded(found)
        if kind == ord("g") or kind == ord("S") or name_size > _LONGEST_NAME:
            return UNUSUAL, count, position, 0
        # Links, devices and folders have no data, whatever their header says (as in tarfile).
        size = (found if size < 0 else size) if not ord("1") <= kind <= ord("6") else 0
        if size > total - at - BLOCK:
            return CUT_OFF, count, position, 0
        if kind == ord("0") or kind == _NUL or kind == ord("7"):
            room = name_ends[count] + max(name_size, 256)
            if count + 1 >= len(name_ends) or room > len(names):
                return MORE, count, position, at + BLOCK - position
            end = name_ends[count]
            if name_from >= 0:
                names[end : end + name_size] = window[name_from : name_from + name_size]
                end += name_size
            else:
                end = _copy_name(window, here, names, end)
            if kind != _NUL or end == name_ends[count] or names[end - 1] != _SLASH:
                name_ends[count + 1], offsets[count], sizes[count] = end, at + BLOCK, size
                count += 1
        position = at + BLOCK + _padded(size)


@compiled
def _padded(size):
    return (size + BLOCK - 1) // BLOCK * BLOCK


@compiled
def _is_blank(window, here):
    last = 0
    for i in range(here, here + BLOCK):
        last |= window[i]
    return last == 0


@compiled
def _checksum_holds(window, here):
    """Returns whether the checksum holds for unsigned or, as in some old tars, signed bytes."""
    total, signed = 8 * _SPACE, 8 * _SPACE
    for i in range(BLOCK):
        if 148 <= i < 156:
            continue
        byte = np.int64(window[here + i])
        total += byte
        signed += byte - 256 if byte > 127 else byte
    said = _octal(window, here + 148, here + 156)
    return said in (total, signed)


@compiled
def _octal(window, start, end):
    """Returns an octal number surrounded by spaces and zero bytes, or -1."""
    value, state = 0, 0  # states: before, in and after the number
    for i in range(start, end):
        byte = window[i]
        if byte in (_NUL, _SPACE):
            state = 2 if state == 1 else state
        elif state == 2 or not _ZERO <= byte < _ZERO + 8:
            return -1
        else:
            value, state = value * 8 + byte - _ZERO, 1
    return value


@compiled
def _size(window, here):
    if not window[here + 124] & 0x80:
        return _octal(window, here + 124, here + 136)
    value = 0  # base 256, for files over 8 GiB
    for i in range(here + 128, here + 136):
        value = value * 256 + window[i]
    return value


@compiled
def _until_nul(window, start, limit):
    for i in range(limit):
        if window[start + i] == _NUL:
            return i
    return limit


@compiled
def _copy_name(window, here, names, end):
    """Copies a header's name with its prefix; returns where it ends."""
    is_ustar = window[here + 257] == ord("u") and window[here + 261] == ord("r")
    if is_ustar and window[here + 262] == _NUL and window[here + 345] != _NUL:
        length = _until_nul(window, here + 345, 155)
        names[end : end + length] = window[here + 345 : here + 345 + length]
        names[end + length] = _SLASH
        end += length + 1
    length = _until_nul(window, here, 100)
    names[end : end + length] = window[here : here + length]
    return end + length


@compiled
def _records(window, at, end, size):
    """Reads pax records, each LENGTH KEY=VALUE and a line feed.

    Returns:
        (whether all are ordinary, size of the member or -1, start of its name or -1, its length).
    """
    start, length = _UNKNOWN, 0
    while at < end and window[at] != _NUL:
        extent, i = 0, at
        while i < end and _ZERO <= window[i] <= _ZERO + 9:
            extent = extent * 10 + window[i] - _ZERO
            i += 1
        stop = at + extent - 1
        if i >= end or window[i] != _SPACE or not i < stop < end or window[stop] != ord("\n"):
            return False, size, start, length
        key = i + 1
        equals = key
        while equals < stop and window[equals] != _EQUALS:
            equals += 1
        if equals == stop:
            return False, size, start, length
        if _is(window, key, equals, b"path"):
            start, length = equals + 1, stop - equals - 1
        elif _is(window, key, equals, b"size"):
            size = 0
            for j in range(equals + 1, stop):
                if not _ZERO <= window[j] <= _ZERO + 9:
                    return False, size, start, length
                size = min(size * 10 + window[j] - _ZERO, _TOO_LARGE)
        elif window[key] == ord("G") or _is(window, key, equals, b"hdrcharset"):
            return False, size, start, length  # GNU.sparse, or names in another encoding
        at = stop + 1
    return True, size, start, length


@compiled
def _is(window, start, end, word):
    if end - start != len(word):
        return False
    same = True
    for i in range(len(word)):
        same = same and window[start + i] == word[i]
    return same
