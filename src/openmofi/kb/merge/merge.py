"""Merges the parts of all sources into the tables and arrays of a knowledge base, in flat memory.

In: part files. Out: entities.parquet, names.parquet, index/, ids/, texts/, words/ in a folder.
DuckDB sorts, NumPy decides, and everything else streams: memory is DuckDB's limit, a few batches,
and 12 bytes an entity.
"""

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from openmofi.config import KBSettings
from openmofi.errors import InputError
from openmofi.kb.hashing import Hasher
from openmofi.kb.ids import Ids, write_ids
from openmofi.kb.index import HashCollision, IndexBuilder, IndexSummary
from openmofi.kb.merge.entity_table import write_entities
from openmofi.kb.merge.links import Links
from openmofi.kb.merge.name_table import write_names
from openmofi.kb.merge.ranking import rank
from openmofi.kb.merge.sorting import Database
from openmofi.kb.read.parts import PartFiles
from openmofi.kb.texts import write_texts
from openmofi.kb.words import write_word_counts
from openmofi.progress import progress

# Seeds to try; two of 100 million names collide with probability 3e-4 per seed.
_MAX_SEEDS = 8


@dataclass
class Merged:
    """What a merge wrote."""

    num_entities: int
    num_names: int
    seed: int
    index: IndexSummary
    fingerprint: str
    seconds: dict[str, float] = field(default_factory=dict)
    """By stage."""


class TableBatches:
    """The columns of a Parquet file, row group by row group, as often as asked for."""

    def __init__(self, path: Path, columns: list[str]):
        self._path, self._columns = path, columns

    def __iter__(self) -> Iterator[pa.Table]:
        with pq.ParquetFile(self._path) as file:
            for i in range(file.num_row_groups):
                yield file.read_row_group(i, columns=self._columns)


def merge(
    parts: Sequence[PartFiles],
    links: Links,
    *,
    sources: Sequence[str],
    folder: Path,
    work: Path,
    settings: KBSettings,
    refuse: Callable[[int, int, str], None],
) -> Merged:
    """Writes the tables and arrays.

    Args:
        parts: what was read, source by source.
        links: the user's files.
        sources: names of the sources.
        folder: to be filled.
        work: for temporary files.
        settings: weights.
        refuse: called with source number, line and id of every record whose id was given before.

    Raises:
        InputError: a decision names an unknown id, or names collide under every seed, which
            honest data cannot do.
    """
    clock = _Clock()
    with Database(work) as database:
        with clock.stage("ranking entities"):
            ranking = rank(parts, database, work, settings.prior_gamma)
        with clock.stage("resolving links"):
            links.resolve(parts, ranking, database)
            redirects = links.redirects(database)
            rows = links.rows(database, work)
        names_path, entities_path = folder / "names.parquet", folder / "entities.parquet"
        with clock.stage("sorting names"):
            num_aliases = write_names(names_path, parts, rows, ranking, database, settings)
        with clock.stage("sorting entities"):
            write_entities(
                entities_path, parts, ranking, num_aliases, database, sources=sources, refuse=refuse
            )
    num_entities = len(ranking)
    del ranking, num_aliases
    with clock.stage("indexing names"):
        hasher, index = _write_index(folder / "index", names_path)
    with clock.stage("storing ids and texts"):
        ids = (table["id"].combine_chunks() for table in TableBatches(entities_path, ["id"]))
        write_ids(folder / "ids", map(_one_chunk, ids), redirects)
        columns = ["label", "description", "types"]
        texts = TableBatches(entities_path, columns)
        write_texts(folder, texts, Ids(folder / "ids", num_entities))
        write_word_counts(folder, hasher)
    return Merged(
        num_entities=num_entities,
        num_names=pq.read_metadata(names_path).num_rows,
        seed=hasher.seed,
        index=index,
        fingerprint=_fingerprint(names_path, entities_path),
        seconds=clock.seconds,
    )


def _one_chunk(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if isinstance(column, pa.ChunkedArray) else column


class _Clock:
    """Names the stages on the terminal and measures them."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, title: str) -> Iterator[None]:
        start = time.monotonic()
        with progress(title, unit="stages"):
            yield
        self.seconds[title] = round(time.monotonic() - start, 3)


def _write_index(folder: Path, names: Path) -> tuple[Hasher, IndexSummary]:
    num_names = pq.read_metadata(names).num_rows
    for seed in range(_MAX_SEEDS):
        hasher = Hasher(seed)
        builder = IndexBuilder(folder, hasher, num_names=num_names)
        for table in TableBatches(names, ["key", "raw", "entity", "weight"]):
            builder.add(table)
        try:
            return hasher, builder.finish()
        except HashCollision:
            continue
    raise InputError(
        f"Different names have equal hashes under all of {_MAX_SEEDS} seeds; "
        "look for names of thousands of characters and remove them."
    )


def _fingerprint(names: Path, entities: Path) -> str:
    """Returns a hash of all that a linker or labeller can see; equal inputs give equal ones."""
    digest = hashlib.sha256()
    for path, texts, numbers in (
        (entities, ("id", "label", "description"), ()),
        (names, ("key",), ("entity", "weight")),
    ):
        for table in TableBatches(path, [*texts, *numbers]):
            for name in texts:
                for chunk in table[name].chunks:
                    _, offsets, data = pa.concat_arrays([chunk]).buffers()
                    digest.update(memoryview(offsets)[: 4 * (len(chunk) + 1)])
                    digest.update(data or b"")
            for name in numbers:
                digest.update(table[name].to_numpy())
    return digest.hexdigest()[:16]
