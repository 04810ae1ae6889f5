"""Is this name used as a name? Counted in the user's own captions, without any labels.

In: captions. Out: linkability/ in the knowledge base: how often each name occurs (`seen`), how
often it is written with a capital that its place does not require (`large`), and without a capital
by someone who uses them (`small`). "turkey" is mostly small, "Ankara" hardly ever.

    linkability = (large + 1) / (large + small + 2)      (1/2 without evidence)

A name that is also small in the knowledge base ("apple juice" of a catalogue) is judged by the
`case` term instead and keeps 1/2. Frequency alone decides nothing; `openmofi kb stats` lists the
most frequent names, and an override file can remove those that are noise.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from openmofi.arrays.mapped import open_array
from openmofi.arrays.strings import string_buffers
from openmofi.config import LinkSettings
from openmofi.files.folders import new_folder
from openmofi.kb.store import LINKABILITY, KnowledgeBase
from openmofi.kb.text import Captions, as_text, tokenise
from openmofi.link.mentions import find_mentions
from openmofi.link.words_or_names import WordsOrNames


@dataclass(frozen=True)
class NameCounts:
    """The result of counting names."""

    captions: int
    mentions: int
    names: int
    """Number of different names that occur."""
    fingerprint: str = ""


@dataclass(frozen=True)
class FrequentName:
    """A name that occurs often."""

    name: str
    """In canonical form."""
    seen: int
    linkability: float


def count_names(
    kb: KnowledgeBase, captions: Iterable[Captions], *, settings: LinkSettings | None = None
) -> NameCounts:
    """Counts how names are written in captions, and stores the counts in the knowledge base.

    All names are counted, even those inside longer ones. Counts of an earlier call are replaced.

    Args:
        kb: the knowledge base, which gets the folder linkability/; open it again to link with the
            counts.
        captions: batches of texts.
        settings: limits of mentions, as for linking.
    """
    counts = {name: np.zeros(len(kb.index), np.uint32) for name in ("seen", "large", "small")}
    words, num_captions = WordsOrNames(kb), 0
    for batch in captions:
        texts = as_text(batch)
        found = find_mentions(
            tokenise(texts),
            string_buffers(texts)[1],
            index=kb.index,
            hasher=kb.hasher,
            stopped=words.stopped,
            settings=settings or LinkSettings(),
            overlapping=True,
        )
        mentions = found.only(words.may_be_names(found))
        np.add.at(counts["seen"], mentions.key, 1)
        np.add.at(counts["large"], mentions.key[mentions.written > 0], 1)
        np.add.at(counts["small"], mentions.key[mentions.written < 0], 1)
        num_captions += len(batch)
    seen = counts["seen"]
    digest = hashlib.sha256(b"".join(array.tobytes() for array in counts.values())).hexdigest()
    num_mentions, num_names = int(seen.sum(dtype=np.int64)), int(np.count_nonzero(seen))
    summary = NameCounts(num_captions, num_mentions, num_names, digest[:16])
    with new_folder(kb.path / LINKABILITY) as folder:
        for name, array in counts.items():
            np.save(folder / f"{name}.npy", array)
        (folder / "card.json").write_text(json.dumps(asdict(summary), indent=2) + "\n")
    return summary


class Linkability:
    """The counts of a knowledge base."""

    def __init__(self, folder: Path):
        self.seen, self._large, self._small = (
            open_array(folder / f"{name}.npy") for name in ("seen", "large", "small")
        )

    def of(self, keys: np.ndarray) -> np.ndarray:
        """Returns the smoothed share of each name's uses as a name, between 0 and 1."""
        large, small = self._large[keys].astype(np.float64), self._small[keys]
        return (large + 1) / (large + small + 2)

    def most_frequent(self, kb: KnowledgeBase, limit: int) -> list[FrequentName]:
        """Returns the names that occur most often; reads all names once to find their texts."""
        seen = self.seen.astype(np.int64)
        keys = np.argsort(-seen, kind="stable")[:limit]
        keys = keys[seen[keys] > 0]
        texts = kb.canonical_names(keys)
        found = zip(texts, seen[keys].tolist(), self.of(keys).tolist(), strict=True)
        return [FrequentName(*name) for name in found]


def read_linkability(kb: KnowledgeBase) -> Linkability | None:
    """Returns the counts of a knowledge base, or None if its names were not counted."""
    folder = kb.path / LINKABILITY
    return Linkability(folder) if folder.is_dir() else None


def mean_odds(types: pa.ListArray, odds: dict[str, float]) -> np.ndarray:
    """Returns the mean log odds of each entity's known types, 0 if none is known."""
    parents = types.value_parent_indices().to_numpy()
    flat = types.flatten()
    names = list(odds)
    at = pc.index_in(flat, value_set=pa.array(names, flat.type)).to_numpy(zero_copy_only=False)
    known = ~np.isnan(at)
    values = np.array([odds[name] for name in names])[at[known].astype(np.int64)]
    sums = np.bincount(parents[known], values, len(types))
    number = np.bincount(parents[known], minlength=len(types))
    return (sums / np.maximum(number, 1)).astype(np.float32)


class TypeOdds:
    """The log odds of entities by their types, from the weights."""

    def __init__(self, kb: KnowledgeBase, odds: dict[str, float]):
        self._odds = mean_odds(kb.entities(["types"])["types"].combine_chunks(), odds)

    def of(self, entity: np.ndarray) -> np.ndarray:
        """Returns the log odds of entities, by their rows."""
        return self._odds[entity]
