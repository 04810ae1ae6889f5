"""Routes for corrections: questions, answers, and what they change."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Response

from openmofi.corrections.answers import LabelAnswer, new_answer
from openmofi.refused import Refused
from openmofi.review.preview import Preview
from openmofi.serve import reviews
from openmofi.serve.api.images import image_response
from openmofi.serve.desk import Desk
from openmofi.serve.refusal import Refusal, declared
from openmofi.serve.replies import Entity
from openmofi.serve.requests import DEEPEST, Row
from openmofi.serve.served import Now, Served
from openmofi.serve.thumbnail_cache import Side
from openmofi.serve.uploads import refuse_image

router = APIRouter(tags=["review"])


@router.get("/api/review/questions", operation_id="questions", responses=declared(400, 404))
def questions(
    served: Now, k: Annotated[int, Query(ge=1, le=100, description="Most questions.")] = 12
) -> reviews.QuestionsReply:
    """Returns labels to check, those whose answers change most labels first."""
    found = served.desk.questions().first(k)
    return reviews.QuestionsReply(
        questions=[
            reviews.QuestionView(
                place=reviews.LabelPlace(file=one.file, row=one.row, start=one.start),
                end=one.end,
                caption=one.caption,
                name=one.name,
                kept=one.kept,
                changes=one.changes,
                candidates=[reviews.MeaningView(**vars(c)) for c in one.candidates],
                thumbnail=_thumbnail(one.file, one.row),
            )
            for one in found
        ]
    )


@router.get("/api/review/answers", operation_id="answers", responses=declared(404))
def answers(
    served: Now,
    k: Annotated[int, Query(ge=1, le=500, description="Most answers.")] = 50,
    offset: Annotated[int, Query(ge=0, le=DEEPEST, description="Number to skip.")] = 0,
) -> reviews.AnswersReply:
    """Returns the answers that hold, the last ones first."""
    desk = served.desk
    standing, known = desk.standing(), _known(desk)
    holding = {answer.id for answer in standing.answers}
    newest = standing.answers[::-1][offset : offset + k]
    return reviews.AnswersReply(
        total=len(standing.answers),
        pending=len(holding ^ known),
        contradictions=standing.contradictions,
        answers=[_view(served, answer, known) for answer in newest],
    )


@router.post(
    "/api/review/answers",
    operation_id="answer",
    status_code=201,
    responses=declared(400, 404, 409),
)
def answer(question: reviews.PairAnswer | reviews.RuleAnswer, served: Now) -> reviews.AnswerView:
    """Stores an answer; it is on disk when this returns."""
    desk = served.desk
    kb = desk.selection.kb
    if question.entity is not None and kb.row_of(question.entity) is None:
        raise Refusal(404, "no_such_entity", "The knowledge base has no such entity.")
    told: dict[str, Any] = {"by": question.by, "note": question.note}
    if isinstance(question, reviews.RuleAnswer):
        given = new_answer(question.kind, name=question.name, entity=question.entity, **told)
        desk.add(given, None)
        return _view(served, given, set())
    place = question.place
    pair = _row(desk, place.file, place.row)
    mention = [one for one in pair["entities"] or () if one["start"] == place.start]
    if not mention:
        raise Refusal(404, "no_such_name", "The caption has no name at that place.")
    if question.entity is None and question.kind != "not-shown":
        raise Refusal(409, "entity_needed", f"The answer {question.kind!r} needs an entity.")
    best = max(mention, key=lambda one: one["score"] or 0.0)
    given = new_answer(
        question.kind,
        **{name: pair[name] or "" for name in ("key", "shard", "caption")},
        name=best["surface"],
        entity="" if question.kind == "not-shown" else question.entity or "",
        evidence={"selection": desk.name, "label": best["id"], "score": best["score"]},
        **told,
    )
    desk.add(given, (place.file, place.row, place.start))
    return _view(served, given, set())


@router.post("/api/review/undo", operation_id="undo", responses=declared(400, 404))
def undo(question: reviews.UndoRequest, served: Now) -> reviews.RevertReply:
    """Takes answers back; nothing is deleted."""
    desk = served.desk
    known = {answer.id for answer in desk.standing().answers}
    if not known.issuperset(question.ids):
        raise Refusal(404, "no_such_answer", "There is no such answer, or it was undone before.")
    return reviews.RevertReply(undone=len(desk.undo(question.ids, question.by)))


@router.get("/api/review/preview", operation_id="preview", responses=declared(404))
def preview(served: Now) -> reviews.PreviewReply:
    """Returns what the answers would change, if that is known."""
    return _preview(served)


@router.post(
    "/api/review/preview",
    operation_id="start_preview",
    status_code=202,
    responses=declared(400, 404),
)
def start_preview(served: Now) -> reviews.PreviewReply:
    """Begins to find out what the answers would change."""
    served.desk.start_preview()
    return _preview(served)


@router.post("/api/review/apply", operation_id="apply", responses=declared(400, 404, 409))
def apply(served: Now) -> reviews.PreviewReply:
    """Makes what the preview shows the selection; the former one is kept."""
    served.desk.apply()
    return _preview(served)


@router.post("/api/review/revert", operation_id="revert", responses=declared(400, 404, 409))
def revert(question: reviews.SignedRequest, served: Now) -> reviews.RevertReply:
    """Takes the last applied change back, and undoes its answers."""
    return reviews.RevertReply(undone=served.desk.revert(question.by))


@router.get(
    "/api/review/images/{file}/{row}/thumbnail",
    operation_id="label_thumbnail",
    response_class=Response,
    responses=image_response("image/webp") | declared(400, 404, 413),
)
def label_thumbnail(
    file: Annotated[Row, Path(description="Number of the labels file.", examples=[0])],
    row: Annotated[Row, Path(description="Row of that file.", examples=[0])],
    served: Now,
    side: Annotated[Side, Query(description="Longest side in pixels.")] = Side.MEDIUM,
) -> Response:
    """Returns a small WebP of an image that was labelled, kept or not."""
    desk, verdicts = served.desk, served.verdicts
    pair = _row(desk, file, row)
    data = verdicts.image(pair)
    if isinstance(data, Refused):
        raise refuse_image(data)
    names = ("shard", "offset", "size", "path", "sha256")
    place = (desk.selection.card["input"], *(pair[name] for name in names))
    found = served.thumbnails.get(place, side, lambda: data)
    if isinstance(found, Refused):
        raise refuse_image(found)
    return Response(found, media_type="image/webp")


def _row(desk: Desk, file: int, row: int) -> dict[str, Any]:
    """Returns a row of a labels file.

    Raises:
        Refusal: there is none.
    """
    pairs = desk.selection.shards["pairs"]
    if file >= len(pairs) or row >= pairs[file].as_py():
        raise Refusal(404, "no_such_pair", "The labels have no such row.")
    return desk.selection.read(file, [row])[0]


def _known(desk: Desk) -> set[str]:
    """Returns the ids of the answers that the selection was made with."""
    corrections = desk.selection.corrections
    return {answer.id for answer in corrections.standing.answers} if corrections else set()


def _view(served: Served, answer: LabelAnswer, known: set[str]) -> reviews.AnswerView:
    entity = None
    if answer.entity:
        entity = Entity(id=answer.entity, label=served.library.label(answer.entity))
    texts = {name: getattr(answer, name) for name in ("id", "time", "kind", "by", "key", "name")}
    return reviews.AnswerView(
        **texts,
        caption=answer.caption,
        entity=entity,
        note=answer.note,
        applied=answer.id in known,
    )


def _preview(served: Served) -> reviews.PreviewReply:
    desk = served.desk
    state, found = desk.preview()
    former = desk.selection.folder.with_name(f"{desk.name}.before")
    return reviews.PreviewReply(
        state=state,
        trouble=desk.trouble,
        can_revert=(former / "card.json").is_file(),
        preview=None if found is None else _shown(found),
    )


def _shown(found: Preview) -> reviews.PreviewView:
    names = ("answers", "added", "removed", "images", "labels", "about")
    return reviews.PreviewView(
        **{name: getattr(found, name) for name in names},
        entities=[reviews.EntityChange(**one) for one in found.entities],
        gallery=[
            reviews.ChangeView(
                id=one["id"],
                label=one["label"],
                change=one["change"],
                key=one["key"] or "",
                caption=one["caption"],
                thumbnail=_thumbnail(one["file"], one["row"]),
            )
            for one in found.gallery
        ],
    )


def _thumbnail(file: int, row: int) -> str:
    return f"/api/review/images/{file}/{row}/thumbnail"
