"""What a knowledge base can be built from: finds out the kind of each source and its reader.

In: paths, "-" for a dump on standard input, or WordNet's folder. Out: Sources, checked as far as
that is possible before hours of reading.
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path

from openmofi.config import KBSettings
from openmofi.errors import InputError
from openmofi.files.lines import STDIN, content_suffix
from openmofi.kb.read.catalogue import (
    CATALOGUE_SUFFIXES,
    column_names,
    find_id_column,
    read_catalogue,
)
from openmofi.kb.read.parts import PartFiles
from openmofi.kb.read.wordnet import COUNTS, find_nouns, read_wordnet
from openmofi.kb.read.write_parts import read_catalogue_parts, read_dump_parts


@dataclass(frozen=True)
class SourceSummary:
    """What one source gave."""

    path: str
    kind: str
    """dump, catalogue or wordnet."""
    entities: int
    rejected: dict[str, int]
    note: str = ""
    """A choice made for the user, such as the column taken for ids."""


@dataclass
class Source:
    """A source of a build."""

    path: Path
    kind: str
    note: str = ""
    num_entities: int = 0
    rejected: dict[str, int] = field(default_factory=dict)

    def read(self, files: PartFiles, settings: KBSettings) -> None:
        """Writes the part files of this source."""
        if self.kind == "dump":
            read_dump_parts(self.path, files, settings)
        else:
            wordnet = self.kind == "wordnet"
            reader = read_wordnet(self.path, settings.preset) if wordnet else None
            read_catalogue_parts(self.path, reader or read_catalogue(self.path, settings), files)
        self.num_entities = files.done.num_entities
        self.rejected = dict(files.done.refused)

    def summary(self) -> SourceSummary:
        """Returns the counts."""
        rejected = dict(sorted(self.rejected.items()))
        return SourceSummary(str(self.path), self.kind, self.num_entities, rejected, self.note)


def open_source(path: Path, settings: KBSettings) -> Source:
    """Returns a source that looks readable.

    Raises:
        InputError: it is missing, of an unknown kind, or lacks the columns of a catalogue; or
            standard input is closed.
    """
    if str(path) == STDIN:
        if sys.stdin is None:
            raise InputError(
                "Standard input is closed, but - reads a dump from it; expected one, as in: "
                "zcat dump.json.gz | openmofi kb build - --out kb"
            )
        return Source(path, "dump")
    if nouns := find_nouns(path):
        lacking = "" if nouns.with_name(COUNTS).is_file() else f"; without counts: no {COUNTS}"
        return Source(nouns, "wordnet", f"the nouns of WordNet{lacking}")
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise InputError(
            f"{path} {what}; expected a Wikidata dump (.json.gz), a catalogue (.csv) or "
            "the folder of WordNet's database files (with data.noun)."
        )
    suffix = content_suffix(path)
    if suffix == ".json":
        return Source(path, "dump")
    if suffix not in CATALOGUE_SUFFIXES:
        raise InputError(
            f"{path} ends in {path.suffix!r}; expected .json (also .gz, .bz2, .zst) for a "
            "Wikidata dump, or .csv, .tsv, .jsonl or .parquet for a catalogue."
        )
    id_column = find_id_column(path, column_names(path), settings.id_column)
    note = "" if id_column == settings.id_column else f"took the column {id_column!r} for ids"
    return Source(path, "catalogue", note)
