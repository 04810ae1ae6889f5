"""Entity linking against gold mentions: a knowledge base or linker, and a benchmark -> figures.

Three questions, each harder than the one before: is the gold entity among the candidates of its
mention (recall), is it the best of them (accuracy, given the spans), and does the linker find both
span and entity (end to end)? See `linking_data` for formats, `linking_metrics` for conventions.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from openmofi.config import LinkSettings
from openmofi.errors import SettingsError
from openmofi.evaluate.linking_answers import (
    Links,
    Offered,
    answers_to_questions,
    gold_ids,
    outside_as_nil,
    run_linker,
    sitelinks_of,
    with_kb_ids,
)
from openmofi.evaluate.linking_data import GoldDocument, LinkingData
from openmofi.evaluate.linking_metrics import (
    AMBIGUITIES,
    FREQUENCIES,
    Disambiguated,
    Outcomes,
    PrecisionRecall,
    Slice,
    ambiguity_bucket,
    frequency_bucket,
    harmonic_mean,
    make_slice,
    match_exactly,
    match_overlaps,
    precision_recall,
    share,
)
from openmofi.evaluate.linking_report import Published, published
from openmofi.kb import KnowledgeBase
from openmofi.link.detectors import MentionDetector
from openmofi.link.linker import Linker


@dataclass(frozen=True)
class LinkingResult:
    """Figures of one linker on one benchmark; NaN if there is nothing to measure."""

    dataset: str
    format: str
    documents: int
    mentions: int
    """Gold mentions that count: those with an entity that are not optional."""
    nil: int
    """Gold mentions without an entity."""
    optional: int
    """Dates, quantities and the like."""
    not_in_kb: int
    """Of `mentions`, those whose entity is not in the knowledge base."""
    verbatim: float
    """Share of `mentions` that are written as their entity's name in the data."""
    entities: int
    """Size of the knowledge base."""
    names: int
    detector: str
    """What finds the spans in the end-to-end figures."""
    recall_at: dict[str, float]
    """Share of `mentions` whose entity is among the first k candidates by prior."""
    accuracy: float
    """Share of `mentions` whose best candidate is right, given their spans."""
    in_kb_accuracy: float
    """The same for mentions whose entity is in the knowledge base."""
    end_to_end: PrecisionRecall
    """Span and id must be equal."""
    in_kb_end_to_end: PrecisionRecall
    """The same, with mentions of entities outside the knowledge base as NIL."""
    overlap: PrecisionRecall
    """Ids must be equal and spans share a character."""
    by_frequency: dict[str, Slice] = field(default_factory=dict)
    """By the number of sitelinks of the entity."""
    by_ambiguity: dict[str, Slice] = field(default_factory=dict)
    """By the number of candidates of the mention."""
    splits: dict[str, float] = field(default_factory=dict)
    """OVEN: accuracy on seen and unseen entities, and their harmonic mean."""
    refused: dict[str, int] = field(default_factory=dict)
    """Number of lines and mentions left out, by reason."""
    published: list[Published] = field(default_factory=list)
    """Comparable only if the knowledge base holds all of Wikipedia."""


def evaluate_linking(
    linker: Linker | KnowledgeBase,
    data: LinkingData,
    *,
    encoder: Any = None,
    detector: MentionDetector | None = None,
    settings: LinkSettings | None = None,
) -> LinkingResult:
    """Measures how well texts are linked.

    Args:
        linker: a linker, or the knowledge base to make one for.
        data: what `read_linking` returns.
        encoder: text encoder that compares contexts, for a linker made here.
        detector: finds the spans end to end; None looks up the names of the knowledge base.
        settings: settings of a linker made here.

    Raises:
        SettingsError: an encoder or settings are given together with a finished linker.
    """
    links: Any = linker
    if isinstance(linker, KnowledgeBase):
        links = Linker(linker, encoder=encoder, settings=settings)
    elif encoder is not None or settings is not None:
        raise SettingsError(
            "evaluate_linking got a linker, which has its encoder and settings already; pass the "
            "knowledge base instead, or leave them out."
        )
    documents = with_kb_ids(data, links.kb)
    known = sitelinks_of(links.kb, gold_ids(documents))
    name = "gazetteer" if detector is None else type(detector).__name__
    if data.format == "oven":
        figures = _judge_questions(links, documents, known)
        return _result(data, documents, known, links.kb, name, figures)
    offered, predicted = run_linker(links, documents, detector, data.name)
    pairs = list(zip(documents, predicted, strict=True))
    figures = _Figures(
        judged=_judge(documents, offered, known),
        exact=[match_exactly(d, p) for d, p in pairs],
        overlapping=[match_overlaps(d, p) for d, p in pairs],
        in_kb=[match_exactly(outside_as_nil(d, known), p) for d, p in pairs],
        offered=offered,
    )
    return _result(data, documents, known, links.kb, name, figures)


@dataclass
class _Figures:
    """What a result is computed from."""

    judged: list[Disambiguated]
    exact: list[Outcomes] = field(default_factory=list)
    overlapping: list[Outcomes] = field(default_factory=list)
    in_kb: list[Outcomes] = field(default_factory=list)
    offered: Offered = field(default_factory=dict)
    splits: dict[str, float] = field(default_factory=dict)


def _judge(
    documents: Sequence[GoldDocument], offered: Offered, known: dict[str, int]
) -> list[Disambiguated]:
    judged = []
    for row, document in enumerate(documents):
        for mention in document.required:
            candidates = offered.get((row, mention.start, mention.end), [])
            # The sort is stable: equal priors keep the linker's order.
            by_prior = [c["id"] for c in sorted(candidates, key=lambda c: -c["prior"])]
            judged.append(
                Disambiguated(
                    candidates=len(candidates),
                    by_prior=by_prior.index(mention.id) if mention.id in by_prior else None,
                    right=bool(candidates) and candidates[0]["id"] == mention.id,
                    frequency=frequency_bucket(known.get(mention.id or "")),
                    in_kb=mention.id in known,
                )
            )
    return judged


def _judge_questions(
    linker: Links, documents: Sequence[GoldDocument], known: dict[str, int]
) -> _Figures:
    """Judges OVEN's questions: is the best entity anywhere in the text the right one?"""
    best = answers_to_questions(linker, documents)
    judged, seen = [], {"seen": [], "unseen": []}
    for row, document in enumerate(documents):
        wanted = document.entity.id if document.entity else None
        right = best.get(row) == wanted
        judged.append(
            Disambiguated(
                candidates=int(row in best),
                by_prior=0 if right else None,
                right=right,
                frequency=frequency_bucket(known.get(wanted or "")),
                in_kb=wanted in known,
            )
        )
        split = document.split.rpartition("_")[2]  # val_seen, test_unseen; entity_train has none
        if split in seen:
            seen[split].append(right)
    splits = {name: share(sum(rights), len(rights)) for name, rights in seen.items() if rights}
    if len(splits) == 2:
        splits["harmonic_mean"] = harmonic_mean(*splits.values())
    return _Figures(judged, splits=splits)


def _result(
    data: LinkingData,
    documents: Sequence[GoldDocument],
    known: dict[str, int],
    kb: KnowledgeBase,
    detector: str,
    figures: _Figures,
) -> LinkingResult:
    judged, asked = figures.judged, data.format == "oven"
    whole = make_slice(judged, _total(figures.exact))
    mentions = [m for d in documents for m in d.mentions]
    labelled = [
        (d.text[m.start : m.end], m.label) for d in documents for m in d.required if m.label
    ]
    num_verbatim = sum(text.casefold() == label.casefold() for text, label in labelled)
    return LinkingResult(
        dataset=data.name,
        format=data.format,
        documents=len(documents),
        mentions=len(judged),
        nil=sum(m.id is None and not m.optional for m in mentions),
        optional=sum(m.optional for m in mentions),
        not_in_kb=sum(not s.in_kb for s in judged),
        verbatim=math.nan if asked else share(num_verbatim, len(labelled)),
        entities=len(kb),
        names=kb.meta["names"],
        detector=detector,
        recall_at={} if asked else whole.recall_at,
        accuracy=whole.accuracy,
        in_kb_accuracy=share(sum(s.right for s in judged), sum(s.in_kb for s in judged)),
        end_to_end=whole.end_to_end,
        in_kb_end_to_end=precision_recall(*_total(figures.in_kb)),
        overlap=precision_recall(*_total(figures.overlapping)),
        by_frequency=_by_frequency(figures, known, kb),
        by_ambiguity={} if asked else _by_ambiguity(figures),
        splits=figures.splits,
        refused=data.refused,
        published=published(data.name, data.format),
    )


def _total(outcomes: Sequence[Outcomes]) -> tuple[int, int, int]:
    counts = [outcome.counts() for outcome in outcomes]
    return (sum(c[0] for c in counts), sum(c[1] for c in counts), sum(c[2] for c in counts))


def _by_frequency(figures: _Figures, known: dict[str, int], kb: KnowledgeBase) -> dict[str, Slice]:
    others = sitelinks_of(kb, (p.id for o in figures.exact for p in o.false_alarms))
    return _sliced(
        FREQUENCIES,
        [(s.frequency, s) for s in figures.judged],
        Counter(frequency_bucket(known.get(m.id or "")) for o in figures.exact for m, _ in o.hits),
        Counter(frequency_bucket(others.get(p.id)) for o in figures.exact for p in o.false_alarms),
        Counter(frequency_bucket(known.get(m.id or "")) for o in figures.exact for m in o.misses),
    )


def _by_ambiguity(figures: _Figures) -> dict[str, Slice]:
    misses = Counter(
        ambiguity_bucket(len(figures.offered.get((row, m.start, m.end), ())))
        for row, outcome in enumerate(figures.exact)
        for m in outcome.misses
    )
    return _sliced(
        AMBIGUITIES,
        [(ambiguity_bucket(s.candidates), s) for s in figures.judged],
        Counter(ambiguity_bucket(p.candidates) for o in figures.exact for _, p in o.hits),
        Counter(ambiguity_bucket(p.candidates) for o in figures.exact for p in o.false_alarms),
        misses,
    )


def _sliced(
    buckets: Sequence[str],
    judged: Sequence[tuple[str, Disambiguated]],
    hits: Counter[str],
    alarms: Counter[str],
    misses: Counter[str],
) -> dict[str, Slice]:
    """Returns a slice for every bucket that is not empty."""
    found = {}
    for name in buckets:
        spans = [s for bucket, s in judged if bucket == name]
        counts = hits[name], alarms[name], misses[name]
        if spans or any(counts):
            found[name] = make_slice(spans, counts)
    return found
