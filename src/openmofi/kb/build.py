"""Builds a knowledge base from dumps and catalogues.

In: paths of Wikidata dumps (.json, .json.gz, .json.bz2, .json.zst, or - for standard input) and
catalogues (.csv, .tsv, .jsonl, .parquet; all but Parquet may be compressed), and perhaps an older
knowledge base. Out: a folder with meta.json, entities.parquet, names.parquet, index/, ids/, texts/,
words/, rejects.jsonl and card.json, which gets its name only when it is complete. A killed build
leaves `.NAME.parts` next to it, from which the same command continues.
"""

import json
import resource
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from openmofi import __version__
from openmofi.arrays.hashing import HASH_VERSION
from openmofi.config import KBSettings, as_dict
from openmofi.errors import InputError
from openmofi.files.folders import check_replaceable, local_path, new_folder
from openmofi.kb.format import FORMAT, FORMAT_VERSION
from openmofi.kb.merge.links import LinkSources
from openmofi.kb.merge.merge import Merged, merge
from openmofi.kb.read.decode import SEVERAL
from openmofi.kb.read.existing import KeptEntities, check_onto, keep_entities
from openmofi.kb.read.parts import PartFiles
from openmofi.kb.read.pool import num_workers
from openmofi.kb.read.sources import Source, SourceSummary, open_source
from openmofi.kb.read.work_folder import open_work
from openmofi.kb.store import KnowledgeBase
from openmofi.kb.text import CANONICAL_VERSION


@dataclass(frozen=True)
class BuildSummary:
    """The result of a build."""

    out: Path
    entities: int
    names: int
    rejected: dict[str, int]
    """Number of lines that gave no entity, by reason, over all sources."""
    sources: list[SourceSummary] = field(default_factory=list)
    links: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Counts of the lines of --redirects and --anchors."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Duration by stage."""
    kept: int = 0
    """Entities of the knowledge base that this one was built onto."""
    replaced: int = 0
    """Entities of it of which a source has the id."""
    peak_memory: int = 0
    """Bytes of resident memory: the peak of this process, plus that of its largest worker times
    the number of workers."""


def build_kb(
    sources: Sequence[Path | str] | Path | str,
    *,
    out: Path | str,
    settings: KBSettings | None = None,
    onto: Path | str | None = None,
) -> BuildSummary:
    """Builds a knowledge base and, at the very end, replaces the one at `out`, if any.

    Entities with equal ids in several sources are merged: they get the names of all, the label of
    the first source, and every other field from the first source that has it. If the same build
    was killed before, what it has read is not read again.

    Args:
        sources: dumps, catalogues and WordNet's folder.
        out: the folder to write.
        settings: see `config.KBSettings`.
        onto: a knowledge base whose other entities are kept; it may be `out` itself. The result is
            that of a build from its sources, without the entities that the new sources have,
            followed by the new ones; docs/linking.md says where it cannot be.

    Raises:
        InputError: a source is missing, of an unknown kind or without entities, a file named in
            the settings is invalid, `out` is not a knowledge base, or another build is writing it.
        MismatchError: `onto` was built with other settings.
    """
    out, settings = local_path(out), settings or KBSettings()
    paths = [Path(sources)] if isinstance(sources, (str, Path)) else [Path(s) for s in sources]
    opened = [open_source(path, settings) for path in paths]
    links = LinkSources(settings)
    base = None if onto is None else KnowledgeBase.open(onto)
    if base is not None:
        check_onto(base, settings)
    check_replaceable(out, _is_kb, "a knowledge base")
    with open_work(out, [source.path for source in opened], settings) as work:
        seconds = {}
        start = time.monotonic()
        parts = [PartFiles(work / str(number)) for number in range(len(opened))]
        for source, files in zip(opened, parts, strict=True):
            source.read(files, settings)
        if not any(source.num_entities for source in opened):
            raise _nothing_found(opened, settings)
        seconds["reading"] = round(time.monotonic() - start, 3)
        with new_folder(out) as partial:
            kept = None if base is None else keep_entities(base, parts, settings)
            summary = _build(opened, parts, links, partial, work, settings, seconds, kept)
            summary = replace(summary, out=out)
            # Again: something else may have appeared there during hours of reading.
            check_replaceable(out, _is_kb, "a knowledge base")
    return summary


def _nothing_found(sources: list[Source], settings: KBSettings) -> InputError:
    paths = ", ".join(str(source.path) for source in sources) or "The list of sources"
    rejected = _all_rejected(sources)
    reasons = ", ".join(f"{reason}: {count}" for reason, count in rejected.most_common())
    found = f"only lines that give none ({reasons})" if reasons else "no lines"
    if SEVERAL in rejected:
        return InputError(
            f"{paths} has no entity to name, {found}; expected one entity a line, as in Wikidata's "
            "dumps: put each on a line of its own, for example with: jq -c '.[]'"
        )
    languages = ",".join(settings.languages)
    return InputError(
        f"{paths} has no entity to name, {found}; expected items with labels in one of the "
        f"--languages {languages} that the --preset {settings.preset} keeps, or a catalogue with "
        "names."
    )


def _all_rejected(sources: list[Source]) -> Counter[str]:
    return sum((Counter(source.rejected) for source in sources), Counter())


def _build(
    sources: list[Source],
    parts: list[PartFiles],
    links: LinkSources,
    folder: Path,
    work: Path,
    settings: KBSettings,
    seconds: dict[str, float],
    kept: KeptEntities | None,
) -> BuildSummary:
    """Merges the parts and fills the folder."""
    before = kept.parts if kept else []
    names = [*(kept.sources if kept else []), *(source.path.name for source in sources)]
    with _Rejects(folder / "rejects.jsonl", sources) as rejects:
        for number, files in enumerate(parts):
            for reject in files.rejects():
                rejects.write(number, **reject)
        merged = merge(
            [*before, *parts],
            links,
            sources=names,
            folder=folder,
            work=work / "merge",
            settings=settings,
            refuse=lambda number, line, identifier: rejects.refuse_repeated(
                number - len(before), line, identifier
            ),
        )
    unit = 1 if sys.platform == "darwin" else 1024
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    largest_worker = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    summary = BuildSummary(
        out=folder,
        entities=merged.num_entities,
        names=merged.num_names,
        rejected=dict(sorted(_all_rejected(sources).items())),
        sources=[source.summary() for source in sources],
        links={kind: asdict(counts) for kind, counts in links.counts.items()},
        seconds={**seconds, **merged.seconds},
        kept=kept.kept if kept else 0,
        replaced=kept.replaced if kept else 0,
        peak_memory=unit * (own + largest_worker * num_workers(settings)),
    )
    num_nameless = sum(files.done.num_nameless for files in parts)
    card = _card(summary, settings, num_nameless)
    if kept:
        card["onto"] = kept.card | {"kept": kept.kept, "replaced": kept.replaced}
    _write_json(folder / "card.json", card)
    _write_json(folder / "meta.json", _meta(merged, settings.languages))
    return summary


class _Rejects:
    """Writes rejects.jsonl."""

    def __init__(self, path: Path, sources: list[Source]):
        self._sources = sources
        self._file = path.open("w", encoding="utf-8", errors="replace")

    def __enter__(self) -> "_Rejects":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, number: int, *, line: int, reason: str, text: str) -> None:
        """Writes one refused line of a source."""
        where = {"source": str(self._sources[number].path), "line": line}
        json.dump({**where, "reason": reason, "text": text}, self._file, ensure_ascii=False)
        self._file.write("\n")

    def refuse_repeated(self, number: int, line: int, identifier: str) -> None:
        """Refuses a record whose id occurred earlier in the same source."""
        source = self._sources[number]
        source.num_entities -= 1
        source.rejected["duplicate_id"] = source.rejected.get("duplicate_id", 0) + 1
        self.write(number, line=line, reason="duplicate_id", text=identifier)


def _meta(merged: Merged, languages: Sequence[str]) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "canonical_version": CANONICAL_VERSION,
        "hash_version": HASH_VERSION,
        "seed": merged.seed,
        "languages": list(languages),
        "entities": merged.num_entities,
        "names": merged.num_names,
        "keys": merged.index.num_keys,
        "max_tokens": merged.index.max_tokens,
        "fingerprint": merged.fingerprint,
    }


def _card(summary: BuildSummary, settings: KBSettings, num_nameless: int) -> dict[str, Any]:
    inputs = []
    for source in summary.sources:
        path = Path(source.path)
        inputs.append(
            {
                "path": source.path,
                "kind": source.kind,
                "bytes": path.stat().st_size if path.is_file() else None,
                "entities": source.entities,
                "rejected": source.rejected,
                "note": source.note,
            }
        )
    return {
        "openmofi": __version__,
        "inputs": inputs,
        "links": summary.links,
        "settings": as_dict(settings),
        "entities": summary.entities,
        "names": summary.names,
        "rejected": summary.rejected,
        "names_without_words": num_nameless,
        "seconds": summary.seconds,
        "peak_memory_bytes": summary.peak_memory,
    }


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _is_kb(folder: Path) -> bool:
    try:
        return json.loads((folder / "meta.json").read_text())["format"] == FORMAT
    except (OSError, ValueError, TypeError, KeyError):
        return False
