"""The schemas of requests and answers about corrections."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from openmofi.serve.replies import Entity, Reply
from openmofi.serve.requests import EntityId, Name, Question, Row

_Said = Annotated[str, Field(max_length=500, pattern=r"^[^\x00]*$")]
AnswerId = Annotated[str, Field(pattern="^[0-9a-f]{32}$")]


class LabelPlace(Question):
    """A name in the caption of a pair."""

    file: Row
    """Number of the labels file."""
    row: Row
    """Row of that file."""
    start: Row
    """First code point of the name in the caption."""


class PairAnswer(Question):
    """What somebody says of a name of one pair."""

    kind: Literal["right", "wrong", "is", "not-shown"]
    place: LabelPlace
    entity: EntityId | None = None
    """Id of the entity; needed except for not-shown."""
    by: _Said = ""
    """Who says so."""
    note: _Said = ""


class RuleAnswer(Question):
    """What somebody says of a name wherever it stands."""

    kind: Literal["never", "always"]
    name: Name
    entity: EntityId
    by: _Said = ""
    """Who says so."""
    note: _Said = ""


class UndoRequest(Question):
    """Answers to take back."""

    ids: list[AnswerId] = Field(min_length=1, max_length=1_000)
    by: _Said = ""
    """Who says so."""


class SignedRequest(Question):
    """A request that says who it is from."""

    by: _Said = ""


class AnswerView(Reply):
    """An answer that is on disk."""

    id: str
    time: str
    kind: str
    by: str
    key: str
    caption: str
    name: str
    entity: Entity | None
    note: str
    applied: bool
    """Whether the selection was made with it."""


class AnswersReply(Reply):
    """Answers that hold, the last ones first."""

    total: int
    pending: int
    """Of them, those that the selection does not know yet, and those undone since."""
    contradictions: int
    answers: list[AnswerView]


class MeaningView(Entity):
    """An entity that the name may mean."""

    description: str
    score: float


class QuestionView(Reply):
    """Does the image show what the label says?"""

    place: LabelPlace
    end: int
    """Behind the last code point of the name."""
    caption: str
    name: str
    kept: bool
    changes: float
    """How many labels an answer is expected to change."""
    candidates: list[MeaningView]
    thumbnail: str


class QuestionsReply(Reply):
    """Questions, those whose answers change most labels first."""

    questions: list[QuestionView]


class ChangeView(Entity):
    """A label that comes or goes."""

    change: Literal["added", "removed"]
    key: str
    caption: str
    thumbnail: str


class EntityChange(Entity):
    """How many labels of an entity come and go."""

    added: int
    removed: int


class PreviewView(Reply):
    """What the answers change."""

    answers: int
    added: int
    removed: int
    images: int
    labels: int
    """In the selection before."""
    entities: list[EntityChange]
    gallery: list[ChangeView]
    about: dict[str, Any]


class PreviewReply(Reply):
    """The state of the preview."""

    state: Literal["none", "running", "ready", "failed"]
    trouble: str
    can_revert: bool
    """Whether an applied change can be taken back."""
    preview: PreviewView | None


class RevertReply(Reply):
    """An applied change that was taken back."""

    undone: int
