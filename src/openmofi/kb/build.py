"""Builds a knowledge base from dumps and catalogues.

In: paths of Wikidata dumps (.json, .json.gz, .json.bz2, .json.zst) and catalogues (.csv, .tsv),
which may also be compressed. Out: a folder with meta.json, entities.parquet, names.parquet,
index/*.npy, rejects.jsonl and card.json, which appears under its name only when it is complete.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from openmofi import __version__
from openmofi.config import KBSettings, as_dict
from openmofi.errors import InputError
from openmofi.folders import check_replaceable, new_folder
from openmofi.kb.catalogue import find_id_column, read_catalogue, read_header
from openmofi.kb.dump import read_dump
from openmofi.kb.hashing import HASH_VERSION
from openmofi.kb.merge import Merged, Records, merge
from openmofi.kb.records import EntityRecord, Rejection
from openmofi.kb.records import Records as RecordStream
from openmofi.kb.text import CANONICAL_VERSION
from openmofi.progress import progress

FORMAT = "openmofi-kb"
FORMAT_VERSION = 1
_READERS: dict[str, Callable[[Path, KBSettings], RecordStream]] = {
    ".json": read_dump,
    ".csv": read_catalogue,
    ".tsv": read_catalogue,
}
_COMPRESSIONS = (".gz", ".bz2", ".zst")
_ADVANCE_EVERY = 1000


@dataclass(frozen=True)
class SourceSummary:
    """What one source gave."""

    path: str
    kind: str
    """dump or catalogue."""
    entities: int
    rejected: dict[str, int]
    note: str = ""
    """A choice made for the user, such as the column taken for ids."""


@dataclass(frozen=True)
class BuildSummary:
    """What a build gave."""

    out: Path
    entities: int
    names: int
    rejected: dict[str, int]
    """Lines that gave no entity, by reason, over all sources."""
    sources: list[SourceSummary] = field(default_factory=list)


@dataclass
class _Source:
    """A source while it is read."""

    path: Path
    kind: str
    note: str
    entities: int = 0
    rejected: Counter[str] = field(default_factory=Counter)

    def summary(self) -> SourceSummary:
        rejected = dict(sorted(self.rejected.items()))
        return SourceSummary(str(self.path), self.kind, self.entities, rejected, self.note)


def build_kb(
    sources: Sequence[Path | str] | Path | str,
    *,
    out: Path | str,
    settings: KBSettings | None = None,
) -> BuildSummary:
    """Builds a knowledge base and replaces the one at `out`, if any, at the very end.

    Entities with equal ids in several sources are merged: their names are united, the label is
    the first source's, and what the first source lacks is taken from the next.

    Raises:
        InputError: a source is missing, of an unknown kind or without entities, or `out` is
            something else than a knowledge base.
    """
    settings = settings or KBSettings()
    paths = [Path(sources)] if isinstance(sources, (str, Path)) else [Path(s) for s in sources]
    opened = [_open_source(path, settings) for path in paths]
    out = Path(out)
    check_replaceable(out, _is_kb, "a knowledge base")
    with new_folder(out) as partial:
        summary = _build(opened, partial, out, settings)
        # Again: something else may have appeared there during hours of reading.
        check_replaceable(out, _is_kb, "a knowledge base")
    return summary


def _open_source(path: Path, settings: KBSettings) -> _Source:
    """Checks what can be checked before hours of reading.

    Raises:
        InputError: the source is missing or of an unknown kind.
    """
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise InputError(
            f"{path} {what}; expected a Wikidata dump (.json.gz) or a catalogue (.csv)."
        )
    if _suffix(path) not in _READERS:
        raise InputError(
            f"{path} ends in {path.suffix!r}; expected .json (also .gz, .bz2, .zst) for a "
            "Wikidata dump, or .csv or .tsv for a catalogue."
        )
    if _suffix(path) == ".json":
        return _Source(path, "dump", "")
    id_column = find_id_column(path, read_header(path)[0], settings.id_column)
    note = "" if id_column == settings.id_column else f"took the column {id_column!r} for ids"
    return _Source(path, "catalogue", note)


def _suffix(path: Path) -> str:
    suffixes = path.suffixes
    if suffixes and suffixes[-1] in _COMPRESSIONS:
        suffixes = suffixes[:-1]
    return suffixes[-1] if suffixes else ""


def _build(sources: list[_Source], folder: Path, out: Path, settings: KBSettings) -> BuildSummary:
    records = Records()
    with (folder / "rejects.jsonl").open("w", encoding="utf-8") as rejects:
        for number, source in enumerate(sources):
            _read_source(source, number, records, rejects, settings)
        if not records.count:
            raise _nothing_found(sources)
        merged = merge(records, sources=[s.path.name for s in sources], settings=settings)
        for number, line, identifier in merged.duplicates:
            sources[number].entities -= 1
            _refuse(sources[number], Rejection("duplicate_id", line, identifier), rejects)
    rejected = sum((source.rejected for source in sources), Counter())
    summary = BuildSummary(
        out=out,
        entities=len(merged.entities),
        names=len(merged.names),
        rejected=dict(sorted(rejected.items())),
        sources=[source.summary() for source in sources],
    )
    _write(merged, summary, folder, settings)
    return summary


def _read_source(
    source: _Source, number: int, records: Records, rejects: TextIO, settings: KBSettings
) -> None:
    read = _READERS[_suffix(source.path)]
    limit = settings.max_entities if source.kind == "dump" else None
    with progress(f"reading {source.path.name}", unit="entities") as bar:
        for count, record in enumerate(read(source.path, settings), 1):
            if isinstance(record, EntityRecord):
                records.add(record, number)
                source.entities += 1
            else:
                _refuse(source, record, rejects)
            if count % _ADVANCE_EVERY == 0:
                bar.advance(_ADVANCE_EVERY)
            if source.entities == limit:
                break


def _refuse(source: _Source, rejection: Rejection, rejects: TextIO) -> None:
    source.rejected[rejection.reason] += 1
    line = {"source": str(source.path), "line": rejection.line, "reason": rejection.reason}
    json.dump({**line, "text": rejection.text}, rejects, ensure_ascii=False)
    rejects.write("\n")


def _nothing_found(sources: list[_Source]) -> InputError:
    paths = ", ".join(str(source.path) for source in sources) or "The list of sources"
    rejected = sum((source.rejected for source in sources), Counter())
    reasons = ", ".join(f"{reason}: {count}" for reason, count in rejected.most_common())
    found = f"only lines that give none ({reasons})" if reasons else "no lines"
    return InputError(
        f"{paths} has no entity to name, {found}; expected items with labels in one of the "
        "chosen --languages, or a catalogue with names."
    )


def _write(merged: Merged, summary: BuildSummary, folder: Path, settings: KBSettings) -> None:
    pq.write_table(merged.entities, folder / "entities.parquet", compression="zstd")
    pq.write_table(merged.names, folder / "names.parquet", compression="zstd")
    merged.index.save(folder / "index")
    for name, array in merged.ids.items():
        np.save(folder / "index" / f"{name}.npy", array)
    meta = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "canonical_version": CANONICAL_VERSION,
        "hash_version": HASH_VERSION,
        "seed": merged.seed,
        "entities": summary.entities,
        "names": summary.names,
        "keys": merged.num_keys,
        "max_tokens": merged.max_tokens,
        "fingerprint": _fingerprint(merged),
    }
    card = {
        "openmofi": __version__,
        "inputs": [_input_card(source) for source in summary.sources],
        "settings": as_dict(settings),
        "entities": summary.entities,
        "names": summary.names,
        "rejected": summary.rejected,
        "names_without_words": merged.num_nameless,
    }
    _write_json(folder / "card.json", card)
    _write_json(folder / "meta.json", meta)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _input_card(source: SourceSummary) -> dict[str, Any]:
    size = Path(source.path).stat().st_size
    return {
        "path": source.path,
        "kind": source.kind,
        "bytes": size,
        "entities": source.entities,
        "rejected": source.rejected,
        "note": source.note,
    }


def _fingerprint(merged: Merged) -> str:
    """Returns a hash of all that a linker or labeller can see; equal inputs give equal ones."""
    digest = hashlib.sha256()
    index = merged.index
    for array in (index.hashes, index.offsets, index.rows, index.weights, *merged.ids.values()):
        digest.update(np.ascontiguousarray(array).data)
    for name in ("label", "description"):
        for chunk in merged.entities[name].chunks:
            digest.update(pa.concat_arrays([chunk]).buffers()[2] or b"")
    return digest.hexdigest()[:16]


def _is_kb(folder: Path) -> bool:
    try:
        return json.loads((folder / "meta.json").read_text())["format"] == FORMAT
    except (OSError, ValueError, TypeError, KeyError):
        return False
