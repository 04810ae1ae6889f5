"""Merges the parts of all sources into the tables and arrays of a knowledge base, in flat memory.

In: part files. Out: entities.parquet, names.parquet, classes.parquet, index/, ids/, texts/, words/
in a folder.
DuckDB sorts, NumPy computes, and everything else is streamed: memory is DuckDB's limit, a few
batches, and 16 bytes an entity (the offsets of ids or texts while they are written, for a moment in
two copies).
"""

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from openmofi.arrays.hashing import Hasher
from openmofi.arrays.mapped import one_chunk
from openmofi.arrays.strings import string_buffers
from openmofi.config import KBSettings
from openmofi.errors import InputError
from openmofi.kb.classes import write_classes
from openmofi.kb.ids import Ids, write_ids
from openmofi.kb.index_builder import HashCollision, IndexBuilder, IndexSummary
from openmofi.kb.merge.entity_table import write_entities
from openmofi.kb.merge.links import LinkSources
from openmofi.kb.merge.name_table import write_names
from openmofi.kb.merge.ranking import rank
from openmofi.kb.merge.sorting import Database
from openmofi.kb.read.parts import PartFiles
from openmofi.kb.texts import write_texts
from openmofi.kb.words import write_word_counts
from openmofi.progress import progress

Advance = Callable[[int], object]
# Seeds to try; under one seed, any two of 100 million names collide with probability 3e-4.
_MAX_SEEDS = 8
_ENTITIES, _NAMES = "entities.parquet", "names.parquet"


@dataclass
class Merged:
    """The result of a merge."""

    num_entities: int
    num_names: int
    seed: int
    index: IndexSummary
    fingerprint: str
    seconds: dict[str, float] = field(default_factory=dict)
    """Duration by stage."""


class TableBatches:
    """Columns of a Parquet file by row group; can be iterated several times."""

    def __init__(self, path: Path, columns: list[str], advance: Advance):
        self._path, self._columns, self._advance = path, columns, advance

    def __iter__(self) -> Iterator[pa.Table]:
        with pq.ParquetFile(self._path) as file:
            for i in range(file.num_row_groups):
                table = file.read_row_group(i, columns=self._columns)
                yield table
                self._advance(len(table))


def merge(
    parts: Sequence[PartFiles],
    links: LinkSources,
    *,
    sources: Sequence[str],
    folder: Path,
    work: Path,
    settings: KBSettings,
    refuse: Callable[[int, int, str], None],
) -> Merged:
    """Writes the tables and arrays.

    Args:
        parts: the part files, one per source.
        links: the user's files.
        sources: names of the sources.
        folder: the folder to fill.
        work: folder for temporary files.
        settings: weights.
        refuse: called with source number, line and id of every repeat of an id within one source.

    Raises:
        InputError: a decision names an unknown id, or names collide under every seed, which
            ordinary data never do.
    """
    clock = _Clock()
    num_records = sum(files.done.num_entities for files in parts)
    num_names = sum(files.done.num_names for files in parts)
    with Database(work) as database:
        # A sort counts rows twice, as they enter and leave; ranking sorts entities twice.
        with clock.stage("ranking entities", 4 * num_records) as database.advance:
            ranking = rank(parts, database, work, settings.prior_gamma)
        with clock.stage("resolving links") as database.advance:
            links.resolve(parts, ranking, database)
            redirects = links.redirects(database)
            rows = links.rows(database, work)
        with clock.stage("sorting names", 2 * num_names) as database.advance:
            path = folder / _NAMES
            num_aliases = write_names(path, parts, rows, ranking, database, settings)
        with clock.stage("sorting entities", 2 * num_records) as database.advance:
            path = folder / _ENTITIES
            write_entities(
                path, parts, ranking, num_aliases, database, sources=sources, refuse=refuse
            )
    del ranking, num_aliases
    classes = (batch for files in parts for batch in files.classes())
    return _write_lookups(folder, redirects, classes, clock)


def _write_lookups(
    folder: Path,
    redirects: tuple[pa.Array, np.ndarray] | None,
    classes: Iterator[pa.RecordBatch],
    clock: "_Clock",
) -> Merged:
    """Writes everything that is derived from the two tables: index, ids, texts and words."""
    names_path, entities_path = folder / _NAMES, folder / _ENTITIES
    num_names, num_entities = (
        pq.read_metadata(path).num_rows for path in (names_path, entities_path)
    )
    with clock.stage("indexing names", num_names) as advance:
        hasher, index = _write_index(folder / "index", names_path, num_names, advance)
    # The entities are read for ids, labels, descriptions and types, once each.
    with clock.stage("storing ids and texts", 4 * num_entities) as advance:
        ids = TableBatches(entities_path, ["id"], advance)
        write_ids(folder / "ids", (one_chunk(table["id"]) for table in ids), redirects)
        texts = TableBatches(entities_path, ["label", "description", "types"], advance)
        write_texts(folder, texts, Ids(folder / "ids", num_entities))
        write_word_counts(folder, hasher)
        write_classes(folder, classes, Ids(folder / "ids", num_entities))
    with clock.stage("taking the fingerprint", num_entities + num_names) as advance:
        fingerprint = _fingerprint(names_path, entities_path, advance)
    return Merged(
        num_entities=num_entities,
        num_names=num_names,
        seed=hasher.seed,
        index=index,
        fingerprint=fingerprint,
        seconds=clock.seconds,
    )


class _Clock:
    """Shows the stages on the terminal and measures them."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, title: str, total: int | None = None) -> Iterator[Advance]:
        """Yields a function that counts rows, of which about `total` are expected."""
        start = time.monotonic()
        with progress(title, total=total, unit="rows") as bar:
            yield bar.advance
        self.seconds[title] = round(time.monotonic() - start, 3)


def _write_index(
    folder: Path, names: Path, num_names: int, advance: Advance
) -> tuple[Hasher, IndexSummary]:
    for seed in range(_MAX_SEEDS):
        hasher = Hasher(seed)
        builder = IndexBuilder(folder, hasher, num_names=num_names)
        for table in TableBatches(names, ["key", "spelling", "entity", "weight"], advance):
            builder.add(table)
        try:
            return hasher, builder.finish()
        except HashCollision:
            continue
    raise InputError(
        f"Different names have equal hashes under all of {_MAX_SEEDS} seeds; "
        "look for names of thousands of characters and remove them."
    )


def _fingerprint(names: Path, entities: Path, advance: Advance) -> str:
    """Returns a hash of everything that a linker or labeller uses, the same for equal content."""
    digest = hashlib.sha256()
    for path, columns in (
        (entities, ["id", "label", "description", "types", "image"]),
        (names, ["key", "raw", "spelling", "entity", "weight"]),
    ):
        for table in TableBatches(path, columns, advance):
            for name in columns:
                _digest(one_chunk(table[name]), digest)
    return digest.hexdigest()[:16]


def _digest(values: pa.Array, digest: "hashlib._Hash") -> None:
    """Adds numbers, or texts or lists with their lengths."""
    if pa.types.is_list(values.type):
        digest.update(pc.list_value_length(values).to_numpy())
        _digest(values.flatten(), digest)
    elif pa.types.is_string(values.type):
        offsets, data = string_buffers(values.cast(pa.large_string()))
        digest.update(np.diff(offsets).tobytes())
        digest.update(data[offsets[0] : offsets[-1]].tobytes())
    else:
        digest.update(values.to_numpy())
