"""Members of a WebDataset tar -> samples: the files that share a key; compiled.

A key is a name up to the first dot of its last part. A second file with the same key and extension
begins another sample of that key, so that nothing is lost.
"""

from functools import lru_cache

import numpy as np

from openmofi.arrays.compiled import compiled
from openmofi.images.formats import readable_suffixes, unread_suffixes

IMAGE, UNREAD, TXT, JSON, NUM_SLOTS = range(5)
"""Kinds of files in a sample; any other extension is only known by its hash."""

_SLASH, _DOT, _UNDERSCORE = 47, 46, 95
_FOREIGN = np.frombuffer(b"__MACOSX", np.uint8)
# Of several images with the same key, the one whose extension comes first is taken.
_FIRST = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp")


@lru_cache(maxsize=1)
def extensions() -> tuple[np.ndarray, np.ndarray]:
    """Returns (known extensions as zero-padded bytes [n, longest + 1], their slots)."""
    known = [(suffix, IMAGE) for suffix in _FIRST] + [(".txt", TXT), (".json", JSON)]
    known += [(suffix, IMAGE) for suffix in sorted(readable_suffixes() - {*_FIRST})]
    known += [(suffix, UNREAD) for suffix in sorted(unread_suffixes())]
    table = np.zeros((len(known), max(len(suffix) for suffix, _ in known)), np.uint8)
    for row, (suffix, _) in zip(table, known, strict=True):
        row[: len(suffix) - 1] = np.frombuffer(suffix[1:].encode(), np.uint8)
    return table, np.array([slot for _, slot in known], np.int32)


@compiled
def group(names, name_ends, spelled, slot_of):
    """Groups members by key; leaves hidden ones out.

    Args:
        names: uint8, the members' names concatenated.
        name_ends: int64 [members + 1], where each name ends; name_ends[0] = 0.
        spelled: the first result of `extensions`.
        slot_of: its second result.

    Returns:
        (member that began each sample, int32 [samples]; bytes of its key, int32 [samples];
        members by slot or -1, int32 [samples, slots]).
    """
    members = len(name_ends) - 1
    first = np.empty(members, np.int32)
    key_size = np.empty(members, np.int32)
    slots = np.full((members, NUM_SLOTS), -1, np.int32)
    rank = np.empty(members, np.int32)  # of the image's extension
    capacity = 16
    while capacity < 2 * members + 2:
        capacity *= 2
    latest = np.full(capacity, -1, np.int32)  # by hash of key: its latest sample
    seen = np.zeros(capacity, np.uint64)  # hashes of (sample, extension)
    count, sample = 0, -1
    for member in range(members):
        start, end = name_ends[member], name_ends[member + 1]
        if _is_hidden(names, start, end):
            continue
        dot = _key_end(names, start, end)
        size = dot - start
        place = -1
        if sample < 0 or not _has_key(sample, names, start, size, name_ends, first, key_size):
            place = _find(names, start, size, name_ends, first, key_size, latest)
            sample = latest[place]
        extension = _hash(names, min(dot + 1, end), end, True)
        if sample < 0 or not _add(seen, _mixed(extension, sample)):
            if place < 0:
                place = _find(names, start, size, name_ends, first, key_size, latest)
            sample = count
            latest[place] = sample
            first[sample], key_size[sample], rank[sample] = member, size, len(spelled)
            count += 1
            _add(seen, _mixed(extension, sample))
        known = _extension(names, min(dot + 1, end), end, spelled)
        if known >= 0 and slot_of[known] != IMAGE:
            slots[sample, slot_of[known]] = member
        elif known >= 0 and known < rank[sample]:
            slots[sample, IMAGE], rank[sample] = member, known
    return first[:count], key_size[:count], slots[:count]


@compiled
def _key_end(names, start, end):
    """Returns the position of the first dot in the last part of a name, or the name's end."""
    last = start
    for i in range(start, end):
        if names[i] == _SLASH:
            last = i + 1
    for i in range(last, end):
        if names[i] == _DOT:
            return i
    return end


@compiled
def _lower(byte):
    return byte + 32 if 65 <= byte <= 90 else byte


@compiled
def _is_hidden(names, start, end):
    """Does for a member's name what `files.hidden.is_hidden` does."""
    part = start
    for i in range(start, end + 1):
        if i < end and names[i] != _SLASH:
            continue
        size = i - part
        if size and names[part] == _DOT:
            if size > 2 or (size == 2 and names[part + 1] != _DOT):
                return True
        elif size == len(_FOREIGN) and names[part] == _UNDERSCORE:
            same = True
            for j in range(size):
                same = same and names[part + j] == _FOREIGN[j]
            if same:
                return True
        part = i + 1
    return False


@compiled
def _extension(names, start, end, spelled):
    """Returns the row of an extension among those known, or -1."""
    size = end - start
    if size == 0 or size >= spelled.shape[1]:
        return -1
    for row in range(len(spelled)):
        i = 0
        while i < size and _lower(names[start + i]) == spelled[row, i]:
            i += 1
        if i == size and spelled[row, size] == 0:
            return row
    return -1


@compiled
def _hash(names, start, end, lower):
    """Returns the FNV-1a hash of some bytes, with its low bits mixed once more."""
    value = np.uint64(0xCBF29CE484222325)
    for i in range(start, end):
        byte = _lower(names[i]) if lower else names[i]
        value = (value ^ np.uint64(byte)) * np.uint64(0x100000001B3)
    return value ^ (value >> np.uint64(29))


@compiled
def _mixed(extension, sample):
    """Returns a hash of both; never 0, which marks an empty slot."""
    value = (extension ^ np.uint64(sample + 1)) * np.uint64(0x9E3779B97F4A7C15)
    value = (value ^ (value >> np.uint64(32))) * np.uint64(0xD6E8FEB86659FD93)
    return (value ^ (value >> np.uint64(32))) | np.uint64(1)


@compiled
def _has_key(sample, names, start, size, name_ends, first, key_size):
    if size != key_size[sample]:
        return False
    other, same = name_ends[first[sample]], True
    for i in range(size):
        same = same and names[start + i] == names[other + i]
    return same


@compiled
def _find(names, start, size, name_ends, first, key_size, latest):
    """Returns the slot of a key in the open-addressed table `latest`; a free slot holds -1."""
    mask = len(latest) - 1
    place = np.int64(_hash(names, start, start + size, False) & np.uint64(mask))
    while latest[place] >= 0:
        if _has_key(latest[place], names, start, size, name_ends, first, key_size):
            break
        place = (place + 1) & mask
    return place


@compiled
def _add(seen, value):
    """Adds a value to a set of hashes; returns whether it is new."""
    mask = len(seen) - 1
    place = np.int64((value >> np.uint64(1)) & np.uint64(mask))
    while seen[place] != 0:
        if seen[place] == value:
            return False
        place = (place + 1) & mask
    seen[place] = value
    return True
