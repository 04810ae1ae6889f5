"""Why an image has its labels: a verdict -> its mentions, their candidates, and every choice.

What is left of a mention's probability when all candidates have theirs is NIL's: none of them is
meant (by the text), or none is shown (with the image).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

from openmofi.serve import reasons, replies
from openmofi.serve.explain import explain
from openmofi.serve.verdicts import Verdict

_TERMS = (
    *("prior", "context", "coherence", "type", "linkability", "case"),
    *("text_score", "clip", "clip_z", "clip_z_other", "score"),
)
_CHOSEN_BY = {"joint": "score", "text-first": "text_score", "caption-match": "prior"}

Texts = Callable[[str], tuple[str, str]]
"""Entity id -> label and description."""


def describe(row: int, verdict: Verdict, card: dict[str, Any], texts: Texts) -> reasons.Provenance:
    """Returns all that is known of an image's label.

    Args:
        row: of the index or of refused.parquet, as it was asked for.
        verdict: of the selection.
        card: the selection's card.json.
        texts: names entities.
    """
    labels = verdict.labels
    spans: dict[tuple[int, int], list[dict[str, Any]]] = {}
    for candidate in labels["entities"] or ():
        spans.setdefault((candidate["start"], candidate["end"]), []).append(candidate)
    mentions = [_mention(span, verdict, card, texts) for span in spans.values()]
    threshold, on = _threshold(card)
    found = reasons.Provenance(
        row=row,
        caption=labels["caption"] or "",
        width=labels["width"],
        height=labels["height"],
        text_area=labels["text_area"],
        text_boxes=labels["text_boxes"] or [],
        kept=verdict.refused_as is None,
        refused_as=verdict.refused_as,
        classes=[replies.Entity(id=e, label=texts(e)[0]) for e in verdict.classes],
        weights=card["weights"],
        threshold=threshold,
        threshold_on=on,
        mentions=mentions,
        explanation=[],
    )
    return found.model_copy(update={"explanation": explain(found)})


def _mention(
    span: list[dict[str, Any]], verdict: Verdict, card: dict[str, Any], texts: Texts
) -> reasons.MentionView:
    nil = {name: _left(span, name) for name in ("text_score", "score")}
    by_text, by_image = _best(span, "text_score"), _best(span, "clip_z")
    if by_text and by_text["text_score"] <= (nil["text_score"] or 0):
        by_text = None
    nil_z = (card["weights"] or {}).get("nil_z")
    if by_image and nil_z is not None and by_image["clip_z"] < nil_z:
        by_image = None  # it rather shows none of them
    span = _surest_first(span, _CHOSEN_BY[card["settings"]["order"]])
    chosen = span[0]["id"]
    return reasons.MentionView(
        start=span[0]["start"],
        end=span[0]["end"],
        surface=span[0]["surface"],
        candidates=[_candidate(candidate, texts) for candidate in span],
        nil=reasons.Nil(**nil),
        text_choice=_id(by_text),
        picture_choice=_id(by_image),
        choice=chosen if chosen in verdict.classes else None,
    )


def _id(candidate: dict[str, Any] | None) -> str | None:
    return candidate["id"] if candidate else None


def _candidate(candidate: dict[str, Any], texts: Texts) -> reasons.CandidateView:
    label, description = texts(candidate["id"])
    terms = candidate | {"clip_z_other": _mean(candidate["clip_z_other"])}
    terms = {name: terms[name] for name in _TERMS}
    return reasons.CandidateView(id=candidate["id"], label=label, description=description, **terms)


def _mean(values: list[float] | float | None) -> float | None:
    """Returns the mean of what labels hold; those of older versions hold one number."""
    if not isinstance(values, list):
        return values
    return sum(values) / len(values) if values else None


def _surest_first(span: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    """Returns the candidates by what the selection chose by; by the text where it is not known."""

    def surety(candidate: dict[str, Any]) -> float:
        return candidate["text_score"] if candidate[name] is None else candidate[name]

    return sorted(span, key=surety, reverse=True)


def _best(span: list[dict[str, Any]], name: str) -> dict[str, Any] | None:
    """Returns the candidate for which a term is largest, where it is known of any."""
    known = [candidate for candidate in span if candidate[name] is not None]
    return max(known, key=lambda candidate: candidate[name], default=None)


def _left(span: list[dict[str, Any]], name: str) -> float | None:
    """Returns the probability that the candidates leave."""
    values = [candidate[name] for candidate in span]
    return None if None in values else max(0.0, 1 - sum(values))


def _threshold(card: dict[str, Any]) -> tuple[float | None, Literal["score", "clip_z"]]:
    """Returns the threshold in the terms that candidates are shown in; the card has log odds."""
    value = card["threshold"]
    if not card["weights"]:
        return value, "clip_z"
    return (None if value is None else 1 / (1 + math.exp(-value))), "score"
