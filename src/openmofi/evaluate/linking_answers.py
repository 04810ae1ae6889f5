"""What a linker says about a benchmark: gold ids that its KB knows, offers for gold spans, finds.

In: gold documents and a linker. Out: gold documents with ids of the knowledge base, the candidates
of every gold span, and the predictions of every document.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc

from openmofi.evaluate.linking_data import GoldDocument, LinkingData
from openmofi.evaluate.linking_metrics import Prediction
from openmofi.kb import KnowledgeBase
from openmofi.link.detectors import MentionDetector
from openmofi.link.disambiguate import HARDLY_EVER
from openmofi.progress import progress

_BATCH = 2048
Span = tuple[int, int, int]
"""Document, start, end."""
Offered = dict[Span, list[dict[str, Any]]]
"""Span -> rows of `schema.CANDIDATES`, best first."""


class Links(Protocol):
    """What is used of `link.Linker`."""

    kb: KnowledgeBase

    def link(self, captions: Any, all_candidates: bool = False) -> pa.Table:
        """Returns `schema.CANDIDATES` of the mentions that it finds."""
        ...

    def link_spans(self, captions: Any, spans: pa.Table, all_candidates: bool = False) -> pa.Table:
        """Returns `schema.CANDIDATES` of given spans (row, start, end); none for unknown names."""
        ...


def with_kb_ids(data: LinkingData, kb: KnowledgeBase) -> list[GoldDocument]:
    """Replaces Wikipedia titles by ids; an unknown title becomes an id that no KB has."""
    if data.ids == "kb":
        return list(data.documents)
    titles = {m.id for d in data.documents for m in d.mentions if m.id is not None}
    ids = _ids_of_titles(kb, {_title(title) for title in titles})

    def resolve(title: str | None) -> str | None:
        return title and ids.get(_title(title), f"enwiki:{title}")

    return [
        replace(d, mentions=tuple(replace(m, id=resolve(m.id)) for m in d.mentions))
        for d in data.documents
    ]


def _title(text: str) -> str:
    """Returns a title as Wikipedia writes it: spaces, and a capital first."""
    text = text.replace("_", " ").strip()
    return text[:1].upper() + text[1:]


def _ids_of_titles(kb: KnowledgeBase, titles: set[str]) -> dict[str, str]:
    columns = kb.entities(["enwiki", "id"])
    wanted = pa.array(sorted(titles), pa.string())
    rows = columns.filter(pc.is_in(columns["enwiki"], value_set=wanted)).to_pylist()
    # The first row is the most popular one, should two entities claim one article.
    return {row["enwiki"]: row["id"] for row in reversed(rows)}


def sitelinks_of(kb: KnowledgeBase, identifiers: Iterable[str | None]) -> dict[str, int]:
    """Returns the sitelinks of those entities that the knowledge base holds."""
    rows = {id_: kb.row_of(id_) for id_ in dict.fromkeys(identifiers) if id_ is not None}
    held = {id_: row for id_, row in rows.items() if row is not None}
    wanted = pa.array(list(held.values()), pa.int64())
    counts = kb.entities(["sitelinks"])["sitelinks"].take(wanted).to_pylist()
    return {id_: count or 0 for id_, count in zip(held, counts, strict=True)}


def gold_ids(documents: Sequence[GoldDocument]) -> set[str | None]:
    """Returns the ids that the documents' mentions and questions ask for."""
    asked = {d.entity.id for d in documents if d.entity}
    return asked | {m.id for d in documents for m in d.mentions}


def outside_as_nil(document: GoldDocument, known: dict[str, int]) -> GoldDocument:
    """Takes mentions of entities that the knowledge base lacks for mentions without an entity."""
    mentions = (m if m.id in known else replace(m, id=None) for m in document.mentions)
    return replace(document, mentions=tuple(mentions))


# ---- linking ------------------------------------------------------------------------------------


def run_linker(
    linker: Links, documents: Sequence[GoldDocument], detector: MentionDetector | None, title: str
) -> tuple[Offered, list[list[Prediction]]]:
    """Returns the candidates of every gold span, and the predictions of every document."""
    offered: Offered = {}
    predicted: list[list[Prediction]] = [[] for _ in documents]
    with progress(f"link {title}", total=len(documents), unit="documents") as bar:
        for at in range(0, len(documents), _BATCH):
            part = documents[at : at + _BATCH]
            texts = [d.text for d in part]
            gold = linker.link_spans(texts, _gold_spans(part), all_candidates=True)
            for (row, start, end), candidates in _grouped(gold):
                offered[at + row, start, end] = candidates
            for (row, start, end), candidates in _grouped(_found(linker, texts, detector)):
                best = candidates[0]
                if detector is None and _means_nothing(candidates):
                    continue
                predicted[at + row].append(
                    Prediction(start, end, best["id"], len(candidates), best["score"])
                )
            bar.advance(len(part))
    return offered, predicted


def _means_nothing(candidates: list[dict[str, Any]]) -> bool:
    """Says whether `Linker.link` leaves a mention out where only the best is asked for."""
    nil = 1 - sum(candidate["score"] for candidate in candidates)
    return candidates[0]["score"] < nil or candidates[0]["case"] == HARDLY_EVER


def _found(linker: Links, texts: list[str], detector: MentionDetector | None) -> pa.Table:
    if detector is None:
        return linker.link(texts, all_candidates=True)
    spans = detector.detect(pa.array(texts, pa.string())).select(["row", "start", "end"])
    return linker.link_spans(texts, _distinct(spans), all_candidates=True)


def _gold_spans(documents: Sequence[GoldDocument]) -> pa.Table:
    spans = [(row, m.start, m.end) for row, d in enumerate(documents) for m in d.mentions]
    columns = zip(*spans, strict=True) if spans else ((), (), ())
    arrays = [pa.array(column, pa.int32()) for column in columns]
    return _distinct(pa.table(arrays, ["row", "start", "end"]))


def _distinct(spans: pa.Table) -> pa.Table:
    """Returns spans sorted, each once."""
    names = ["row", "start", "end"]
    unique = spans.group_by(names).aggregate([]).select(names)
    return unique.sort_by([(name, "ascending") for name in names])


def _grouped(table: pa.Table) -> Iterator[tuple[Span, list[dict[str, Any]]]]:
    """Yields every span with its candidates, best first; a null id stands for NIL."""
    order = [(name, "ascending") for name in ("row", "start", "end", "rank")]
    columns = ["row", "start", "end", "id", "rank", "prior", "score", "case"]
    groups: Offered = {}
    for line in table.select(columns).sort_by(order).to_pylist():
        groups.setdefault((line["row"], line["start"], line["end"]), []).append(line)
    for span, lines in groups.items():
        if lines[0]["id"] is not None:
            yield span, [line for line in lines if line["id"] is not None]


def answers_to_questions(linker: Links, documents: Sequence[GoldDocument]) -> dict[int, str]:
    """Returns the entity that each text names best: by score, then by length of the mention."""
    found: dict[int, tuple[float, int, str]] = {}
    for at in range(0, len(documents), _BATCH):
        table = linker.link([d.text for d in documents[at : at + _BATCH]])
        for line in table.select(["row", "start", "end", "id", "score"]).to_pylist():
            if line["id"] is None:
                continue
            offer = line["score"], line["end"] - line["start"], line["id"]
            row = at + line["row"]
            if row not in found or offer[:2] > found[row][:2]:
                found[row] = offer
    return {row: identifier for row, (_, _, identifier) in found.items()}
