"""What a knowledge base holds, in numbers: kinds, languages, ambiguity, types, bytes."""

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
    """Names of several entities."""
    described: int
    """Entities with a description."""
    with_image: int
    with_article: int
    """Entities with an English Wikipedia title."""
    anchored: int
    """Names with counts of links."""
    bytes: dict[str, int]
    """On disk, by part."""
    kinds: dict[str, int]
    languages: dict[str, int]
    """Names by language, the largest."""
    sitelinks: dict[str, int]
    """Entities by number of sitelinks."""
    sources: dict[str, int]
    types: list[tuple[str, str, int]]
    """(type, its label, entities), the largest."""
    most_ambiguous: list[tuple[str, int]]
    """(canonical name, entities)."""


def kb_stats(kb: KnowledgeBase) -> KBStats:
    """Counts what a knowledge base holds; reads its tables once, in little memory."""
    with tempfile.TemporaryDirectory() as spill:
        return _count(kb, spill)


def _count(kb: KnowledgeBase, spill: str) -> KBStats:
    import duckdb

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
    return KBStats(
        entities=len(kb),
        names=kb.meta["names"],
        keys=num_keys,
        ambiguous_keys=ambiguous,
        described=described,
        with_image=image,
        with_article=article,
        anchored=anchored,
        bytes=_bytes(kb),
        kinds=dict(ask("select kind, count(*) as n from names group by kind order by n desc")),
        languages=dict(
            ask(
                "select language, count(*) as n from names group by language"
                f" order by n desc, language limit {_MOST}"
            )
        ),
        sitelinks=dict(ask(_BY_SITELINKS)),
        sources=dict(ask("select source, count(*) as n from entities group by source order by n")),
        types=[(name, _label(kb, name), count) for name, count in types],
        most_ambiguous=ask(
            f"select key, n from {keys} where n > 1 order by n desc, key limit {_MOST}"
        ),
    )


_BY_SITELINKS = """
select case when sitelinks = 0 then '0' when sitelinks < 10 then '1-9'
            when sitelinks < 100 then '10-99' else '100+' end as bucket, count(*)
from entities group by bucket order by min(sitelinks)
"""


def _bytes(kb: KnowledgeBase) -> dict[str, int]:
    parts = sorted(part for part in kb.path.iterdir())
    return {
        part.name: sum(file.stat().st_size for file in part.rglob("*") if file.is_file())
        if part.is_dir()
        else part.stat().st_size
        for part in parts
    }


def _label(kb: KnowledgeBase, identifier: str) -> str:
    row = kb.row_of(identifier)
    return "" if row is None else kb.texts.label[row].as_py()
