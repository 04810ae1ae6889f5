"""Routes for what is missing from the catalogue: proposals, decisions, the rows to build."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Query, Response

from openmofi.errors import InputError
from openmofi.review.missing import missing_folder
from openmofi.review.missing.decisions import (
    RowDecision,
    catalogue,
    decide,
    holding_decisions,
    undo,
)
from openmofi.review.missing.proposals import FILE, Proposal, read_proposals
from openmofi.serve import missing as views
from openmofi.serve.refusal import Refusal, declared
from openmofi.serve.replies import Entity
from openmofi.serve.requests import DEEPEST
from openmofi.serve.served import Now, Served

router = APIRouter(tags=["review"])


@router.get("/api/review/missing", operation_id="missing", responses=declared(400, 404))
def missing(
    served: Now,
    k: Annotated[int, Query(ge=1, le=200, description="Most proposals.")] = 20,
    offset: Annotated[int, Query(ge=0, le=DEEPEST, description="Number to skip.")] = 0,
    undecided: Annotated[bool, Query(description="Leave out what was decided.")] = False,
) -> views.MissingReply:
    """Returns entities that the catalogue may lack, the most useful ones first."""
    folder = _folder(served)
    holds = holding_decisions(folder)
    kinds = [one.kind for one in holds.values()]
    found = [one for one in read_proposals(folder) if not (undecided and one.id in holds)]
    return views.MissingReply(
        total=len(found),
        accepted=kinds.count("accept"),
        rejected=kinds.count("reject"),
        proposals=[_view(served, one, holds.get(one.id)) for one in found[offset : offset + k]],
    )


@router.post(
    "/api/review/missing",
    operation_id="decide_missing",
    status_code=201,
    responses=declared(400, 404),
)
def decide_missing(question: views.DecisionRequest, served: Now) -> views.DecisionView:
    """Stores a decision; it is on disk when this returns."""
    folder = _folder(served)
    if question.proposal not in {one.id for one in read_proposals(folder)}:
        raise Refusal(404, "no_such_proposal", "There is no such proposal.")
    given = question.model_dump()
    kind, proposal = given.pop("kind"), given.pop("proposal")
    return _decision(decide(folder, kind, proposal, **given))


@router.post("/api/review/missing/undo", operation_id="undo_missing", responses=declared(400, 404))
def undo_missing(question: views.DecisionUndo, served: Now) -> views.DecisionsUndone:
    """Takes decisions back; nothing is deleted."""
    folder = _folder(served)
    try:
        rows = undo(folder, question.ids, by=question.by)
    except InputError as error:
        raise Refusal(404, "no_such_decision", str(error)) from None
    return views.DecisionsUndone(undone=len(rows))


@router.get(
    "/api/review/missing.csv",
    operation_id="missing_catalogue",
    response_class=Response,
    responses={200: {"content": {"text/csv": {"schema": {"type": "string"}}}}} | declared(400, 404),
)
def missing_catalogue(served: Now) -> Response:
    """Returns the accepted proposals as `openmofi kb build FILE --onto KB` reads them."""
    named = {"content-disposition": 'attachment; filename="new.csv"'}
    return Response(catalogue(_folder(served)), media_type="text/csv", headers=named)


def _folder(served: Served) -> Path:
    """Returns where the proposals of the selection lie.

    Raises:
        Refusal: nobody has asked for any.
    """
    desk = served.desk
    folder = missing_folder(desk.i2e, desk.name)
    if not (folder / FILE).is_file():
        raise Refusal(
            404,
            "no_proposals",
            "There are no proposals yet; run openmofi review missing on the labels.",
        )
    return folder


def _view(served: Served, one: Proposal, decision: RowDecision | None) -> views.ProposalView:
    shards = served.desk.selection.shards["file"].to_pylist()
    number = {name: i for i, name in enumerate(shards)}
    names = ("id", "name", "aliases", "images", "looked", "share", "purity", "cohesion")
    return views.ProposalView(
        **{name: getattr(one, name) for name in names},
        nearest=[
            views.LikeView(id=n.id, label=n.label, cosine=n.cosine, apart=n.apart)
            for n in one.nearest
        ],
        meanings=[Entity(id=e, label=served.library.label(e)) for e in one.meanings],
        examples=[
            views.ExampleView(
                caption=example.caption or "",
                thumbnail=f"/api/review/images/{number[example.labels]}/{example.row}/thumbnail",
            )
            for example in one.examples
            if example.labels in number  # its shard may have been labelled again
        ],
        decision=None if decision is None else _decision(decision),
    )


def _decision(one: RowDecision) -> views.DecisionView:
    names = ("id", "time", "kind", "by", "proposal", "name", "aliases", "description")
    return views.DecisionView(**{name: getattr(one, name) for name in names})
