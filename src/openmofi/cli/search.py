"""The verb `search`."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from openmofi.cli.app import Json, app
from openmofi.cli.output import brief, print_json, print_table
from openmofi.errors import SettingsError

if TYPE_CHECKING:
    from openmofi.search import Term

_KINDS: dict[str, Literal["text", "image", "entity"]] = {
    "text": "text",
    "image": "image",
    "like": "entity",
}
_AWAY = 0.5
"""Weight of negative terms: with 1, the opposite of these would outweigh the positive terms."""


@app.command
def search(
    index: Path,
    /,
    *,
    text: list[str] | None = None,
    image: list[str] | None = None,
    like: list[str] | None = None,
    not_text: list[str] | None = None,
    not_image: list[str] | None = None,
    not_like: list[str] | None = None,
    entity: list[str] | None = None,
    not_entity: list[str] | None = None,
    type: list[str] | None = None,
    source: list[str] | None = None,
    min_score: float | None = None,
    min_label_score: float | None = None,
    max_text_area: float | None = None,
    absent_rate: float | None = None,
    k: int = 10,
    model: str | None = None,
    kb: Path | None = None,
    as_json: Annotated[bool, Json] = False,
) -> None:
    """Search an index by text, image or entity, or by a mix of them.

    Example: openmofi search index --image new.jpg --text "at night^0.5" --entity "Royal Gala"

    The terms of the query are summed, each with the weight after its last ^ (by default 1, and 0.5
    for --not-…). Without terms, --entity finds its most typical images. If the index is calibrated
    and nothing in it looks like the query, that is said, and the results are only the nearest.

    Args:
        index: Output of `openmofi index`.
        text: Text to search for. Repeatable, as are all options down to --source.
        image: Image to search for.
        like: Entity to search for, by id or name.
        not_text: Text to search away from.
        not_image: Image to search away from.
        not_like: Entity to search away from.
        entity: Only images labelled with this entity, by id or name, or with another given one.
        not_entity: No images of this entity.
        type: Only images of entities of this type, by id or name.
        source: Only images from this host, or from this shard if they have no URL.
        min_score: Least cosine with the query.
        min_label_score: Least score of a label; labels below it are ignored.
        max_text_area: Largest share of the image covered by text.
        absent_rate: Share of the queries for absent things that may find something; the default
            is that of `openmofi index calibrate`.
        k: Number of results.
        model: The encoder; the default is the one the index was made with.
        kb: Knowledge base in which names are looked up; the default is the index's.
        as_json: Print JSON.
    """
    from openmofi.search import Filter, Searcher

    searcher = Searcher(index, model=model, kb=kb)
    terms = _terms({"text": text, "image": image, "like": like}, 1.0, 1)
    terms += _terms({"text": not_text, "image": not_image, "like": not_like}, _AWAY, -1)
    resolve = searcher.entity if terms else searcher.resolve  # a filter needs labelled images
    wanted = Filter(
        entities=tuple(map(resolve, entity or ())),
        not_entities=tuple(map(searcher.entity, not_entity or ())),
        types=tuple(map(searcher.type, type or ())),
        sources=tuple(source or ()),
        min_label_score=min_label_score,
        max_text_area=max_text_area,
    )
    found = searcher.ask(terms, filter=wanted, k=k, min_score=min_score, absent_rate=absent_rate)
    presence = found.presence
    if as_json:
        known = {"found": presence.found, "p_value": presence.p_value}
        print_json([asdict(hit) | known | {"presence": presence.sentence} for hit in found.hits])
        return
    if presence.found is False:
        nearest = "; the nearest are:" if found.hits else ""
        print(f"nothing here looks like that{nearest}")
    asks_for_it = absent_rate is not None or searcher.index.calibration_is_old
    if presence.found is False or (presence.found is None and asks_for_it):
        print(f"note: {presence.sentence}", file=sys.stderr)
    rows = [
        (
            "" if hit.score is None else f"{hit.score:.3f}",
            hit.id,
            hit.path or hit.shard,
            " ".join(hit.entities),
            brief(hit.caption, 80),
        )
        for hit in found.hits
    ]
    print_table(("score", "id", "where", "entities", "caption"), rows)


def _terms(given: dict[str, list[str] | None], weight: float, sign: int) -> list[Term]:
    """Returns the terms of the given flags."""
    from openmofi.search import Term

    found = []
    for flag, values in given.items():
        for written in values or ():
            value, own = _weighted(written, weight)
            found.append(Term(_KINDS[flag], Path(value) if flag == "image" else value, sign * own))
    return found


def _weighted(written: str, weight: float) -> tuple[str, float]:
    """Splits "red apple^0.5" into value and weight; a ^ not before a number belongs to the value.

    Raises:
        SettingsError: the weight is not above 0 and at most 1000, or there is no value.
    """
    value, mark, number = written.rpartition("^")
    try:
        own = float(number) if mark else weight
    except ValueError:
        return written, weight
    value = value if mark else written
    if not 0 < own <= 1000:
        raise SettingsError(
            f"A weight cannot be {number}; expected more than 0 and at most 1000, as in ^0.5."
        )
    if not value.strip():
        raise SettingsError(f"There is nothing to search for in {written!r}.")
    return value, own
