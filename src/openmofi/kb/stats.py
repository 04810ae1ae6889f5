"""Statistics of a knowledge base: kinds, languages, ambiguity, types, bytes."""

import tempfile
from dataclasses import dataclass
from typing import Any

from openmofi.kb.store import KnowledgeBase

_MOST = 12
_LIMITS = {"memory_limit": "600MB", "threads": 2}


@dataclass(frozen=True)
class KBStats:
    """Counts over a whole knowledge base."""

    entities: int
    names: int
    keys: int
    """Different canonical names."""
    ambiguous_keys: int
    """Canonical names of several entities."""
    described: int
    """Entities with a description."""
    with_image: int
    with_article: int
    """Entities with an English Wikipedia title."""
    anchored: int
    """Names with link counts."""
    bytes: dict[str, int]
    """Size on disk, by part."""
    kinds: dict[str, int]
    languages: dict[str, int]
    """Names by language, the most frequent only."""
    sitelinks: dict[str, int]
    """Entities by number of sitelinks."""
    sources: dict[str, int]
    types: list[tuple[str, str, int]]
    """(type, its label, number of entities), the most frequent only."""
    most_ambiguous: list[tuple[str, int]]
    """(canonical name, number of entities)."""


def kb_stats(kb: KnowledgeBase) -> KBStats:
    """Counts the content of a knowledge base; streams its tables, in little memory."""
    import duckdb

    with tempfile.TemporaryDirectory() as spill:
        connection = duckdb.connect(config={**_LIMITS, "temp_directory": spill})
        files = {name: str(kb.path / f"{name}.parquet") for name in ("entities", "names")}
        for name, path in files.items():
            connection.from_parquet(path).create_view(name)

        def ask(query: str) -> list[tuple[Any, ...]]:
            return connection.execute(query).fetchall()

        keys = "(select key, count(*) as n from names group by key)"
        [(num_keys, ambiguous)] = ask(f"select count(*), coalesce(count_if(n > 1), 0) from {keys}")
        [(described, image, article)] = ask(
            "select coalesce(count_if(description != ''), 0), coalesce(count_if(image != ''), 0),"
            " coalesce(count_if(enwiki != ''), 0)"
            " from entities"
        )
        [(anchored,)] = ask("select coalesce(count_if(count > 0), 0) from names")
        types = ask(
            "select t, count(*) as n from (select unnest(types) as t from entities)"
            f" group by t order by n desc, t limit {_MOST}"
        )
        rows = {name: kb.row_of(name) for name, _ in types}
        labels = {
            name: kb.texts.label[row].as_py() for name, row in rows.items() if row is not None
        }
        sizes = {
            part.name: sum(f.stat().st_size for f in (part, *part.rglob("*")) if f.is_file())
            for part in sorted(kb.path.iterdir())
        }
        return KBStats(
            entities=len(kb),
            names=kb.meta["names"],
            keys=num_keys,
            ambiguous_keys=ambiguous,
            described=described,
            with_image=image,
            with_article=article,
            anchored=anchored,
            bytes=sizes,
            kinds=dict(ask("select kind, count(*) as n from names group by kind order by n desc")),
            languages=dict(
                ask(
                    "select language, count(*) as n from names group by language"
                    f" order by n desc, language limit {_MOST}"
                )
            ),
            sitelinks=dict(ask(_BY_SITELINKS)),
            sources=dict(
                ask("select source, count(*) as n from entities group by source order by n")
            ),
            types=[(name, labels.get(name, ""), count) for name, count in types],
            most_ambiguous=ask(
                f"select key, n from {keys} where n > 1 order by n desc, key limit {_MOST}"
            ),
        )


_BY_SITELINKS = """
select case when sitelinks = 0 then '0' when sitelinks < 10 then '1-9'
            when sitelinks < 100 then '10-99' else '100+' end as bucket, count(*)
from entities group by bucket order by min(sitelinks)
"""
