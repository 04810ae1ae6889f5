"""What the user's files add about names: merged ids, counted links, decisions.

In: the lines of `link_files.py`, the rows of entities. Out: the rows that these lines refer to,
joined by DuckDB, because neither the ids of all entities nor all links of a Wikipedia fit into
memory.
"""

from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from openmofi.arrays.mapped import one_chunk
from openmofi.config import KBSettings
from openmofi.errors import InputError
from openmofi.kb.merge.link_files import (
    ANCHORS,
    REDIRECTS,
    REMOVE,
    LinkCounts,
    anchor_batches,
    read_decisions,
    redirect_batches,
)
from openmofi.kb.merge.name_table import REMOVED, SORTED_NAMES
from openmofi.kb.merge.ranking import Ranking
from openmofi.kb.merge.sorting import Database
from openmofi.kb.read.parts import KINDS, PartFiles

_LANGUAGE = "und"  # ISO 639-2: undetermined
_KNOWN = pa.schema([("name", pa.string()), ("row", pa.int32())])
# A redirect may lead to a redirect; bots keep Wikidata free of longer chains.
_MAX_HOPS = 3


class LinkSources:
    """The user's files; resolved when the rows of entities are known."""

    def __init__(self, settings: KBSettings):
        """Checks the files.

        Raises:
            InputError: one is missing, or a line of --overrides is wrong.
        """
        self._redirects = _existing(settings.redirects, "--redirects", "from<TAB>to")
        self._anchors = _existing(
            settings.anchors, "--anchors", "text<TAB>article title or id<TAB>count"
        )
        overrides = _existing(settings.overrides, "--overrides", "name<TAB>id<TAB>p")
        self._overrides = overrides
        self._decisions = read_decisions(overrides) if overrides else []
        self.counts: dict[str, LinkCounts] = {}
        """By kind of file."""

    def resolve(self, parts: Sequence[PartFiles], ranking: Ranking, database: Database) -> None:
        """Creates tables of all ids, article titles and redirects, with their rows."""
        if not (self._redirects or self._anchors or self._decisions):
            return
        _create_known(database, parts, ranking, "id", "ids")
        if self._anchors:
            _create_known(database, parts, ranking, "enwiki", "titles")
        counts = LinkCounts()
        lines = redirect_batches(self._redirects, counts) if self._redirects else iter(())
        database.create("raw_redirects", lines, REDIRECTS)
        # A table (old, row) of redirects that lead to a known entity, directly or by others.
        database.execute(
            """CREATE TABLE redirects AS
            SELECT old, min(row) AS row FROM raw_redirects JOIN ids ON ids.name = new
            WHERE old NOT IN (SELECT name FROM ids) GROUP BY old"""
        )
        for _ in range(_MAX_HOPS):
            database.execute(
                """INSERT INTO redirects
                SELECT further.old, min(row) FROM raw_redirects AS further
                JOIN redirects ON redirects.old = further.new
                WHERE further.old NOT IN (SELECT old FROM redirects)
                AND further.old NOT IN (SELECT name FROM ids) GROUP BY further.old"""
            )
        if self._redirects:
            self.counts["redirects"] = counts
            counts.resolved = _count(database, "SELECT count(*) FROM redirects")
            old = "SELECT count(DISTINCT old) FROM raw_redirects"
            counts.still_entities = _count(database, f"{old} WHERE old IN (SELECT name FROM ids)")
            counts.unresolved = _count(database, old) - counts.resolved - counts.still_entities

    def redirects(self, database: Database) -> tuple[pa.Array, np.ndarray] | None:
        """Returns old ids and the row of each, in byte order."""
        if not self._redirects:
            return None
        batches = list(database.query("SELECT old, row FROM redirects ORDER BY old"))
        table = pa.Table.from_batches(batches) if batches else pa.table({"old": [], "row": []})
        return one_chunk(table["old"].cast(pa.string())), table["row"].to_numpy().astype(np.int64)

    def rows(self, database: Database, folder: Path) -> Iterator[pa.RecordBatch]:
        """Returns rows of `name_table.SORTED_NAMES` for the table of names.

        Args:
            database: the database in which `resolve` has created its tables.
            folder: folder for a temporary file.

        Raises:
            InputError: a decision names an unknown id.
        """
        # All queries are made here, because DuckDB accepts none while it reads a stream.
        decided = [self._decided(database)] if self._decisions else []
        path = folder / "anchors.arrow"
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, SORTED_NAMES) as writer:
            for batch in self._linked(database, self._anchors) if self._anchors else ():
                writer.write_batch(batch)
        return chain(decided, _stored(path))

    def _linked(self, database: Database, path: Path) -> Iterator[pa.RecordBatch]:
        counts = self.counts["anchors"] = LinkCounts()
        database.create("anchors", anchor_batches(path, counts), ANCHORS)
        # An id counts as an id even if an article has it as its title.
        query = """
            SELECT key, raw, count, line, coalesce(ids.row, redirects.row, titles.row) AS row
            FROM anchors
            LEFT JOIN ids ON ids.name = target
            LEFT JOIN redirects ON redirects.old = target
            LEFT JOIN titles ON titles.name = replace(target, '_', ' ')
        """
        for batch in database.query(query):
            counts.unresolved += batch["row"].null_count
            counts.resolved += len(batch) - batch["row"].null_count
            found = batch.filter(batch["row"].is_valid())
            size = len(found)
            yield pa.RecordBatch.from_pydict(
                {
                    "key": found["key"],
                    "entity": found["row"].cast(pa.int32()),
                    "weight": np.zeros(size),
                    "kind": np.full(size, KINDS.index("anchor"), np.int8),
                    "count": found["count"],
                    "record": found["line"],
                    "position": np.zeros(size, np.int32),
                    "raw": found["raw"],
                    "language": pa.array([_LANGUAGE]).take(pa.array(np.zeros(size, np.int32))),
                    "p": np.full(size, -1.0),
                    "spelling": np.zeros(size, np.int8),
                },
                schema=SORTED_NAMES,
            )

    def _decided(self, database: Database) -> pa.RecordBatch:
        decisions = self._decisions
        wanted = pa.record_batch(
            {"line": [d.line for d in decisions], "id": [d.id for d in decisions]}
        )
        database.create("decisions", [wanted], wanted.schema)
        query = """
            SELECT line, coalesce(ids.row, redirects.row) AS row
            FROM decisions
            LEFT JOIN ids ON ids.name = id
            LEFT JOIN redirects ON redirects.old = id
            ORDER BY line
        """
        rows = [row for batch in database.query(query) for row in batch["row"].to_pylist()]
        for decision, row in zip(decisions, rows, strict=True):
            if row is None and decision.id != REMOVE:
                raise InputError(
                    f"{self._overrides}, line {decision.line}: no entity has the id "
                    f"{decision.id!r}; expected an id of the sources, or - to remove the name."
                )
        return pa.RecordBatch.from_pydict(
            {
                "key": [d.key for d in decisions],
                "entity": [REMOVED if row is None else row for row in rows],
                "weight": [0.0] * len(decisions),
                "kind": [KINDS.index("override")] * len(decisions),
                "count": [0] * len(decisions),
                "record": [d.line for d in decisions],
                "position": [0] * len(decisions),
                "raw": [d.name for d in decisions],
                "language": [_LANGUAGE] * len(decisions),
                "p": [-1.0 if d.id == REMOVE else d.p for d in decisions],
                "spelling": [0] * len(decisions),
            },
            schema=SORTED_NAMES,
        )


def _stored(path: Path) -> Iterator[pa.RecordBatch]:
    with pa.OSFile(str(path)) as file:
        yield from pa.ipc.open_stream(file)


def _existing(path: str | None, flag: str, form: str) -> Path | None:
    if path is None:
        return None
    if not Path(path).is_file():
        raise InputError(f"{flag} {path} is not a file; expected one with lines {form}.")
    return Path(path)


def _create_known(
    database: Database, parts: Sequence[PartFiles], ranking: Ranking, column: str, table: str
) -> None:
    """Creates a table (name, row) of the ids or article titles of all entities."""
    database.create("all_names", _named_rows(parts, ranking, column), _KNOWN)
    database.execute(
        f"CREATE TABLE {table} AS SELECT name, min(row) AS row FROM all_names GROUP BY name"
    )
    database.execute("DROP TABLE all_names")


def _named_rows(
    parts: Sequence[PartFiles], ranking: Ranking, column: str
) -> Iterator[pa.RecordBatch]:
    number = 0
    for files in parts:
        for batch in files.entities():
            row = ranking.row_of_record[number : number + len(batch)]
            number += len(batch)
            named = pa.RecordBatch.from_arrays([batch[column], pa.array(row)], schema=_KNOWN)
            wanted = (row >= 0) & np.array(pc.not_equal(batch[column], ""))
            yield named.filter(pa.array(wanted))


def _count(database: Database, query: str) -> int:
    return next(database.query(query)).column(0)[0].as_py()
