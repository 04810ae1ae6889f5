"""Why an image has its labels: a verdict -> its mentions, their candidates, and every choice.

The probability that a mention's candidates leave is NIL's: none of them is meant (by the text), or
none is shown (with the image).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

from openmofi.corrections.answers import OF_PAIRS, LabelAnswer
from openmofi.corrections.standing import Place, Standing
from openmofi.kb.text import canonical
from openmofi.serve import reasons, replies
from openmofi.serve.explain import explain
from openmofi.serve.verdicts import Verdict

_TERMS = (
    *("prior", "context", "coherence", "type", "linkability", "case"),
    *("text_score", "clip", "clip_z", "clip_z_other", "score"),
)
_CHOSEN_BY = {"joint": "score", "text-first": "text_score", "caption-match": "prior"}

_SAID = {
    "right": "it is {}",
    "is": "it is {}",
    "wrong": "it is not {}",
    "not-shown": "it is not shown",
    "never": "the name never means {}",
    "always": "the name always means {}",
}

Texts = Callable[[str], tuple[str, str]]
"""Entity id -> label and description."""


def describe(
    row: int, verdict: Verdict, card: dict[str, Any], texts: Texts, standing: Standing | None
) -> reasons.Provenance:
    """Returns how an image got its labels.

    Args:
        row: the requested row of the index or of refused.parquet.
        verdict: the selection's verdict.
        card: the selection's card.json.
        texts: returns an entity's label and description.
        standing: what people say; None: the server takes no corrections of this selection.
    """
    labels = verdict.labels
    said = said_of(labels, standing.answers if standing else (), texts)
    spans: dict[tuple[int, int], list[dict[str, Any]]] = {}
    for candidate in labels["entities"] or ():
        spans.setdefault((candidate["start"], candidate["end"]), []).append(candidate)
    mentions = [_mention(span, verdict, card, texts, said) for span in spans.values()]
    threshold, on = card["threshold"], "clip_z"
    if card["weights"]:  # the threshold is in log odds, but the candidates show probabilities
        on = "score"
        threshold = None if threshold is None else 1 / (1 + math.exp(-threshold))
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
        place=reasons.LabelsRow(file=verdict.file, row=verdict.row)
        if standing is not None
        else None,
    )
    return found.model_copy(update={"explanation": explain(found)})


def _mention(
    span: list[dict[str, Any]],
    verdict: Verdict,
    card: dict[str, Any],
    texts: Texts,
    said: dict[str, list[str]],
) -> reasons.MentionView:
    nil: dict[str, float | None] = {}
    for name in ("text_score", "score"):  # what the candidates leave
        values = [candidate[name] for candidate in span]
        nil[name] = None if None in values else max(0.0, 1 - sum(values))
    by_text, by_image = _best(span, "text_score"), _best(span, "clip_z")
    if by_text and by_text["text_score"] <= (nil["text_score"] or 0):
        by_text = None
    nil_z = (card["weights"] or {}).get("nil_z")
    if by_image and nil_z is not None and by_image["clip_z"] < nil_z:
        by_image = None  # NIL, none of them, is more probable
    # In the selection's order of preference, or the text's if that is unknown.
    by = _CHOSEN_BY[card["settings"]["order"]]
    span = sorted(span, key=lambda c: c["text_score"] if c[by] is None else c[by], reverse=True)
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
        said=said.get(canonical(span[0]["surface"]), []),
    )


def said_of(
    labels: dict[str, Any], answers: Iterable[LabelAnswer], texts: Texts
) -> dict[str, list[str]]:
    """Returns what people say of a pair's names, by their canonical form."""
    pair = [labels[name] or "" for name in ("key", "shard", "caption")]
    names = {canonical(one["surface"]) for one in labels["entities"] or ()}
    found: dict[str, list[str]] = {}
    for answer in answers:
        name = canonical(answer.name)
        place = Place(answer.key, answer.shard, answer.caption)
        if name in names and (answer.kind not in OF_PAIRS or place.fits(*pair)):
            text = _SAID[answer.kind].format(texts(answer.entity)[0] if answer.entity else "")
            found.setdefault(name, []).append(f"{text} ({answer.by})" if answer.by else text)
    return found


def _id(candidate: dict[str, Any] | None) -> str | None:
    return candidate["id"] if candidate else None


def _candidate(candidate: dict[str, Any], texts: Texts) -> reasons.CandidateView:
    label, description = texts(candidate["id"])
    other = candidate["clip_z_other"]
    if isinstance(other, list):  # labels of older versions hold a single number
        other = sum(other) / len(other) if other else None
    terms = candidate | {"clip_z_other": other}
    terms = {name: terms[name] for name in _TERMS}
    return reasons.CandidateView(id=candidate["id"], label=label, description=description, **terms)


def _best(span: list[dict[str, Any]], name: str) -> dict[str, Any] | None:
    """Returns the candidate with the largest value of a term, or None if it is unknown for all."""
    known = [candidate for candidate in span if candidate[name] is not None]
    return max(known, key=lambda candidate: candidate[name], default=None)
