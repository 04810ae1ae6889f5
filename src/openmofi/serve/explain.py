"""Why an image has its labels, in plain sentences.

«Georgia»: the caption alone prefers Georgia (country), .71; the image agrees more with
Georgia (US state), z 3.1 against -0.4; together .93, above the threshold .60: kept.
"""

from __future__ import annotations

from openmofi.select.report import MEANINGS
from openmofi.serve.reasons import CandidateView, MentionView, Provenance


def explain(found: Provenance) -> list[str]:
    """Returns one sentence per mention, and one about the outcome for the image."""
    said = []
    for mention in found.mentions:
        parts = (_text(mention), _image(mention), _together(mention, found))
        said.append(f"«{mention.surface}»: {'; '.join(part for part in parts if part)}.")
    if found.kept:
        names = ", ".join(entity.label for entity in found.classes)
        return [*said, f"The image is kept as {names}."]
    reason = found.refused_as or ""
    meaning = MEANINGS.get(reason)
    return [*said, f"The image is refused as {reason}" + (f": {meaning}." if meaning else ".")]


def _text(mention: MentionView) -> str:
    if mention.text_choice is None:
        nil = _probability(mention.nil.text_score)
        return f"the caption alone rather means none of the {len(mention.candidates)}, {nil}"
    chosen = _candidate(mention, mention.text_choice)
    return f"the caption alone prefers {_name(chosen, mention)}, {_probability(chosen.text_score)}"


def _image(mention: MentionView) -> str:
    known = [c.clip_z for c in mention.candidates if c.clip_z is not None]
    if not known:
        return "the image was not looked at"
    if mention.picture_choice is None:
        which = "none of them" if len(mention.candidates) > 1 else "something else"
        return f"the image rather shows {which}, z {max(known):.1f} at most"
    chosen = _candidate(mention, mention.picture_choice)
    others = [c.clip_z for c in mention.candidates if c is not chosen and c.clip_z is not None]
    against = f" against {max(others):.1f}" if others else ""
    if mention.text_choice == chosen.id:
        return f"the image agrees, z {chosen.clip_z:.1f}{against}"
    return f"the image agrees more with {_name(chosen, mention)}, z {chosen.clip_z:.1f}{against}"


def _together(mention: MentionView, found: Provenance) -> str:
    """Compares the best candidate with the threshold."""
    best = mention.candidates[0]  # the selection's choice
    on_score = found.threshold_on == "score"
    value = best.score if on_score else best.clip_z
    if found.threshold is None or value is None:
        return "kept" if mention.choice else "not kept"
    passes = value >= found.threshold
    side = "above" if passes else "below"
    shown = _probability if on_score else "{:.1f}".format
    both = (
        f"together {shown(value)} for {_name(best, mention)}" if on_score else f"z {shown(value)}"
    )
    end = "kept" if mention.choice else "not kept"
    if passes and not mention.choice and found.kept:
        end += ", since too few images show it, its type is denied, or others are surer"
    return f"{both}, {side} the threshold {shown(found.threshold)}: {end}"


def _candidate(mention: MentionView, entity: str) -> CandidateView:
    return next(c for c in mention.candidates if c.id == entity)


def _name(candidate: CandidateView, mention: MentionView) -> str:
    """Returns the label, with the description if another candidate has the same label."""
    same = [c for c in mention.candidates if c.label == candidate.label]
    if len(same) == 1 or not candidate.description:
        return candidate.label
    return f"{candidate.label} ({candidate.description})"


def _probability(value: float | None) -> str:
    if value is None:
        return "unknown"
    return f"{value:.2f}".removeprefix("0") if value >= 0.01 else "less than .01"
