"""Runs a linker on a benchmark.

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
_SPAN = ["row", "start", "end"]
Span = tuple[int, int, int]
"""Document, start, end."""
Offered = dict[Span, list[dict[str, Any]]]
"""Span -> rows of `schema.CANDIDATES`, best first."""


class Links(Protocol):
    """The part of `link.Linker` that is used here."""

    kb: KnowledgeBase

    def link(self, captions: Any, all_candidates: bool = False) -> pa.Table:
        """Returns `schema.CANDIDATES` of the mentions that it finds."""
        ...

    def link_spans(self, captions: Any, spans: pa.Table, all_candidates: bool = False) -> pa.Table:
        """Returns `schema.CANDIDATES` of given spans (row, start, end), without unknown names."""
        ...


def with_kb_ids(data: LinkingData, kb: KnowledgeBase) -> list[GoldDocument]:
    """Replaces Wikipedia titles by ids; an unknown title becomes an id that no KB has."""
    if data.ids == "kb":
        return list(data.documents)
    titles = {_title(m.id) for d in data.documents for m in d.mentions if m.id is not None}
    columns = kb.entities(["enwiki", "id"])
    wanted = pa.array(sorted(titles), pa.string())
    rows = columns.filter(pc.is_in(columns["enwiki"], value_set=wanted)).to_pylist()
    # If two entities claim one article, the first row counts: it is the more popular one.
    ids = {row["enwiki"]: row["id"] for row in reversed(rows)}

    def resolve(title: str | None) -> str | None:
        return title and ids.get(_title(title), f"enwiki:{title}")

    return [
        replace(d, mentions=tuple(replace(m, id=resolve(m.id)) for m in d.mentions))
        for d in data.documents
    ]


def _title(text: str) -> str:
    """Returns a title as Wikipedia writes it: with spaces and a capital first letter."""
    text = text.replace("_", " ").strip()
    return text[:1].upper() + text[1:]


def sitelinks_of(kb: KnowledgeBase, identifiers: Iterable[str | None]) -> dict[str, int]:
    """Returns the number of sitelinks of each entity that the knowledge base has."""
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
    """Turns mentions of entities that the knowledge base lacks into mentions of no entity."""
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
            spans = [(row, m.start, m.end) for row, d in enumerate(part) for m in d.mentions]
            columns = zip(*spans, strict=True) if spans else ((), (), ())
            arrays = [pa.array(column, pa.int32()) for column in columns]
            gold = _distinct(pa.table(arrays, _SPAN))
            offers = linker.link_spans(texts, gold, all_candidates=True)
            for (row, start, end), candidates in _grouped(offers):
                offered[at + row, start, end] = candidates
            if detector is None:
                found = linker.link(texts, all_candidates=True)
            else:
                detected = detector.detect(pa.array(texts, pa.string())).select(_SPAN)
                found = linker.link_spans(texts, _distinct(detected), all_candidates=True)
            for (row, start, end), candidates in _grouped(found):
                best = candidates[0]
                # Leave out what `Linker.link` leaves out when asked only for the best candidate.
                nil = 1 - sum(candidate["score"] for candidate in candidates)
                if detector is None and (best["score"] < nil or best["case"] == HARDLY_EVER):
                    continue
                predicted[at + row].append(
                    Prediction(start, end, best["id"], len(candidates), best["score"])
                )
            bar.advance(len(part))
    return offered, predicted


def _distinct(spans: pa.Table) -> pa.Table:
    """Returns the spans sorted and without repeats."""
    unique = spans.group_by(_SPAN).aggregate([]).select(_SPAN)
    return unique.sort_by([(name, "ascending") for name in _SPAN])


def _grouped(table: pa.Table) -> Iterator[tuple[Span, list[dict[str, Any]]]]:
    """Yields every span with its candidates, best first, without spans of which NIL is the best."""
    order = [(name, "ascending") for name in (*_SPAN, "rank")]
    columns = ["row", "start", "end", "id", "rank", "prior", "score", "case"]
    groups: Offered = {}
    for line in table.select(columns).sort_by(order).to_pylist():
        groups.setdefault((line["row"], line["start"], line["end"]), []).append(line)
    for span, lines in groups.items():
        if lines[0]["id"] is not None:
            yield span, [line for line in lines if line["id"] is not None]


def answers_to_questions(linker: Links, documents: Sequence[GoldDocument]) -> dict[int, str]:
    """Returns {document: the best entity in its text}, by score, then by length of the mention."""
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
