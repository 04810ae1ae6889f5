"""Reads the user's files about names, line by line.

In: --redirects (from<TAB>to), --anchors (text<TAB>article title or id<TAB>count) and --overrides
(name<TAB>id<TAB>p), plain or compressed. Out: batches of the first two, which machines write and
which are long, so bad lines are only counted; Decisions of the last, which people write, so the
first wrong line is explained.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from openmofi.errors import InputError
from openmofi.files.lines import TruncatedFile, read_lines
from openmofi.kb.text import canonical, canonical_batch

REMOVE = "-"
"""Instead of an id: the name means nothing."""
_BATCH_LINES = 1 << 15
_MAX_COUNT = 1 << 50
REDIRECTS = pa.schema([("old", pa.string()), ("new", pa.string()), ("line", pa.int64())])
ANCHORS = pa.schema(
    [
        ("key", pa.string()),
        ("raw", pa.string()),
        ("target", pa.string()),
        ("count", pa.int64()),
        ("line", pa.int32()),
    ]
)


@dataclass(frozen=True)
class Decision:
    """One line of --overrides."""

    line: int
    name: str
    key: str
    id: str
    """"-" removes the name."""
    p: float


@dataclass
class LinkCounts:
    """Counts of the lines of a file."""

    lines: int = 0
    resolved: int = 0
    unresolved: int = 0
    """Lines that lead to no entity of the knowledge base."""
    still_entities: int = 0
    """Redirects that are ignored because the sources still have the old id."""
    refused: dict[str, int] = field(default_factory=dict)
    """Number of invalid lines, by reason."""

    def refuse(self, reason: str, count: int = 1) -> None:
        """Counts invalid lines."""
        if count:
            self.refused[reason] = self.refused.get(reason, 0) + count


def read_decisions(path: Path) -> list[Decision]:
    """Reads a file of lines name<TAB>id<TAB>p; the id - removes the name and needs no p.

    Raises:
        InputError: a line is invalid, repeats or contradicts an earlier one, or the p of a name
            sum to more than 1.
    """
    decisions: list[Decision] = []
    seen: defaultdict[str, set[str]] = defaultdict(set)
    total: defaultdict[str, float] = defaultdict(float)
    for number, line in _whole_lines(path):
        if not line.strip():
            continue
        decision = _decision(path, number, line)
        before = seen[decision.key]
        total[decision.key] += decision.p
        if decision.id in before:
            raise _wrong(path, number, f"{decision.name!r} and {decision.id} were decided before")
        if total[decision.key] > 1 + 1e-9:
            raise _wrong(path, number, f"the p of {decision.name!r} sum to more than 1")
        if before and REMOVE in (decision.id, *before):
            what = f"{decision.name!r} is removed in one line and given to an entity in another"
            raise _wrong(path, number, what)
        before.add(decision.id)
        decisions.append(decision)
    return decisions


def _whole_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    try:
        yield from read_lines(path)
    except TruncatedFile as error:
        raise InputError(f"{path} is damaged ({error}); expected a complete file.") from None


def _decision(path: Path, number: int, line: bytes) -> Decision:
    try:
        name, identifier, *rest = line.decode().split("\t")
        p = float(rest[0]) if identifier != REMOVE else 0.0
        if not (0 <= p <= 1 and len(rest) <= 1):  # also true for NaN
            raise ValueError
    except (ValueError, IndexError):
        shown = line.decode(errors="replace")
        raise _wrong(
            path, number, f"{shown!r} is not name<TAB>id<TAB>p with p from 0 to 1"
        ) from None
    key = canonical(name)
    if not key:
        raise _wrong(path, number, f"the name {name!r} has neither letters nor digits")
    return Decision(number, name, key, identifier, p)


def _wrong(path: Path, number: int, what: str) -> InputError:
    return InputError(f"{path}, line {number}: {what}; fix or remove that line.")


def _fields(path: Path, num_fields: int, counts: LinkCounts) -> Iterator[tuple[int, list[str]]]:
    """Yields (line number, fields) of the lines with the expected number of fields."""
    try:
        for number, line in read_lines(path):
            counts.lines += 1
            try:
                fields = line.decode().split("\t")
            except UnicodeDecodeError:
                counts.refuse("not_utf8")
                continue
            if len(fields) == num_fields and all(fields):
                yield number, fields
            else:
                counts.refuse("bad_fields")
    except TruncatedFile as error:
        counts.refuse(error.damage.reason)


def redirect_batches(path: Path, counts: LinkCounts) -> Iterator[pa.RecordBatch]:
    """Yields old and new ids as batches of REDIRECTS."""
    lines = _fields(path, 2, counts)
    while some := list(islice(lines, _BATCH_LINES)):
        columns = [[fields[i].strip() for _, fields in some] for i in range(2)]
        yield pa.RecordBatch.from_arrays(
            [*map(pa.array, columns), pa.array([number for number, _ in some])], schema=REDIRECTS
        )


def anchor_batches(path: Path, counts: LinkCounts) -> Iterator[pa.RecordBatch]:
    """Yields counted links with their canonical names as batches of ANCHORS."""
    lines = _fields(path, 3, counts)
    while some := list(islice(lines, _BATCH_LINES)):
        good = []
        for number, (raw, target, text) in some:
            text = text.strip()
            if text.isascii() and text.isdigit() and int(text) > 0:
                good.append((number, raw, target, min(int(text), _MAX_COUNT)))
        counts.refuse("bad_count", len(some) - len(good))
        number, raw, target, count = zip(*good, strict=True) if good else ((), (), (), ())
        keys = canonical_batch(raw)
        batch = pa.RecordBatch.from_pydict(
            {"key": keys, "raw": raw, "target": target, "count": count, "line": number},
            schema=ANCHORS,
        )
        named = batch.filter(pc.greater(pc.binary_length(keys), 0))
        counts.refuse("no_name", len(batch) - len(named))
        yield named
