"""Reads the nouns of WordNet 3's database files, as Debian's wordnet-base or Princeton ships them.

In: a folder with data.noun, index.noun and cntlist.rev (formats: wndb(5WN), cntlist(5WN)). Out:
an EntityRecord per synset, with the id that ImageNet gives it (n02012849), all its lemmas as names,
the gloss without its examples, and all its hypernyms as types.

Ids are places in data.noun, so they are ImageNet's in WordNet 3.0 only.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from openmofi.errors import InputError
from openmofi.kb.read.records import EntityRecord, Records
from openmofi.refused import Refused

DATA, INDEX, COUNTS = "data.noun", "index.noun", "cntlist.rev"
VISIBLE_FILES = frozenset({"05", "06", "08", "13", "15", "17", "18", "19", "20", "25", "27"})
"""Lexicographer files (lexnames(5WN)) of what a photo may show: animal, artifact, body, food,
location, object, person, phenomenon, plant, shape, substance. They hold 994 of the 1,000 classes
that ILSVRC took from WordNet, and 98.3% of ImageNet-21k's 21,841."""
VISIBLE_KINDS = frozenset(
    {
        "animal%1:03:00",
        "animal_group%1:14:00",
        "artifact%1:03:00",
        "coin%1:21:02",
        "crossword_puzzle%1:10:00",
        "crowd%1:14:00",
        "dancing%1:04:00",
        "dust_cover%1:10:00",
        "food%1:03:00",
        "musical_organization%1:14:00",
        "person%1:03:00",
        "plant%1:03:00",
        "publication%1:10:00",
        "sign%1:10:00",
        "sport%1:04:00",
        "sunrise%1:28:00",
        "sunset%1:28:00",
        "visual_signal%1:10:00",
        "website%1:10:00",
    }
)
"""Sense keys of what a photo may show, kinds included, although its file is mostly of what none
can: football is an act, a street sign a communication, a flock a group. With them all 1,000
classes are kept, and 99.5% of the 21,841. Left out on purpose are ImageNet-21k's 64 colours: in a
caption, orange is oftener how a thing looks than what it is."""
_HYPERNYMS = ("@", "@i")
"""Pointers to what a synset is a kind or an instance of."""
_NOUN = "%1:"
"""What tells a noun's sense key, lemma%1:05:00::, from a verb's."""
_EXAMPLE = re.compile('[;:] "')
"""Where the examples of a gloss begin."""
_SHOWN = 200


def find_nouns(folder: Path) -> Path | None:
    """Returns the file with WordNet's nouns, or None if the folder is not WordNet.

    Raises:
        InputError: only a part of WordNet is there.
    """
    data = folder / DATA
    if not data.is_file():
        return None
    if not (folder / INDEX).is_file():
        raise InputError(
            f"{folder} has WordNet's {DATA}, but no {INDEX}, which sorts the senses; expected "
            "both, as Debian's wordnet-base installs them."
        )
    return data


def read_wordnet(data: Path, preset: str) -> Records:
    """Yields an EntityRecord for every noun synset, or a Refused.

    The label is the lemma that is most frequent in WordNet's tagged texts, the first one if none
    occurs. The popularity is the number of these occurrences over all lemmas, plus 1/n where the
    synset is at best the n-th sense of a lemma: senses are sorted by frequency.

    Reasons: not_visible, with the preset image (counted, not listed); bad_structure; duplicate_id.

    Args:
        data: the file data.noun; index.noun lies beside it, and cntlist.rev, without which no
            lemma occurs in the texts.
        preset: image keeps what a photo may show, any other everything.

    Raises:
        InputError: no synset can be read, index.noun is missing, or it or cntlist.rev is damaged.
    """
    ranks, counts = _sense_ranks(data.with_name(INDEX)), _tag_counts(data.with_name(COUNTS))
    synsets, refused = {}, []
    for number, line in _lines(data):
        try:
            synset = _parse(line, number)
        except (ValueError, IndexError):
            refused.append(Refused("bad_structure", number, line[:_SHOWN]))
            continue
        if synset.offset in synsets:
            refused.append(Refused("duplicate_id", number, line[:_SHOWN]))
            continue
        synsets[synset.offset] = synset
    if not synsets:
        raise InputError(f"{data} holds no synsets; expected WordNet's {DATA} as in wndb(5WN).")
    yield from refused
    for synset in synsets.values():
        above = _ancestors(synset.offset, synsets)
        if preset == "image" and not _is_visible(synset, above, synsets):
            yield Refused("not_visible", synset.line)
            continue
        tagged = [counts[key] for key in synset.keys]
        own_ranks = [ranks.get((lemma.lower(), synset.offset)) for lemma in synset.lemmas]
        best_rank = min((rank for rank in own_ranks if rank), default=len(synsets))
        lemmas = [lemma.replace("_", " ") for lemma in synset.lemmas]
        yield EntityRecord(
            id=f"n{synset.offset}",
            label=lemmas[tagged.index(max(tagged))],
            # Synonyms: none of them is less of a name than another.
            names=[(lemma, "en", "label") for lemma in dict.fromkeys(lemmas)],
            line=synset.line,
            description=_EXAMPLE.split(synset.gloss, maxsplit=1)[0],
            types=[f"n{offset}" for offset in above],
            subclass_of=[f"n{offset}" for offset in synset.hypernyms],
            popularity=sum(tagged) + 1 / best_rank,
        )


@dataclass(frozen=True)
class _Synset:
    """A line of data.noun."""

    offset: str
    file: str
    lemmas: list[str]
    keys: list[str]
    """The sense key of each lemma, without its last two fields, which only adjectives fill."""
    hypernyms: list[str]
    gloss: str
    line: int


def _parse(line: str, number: int) -> _Synset:
    """Returns the synset of a line: offset file n count (lemma id)… count (pointer)… | gloss.

    Raises:
        ValueError, IndexError: it does not have this form.
    """
    head, gloss = line.split(" | ", 1)
    fields = head.split()
    offset, file, kind, count = fields[0], fields[1], fields[2], int(fields[3], 16)
    if kind != "n" or len(offset) != 8 or not offset.isdigit() or not count:
        raise ValueError(line)
    start = 4 + 2 * count
    lemmas, lex_ids = fields[4:start:2], fields[5:start:2]
    pointers = fields[start + 1 : start + 1 + 4 * int(fields[start])]
    if len(pointers) != 4 * int(fields[start]):
        raise ValueError(line)
    keys = [
        f"{lemma.lower()}{_NOUN}{file}:{int(lex_id, 16):02d}"
        for lemma, lex_id in zip(lemmas, lex_ids, strict=True)
    ]
    places = range(0, len(pointers), 4)
    above = [pointers[i + 1] for i in places if pointers[i] in _HYPERNYMS]
    return _Synset(offset, file, lemmas, keys, above, gloss.strip(), number)


def _ancestors(offset: str, synsets: dict[str, _Synset]) -> list[str]:
    """Returns all hypernyms, the nearest first."""
    found: dict[str, None] = {}
    nearest = synsets[offset].hypernyms
    while nearest:
        found |= dict.fromkeys(nearest)
        above = [up for near in nearest if near in synsets for up in synsets[near].hypernyms]
        nearest = [up for up in dict.fromkeys(above) if up not in found]
    found.pop(offset, None)  # only damaged data has circles
    return list(found)


def _is_visible(synset: _Synset, above: list[str], synsets: dict[str, _Synset]) -> bool:
    """Says whether a photo may show a synset with these hypernyms."""
    kinds = [synset, *(synsets[offset] for offset in above if offset in synsets)]
    return synset.file in VISIBLE_FILES or any(
        not VISIBLE_KINDS.isdisjoint(kind.keys) for kind in kinds
    )


def _sense_ranks(file: Path) -> dict[tuple[str, str], int]:
    """Returns (lemma, offset) -> which sense of the lemma it is, from 1.

    Raises:
        InputError: the file is missing or damaged.
    """
    ranks = {}
    for number, line in _lines(file):
        fields = line.split()
        try:
            offsets = fields[-int(fields[2]) :]
        except (ValueError, IndexError):
            raise _damaged(file, number, line, "lemma, n, number of senses, …, offsets") from None
        for rank, offset in enumerate(offsets, 1):
            ranks[fields[0], offset] = rank
    return ranks


def _tag_counts(file: Path) -> Counter[str]:
    """Returns sense key of a noun -> occurrences in tagged texts; no file, no counts.

    Raises:
        InputError: the file is damaged.
    """
    counts: Counter[str] = Counter()
    if not file.is_file():
        return counts
    for number, line in _lines(file):
        try:
            key, _, count = line.split()
            occurrences = int(count)
        except ValueError:
            raise _damaged(file, number, line, "sense key, number of the sense, count") from None
        if _NOUN in key:
            counts[key.removesuffix("::")] += occurrences
    return counts


def _damaged(file: Path, number: int, line: str, expected: str) -> InputError:
    return InputError(
        f"{file} is damaged in line {number}, {line.strip()[:_SHOWN]!r}; expected: {expected}."
    )


def _lines(file: Path) -> Iterator[tuple[int, str]]:
    """Yields (number, line) of a file, without the licence before them, whose lines are indented.

    Raises:
        InputError: the file is missing.
    """
    try:
        with file.open(encoding="utf-8", errors="replace") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip() and not line.startswith("  "):
                    yield number, line
    except OSError as error:
        raise InputError(f"Cannot read {file}: {error.strerror}.") from None
