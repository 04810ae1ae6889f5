"""Routes that explain why a label was kept and why an image was refused."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Response

from openmofi.refused import Refused
from openmofi.serve import reasons
from openmofi.serve.api.images import RowInPath, image_response
from openmofi.serve.provenance import describe
from openmofi.serve.refusal import Refusal, declared
from openmofi.serve.requests import DEEPEST, Row
from openmofi.serve.served import Now, Served
from openmofi.serve.thumbnail_cache import Side
from openmofi.serve.uploads import refuse_image
from openmofi.serve.verdicts import Verdict, Verdicts

router = APIRouter(tags=["data"])

Number = Annotated[Row, Path(description="Row of refused.parquet.", examples=[0])]


@router.get("/api/images/{row}/provenance", operation_id="provenance", responses=declared(400, 404))
def provenance(row: RowInPath, served: Now) -> reasons.Provenance:
    """Returns why an image of the index has its labels."""
    library = served.library
    hit = library.hit(row)
    place = library.index.selection_place(row)
    if place is None:
        raise _unknown("The index does not say which labels this image's entities come from.")
    verdicts = served.verdicts_of(place[0])
    verdict = verdicts.of_row(*place[1:], hit.id)
    if verdict is None:
        raise _unknown("The selection has no such image; it was made again in the meantime.")
    return _described(served, row, verdicts, verdict)


@router.get(
    "/api/refused/{number}/provenance",
    operation_id="refused_provenance",
    responses=declared(400, 404),
)
def refused_provenance(number: Number, served: Now) -> reasons.Provenance:
    """Returns why a pair was refused."""
    verdicts, verdict = _refused(served, number)
    return _described(served, number, verdicts, verdict)


@router.get(
    "/api/refused/{number}/thumbnail",
    operation_id="refused_thumbnail",
    response_class=Response,
    responses=image_response("image/webp") | declared(400, 404, 413),
)
def refused_thumbnail(
    number: Number,
    served: Now,
    side: Annotated[Side, Query(description="Longest side in pixels.")] = Side.MEDIUM,
) -> Response:
    """Returns a small WebP of a refused image, if there is one."""
    verdicts, verdict = _refused(served, number)
    data = verdicts.image(verdict.labels)
    if isinstance(data, Refused):
        raise refuse_image(data)
    place = (verdicts.selection.card["input"], *verdict.place)
    found = served.thumbnails.get(place, side, lambda: data)
    if isinstance(found, Refused):
        raise refuse_image(found)
    return Response(found, media_type="image/webp")


@router.get("/api/data/refused", operation_id="refusals", responses=declared(404))
def refusals(
    served: Now,
    reason: Annotated[str, Query(max_length=100, description="A reason of the funnel.")],
    k: Annotated[int, Query(ge=1, le=200, description="Most results.")] = 24,
    offset: Annotated[int, Query(ge=0, le=DEEPEST, description="Number to skip.")] = 0,
) -> reasons.RefusedReply:
    """Returns pairs that were refused for one reason, spread over the input."""
    verdicts = served.verdicts
    total = verdicts.selection.card["funnel"]["refused"].get(reason)
    if total is None:
        raise _unknown("The selection refused nothing for that reason.")
    numbers = verdicts.refused_for(reason, k=k, offset=offset)
    rows = verdicts.selection.refused(numbers) if numbers else []
    shown = [
        reasons.RefusedRow(
            number=number,
            key=row["key"],
            caption=row["caption"] or "",
            thumbnail=f"/api/refused/{number}/thumbnail",
        )
        for number, row in zip(numbers, rows, strict=True)
    ]
    return reasons.RefusedReply(reason=reason, total=total, rows=shown)


def _described(
    served: Served, row: int, verdicts: Verdicts, verdict: Verdict
) -> reasons.Provenance:
    is_reviewed = served.has_data and served.verdicts is verdicts
    standing = served.desk.standing() if is_reviewed else None
    return describe(row, verdict, verdicts.selection.card, served.library.texts, standing)


def _refused(served: Served, number: int) -> tuple[Verdicts, Verdict]:
    verdicts = served.verdicts
    if number >= verdicts.num_refused:
        raise _unknown(f"There is no refused pair {number}; there are {verdicts.num_refused}.")
    return verdicts, verdicts.refused(number)


def _unknown(message: str) -> Refusal:
    return Refusal(404, "not_known", message)
