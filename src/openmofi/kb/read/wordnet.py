"""Reads the nouns of WordNet 3's database files, as Debian's wordnet-base or Princeton ships them.

In: a folder with data.noun, index.noun and cntlist.rev (formats: wndb(5WN), cntlist(5WN)). Out:
an EntityRecord per synset, with the id that ImageNet gives it (n02012849), all its lemmas as names,
the gloss without its examples, and all its hypernyms as types.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from openmofi.errors import InputError
from openmofi.kb.read.records import EntityRecord, Records
from openmofi.refused import Refused

DATA, INDEX, COUNTS = "data.noun", "index.noun", "cntlist.rev"
VISIBLE = frozenset({"05", "06", "08", "13", "15", "17", "18", "19", "20", "25", "27"})
"""Lexicographer files (lexnames(5WN)) of what a photo may show: animal, artifact, body, food,
location, object, person, phenomenon, plant, shape, substance."""
_HYPERNYMS = ("@", "@i")
"""Pointers to what a synset is a kind or an instance of."""
_NOUN = "1"
"""Number of the part of speech in a sense key: lemma%1:05:00::."""
_SHOWN = 200


def is_wordnet(folder: Path) -> bool:
    """Says whether a folder holds the nouns of WordNet."""
    return (folder / DATA).is_file() and (folder / INDEX).is_file()


def read_wordnet(data: Path, preset: str) -> Records:
    """Yields an EntityRecord for every noun synset, or a Refused.

    The label is the lemma that is most frequent in WordNet's tagged texts, the first one if none
    occurs. The popularity is the number of these occurrences over all lemmas, plus 1/n where the
    synset is at best the n-th sense of a lemma: senses are sorted by frequency.

    Reasons: not_visible, with the preset image; bad_structure.

    Args:
        data: the file data.noun.
        preset: image keeps what a photo may show, any other everything.

    Raises:
        InputError: no synset can be read, or index.noun is missing.
    """
    ranks, counts = _sense_ranks(data.with_name(INDEX)), _tag_counts(data.with_name(COUNTS))
    synsets, refused = {}, []
    for number, line in _lines(data):
        try:
            synset = _parse(line, number)
        except (ValueError, IndexError):
            refused.append(Refused("bad_structure", number, line[:_SHOWN]))
            continue
        synsets[synset.offset] = synset
    if not synsets:
        raise InputError(f"{data} holds no synsets; expected WordNet's {DATA} as in wndb(5WN).")
    yield from refused
    for synset in synsets.values():
        if preset == "image" and synset.file not in VISIBLE:
            text = f"n{synset.offset} {synset.lemmas[0]}: {synset.gloss}"
            yield Refused("not_visible", synset.line, text[:_SHOWN])
            continue
        keys = [lemma.lower() for lemma in synset.lemmas]
        tagged = [counts.get((key, ranks.get((key, synset.offset), 0)), 0) for key in keys]
        rank = min(ranks.get((key, synset.offset), len(synsets)) for key in keys)
        lemmas = [lemma.replace("_", " ") for lemma in synset.lemmas]
        yield EntityRecord(
            id=f"n{synset.offset}",
            label=lemmas[tagged.index(max(tagged))],
            # Synonyms: none of them is less of a name than another.
            names=[(lemma, "en", "label") for lemma in dict.fromkeys(lemmas)],
            line=synset.line,
            description=synset.gloss.partition('; "')[0],
            types=[f"n{offset}" for offset in _ancestors(synset.offset, synsets)],
            subclass_of=[f"n{offset}" for offset in synset.hypernyms],
            popularity=sum(tagged) + 1 / rank,
        )


@dataclass(frozen=True)
class _Synset:
    """A line of data.noun."""

    offset: str
    file: str
    lemmas: list[str]
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
    lemmas = fields[4 : 4 + 2 * count : 2]
    start = 4 + 2 * count
    pointers = fields[start + 1 : start + 1 + 4 * int(fields[start])]
    if len(pointers) != 4 * int(fields[start]):
        raise ValueError(line)
    places = range(0, len(pointers), 4)
    above = [pointers[i + 1] for i in places if pointers[i] in _HYPERNYMS]
    return _Synset(offset, file, lemmas, above, gloss.strip(), number)


def _ancestors(offset: str, synsets: dict[str, _Synset]) -> list[str]:
    """Returns all hypernyms, the nearest first."""
    found: dict[str, None] = {}
    nearest = synsets[offset].hypernyms
    while nearest:
        found |= dict.fromkeys(nearest)
        above = [up for near in nearest if near in synsets for up in synsets[near].hypernyms]
        nearest = [up for up in dict.fromkeys(above) if up not in found]
    return list(found)


def _sense_ranks(file: Path) -> dict[tuple[str, str], int]:
    """Returns (lemma, offset) -> which sense of the lemma it is, from 1."""
    ranks = {}
    for _, line in _lines(file):
        fields = line.split()
        lemma, count = fields[0], int(fields[2])
        for rank, offset in enumerate(fields[-count:], 1):
            ranks[lemma, offset] = rank
    return ranks


def _tag_counts(file: Path) -> Counter[tuple[str, int]]:
    """Returns (lemma, number of the sense) -> occurrences in tagged texts; no file, no counts."""
    counts: Counter[tuple[str, int]] = Counter()
    if file.is_file():
        for _, line in _lines(file):
            key, sense, count = line.split()
            lemma, _, rest = key.partition("%")
            if rest.startswith(_NOUN):
                counts[lemma, int(sense)] += int(count)
    return counts


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
