"""The schemas of requests and answers about what is missing from the catalogue."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from openmofi.serve.replies import Entity, Reply
from openmofi.serve.requests import EntityId, Name, Question

_Said = Annotated[str, Field(max_length=500, pattern=r"^[^\x00]*$")]
_Alias = Annotated[str, Field(min_length=1, max_length=500, pattern=r"^[^\x00|]*$")]
_Aliases = Annotated[list[_Alias], Field(max_length=50)]


class DecisionRequest(Question):
    """What somebody decides about a proposal."""

    kind: Literal["accept", "reject"]
    proposal: EntityId
    """Id of the proposal."""
    name: Name | None = None
    """A better name; the proposed one if it is null."""
    aliases: _Aliases | None = None
    """Better aliases; the proposed ones if it is null."""
    description: _Said = ""
    """What it looks like; images are compared with it."""
    by: _Said = ""
    """Who decides."""


class DecisionUndo(Question):
    """Decisions to take back."""

    ids: list[EntityId] = Field(min_length=1, max_length=1_000)
    """Ids of proposals or of decisions."""
    by: _Said = ""
    """Who says so."""


class DecisionView(Reply):
    """A decision that is on disk."""

    id: str
    time: str
    kind: Literal["accept", "reject"]
    by: str
    proposal: str
    name: str
    aliases: list[str]
    description: str


class LikeView(Entity):
    """A known entity that looks alike."""

    cosine: float
    """Of the mean images, after the mean of all images was taken off."""
    apart: float
    """Share of the images that are nearer to each other than to it; a half: it looks the same."""


class ExampleView(Reply):
    """An image of a proposal."""

    caption: str
    thumbnail: str


class ProposalView(Reply):
    """A row for the catalogue, with the images that speak for it."""

    id: str
    name: str
    aliases: list[str]
    images: int
    """Estimated number of refused images with this name and look."""
    looked: int
    """How many of them were looked at."""
    share: float
    """Of all images whose captions bear the name, those that have this look."""
    purity: float
    """Lower bound of the share of the images that are not there by chance."""
    cohesion: float
    """Mean cosine of two of its images, after the mean of all images was taken off."""
    nearest: list[LikeView]
    meanings: list[Entity]
    """Known entities of this name, which the images refused."""
    examples: list[ExampleView]
    decision: DecisionView | None


class MissingReply(Reply):
    """Proposals, those that are expected to bring most right labels first."""

    total: int
    accepted: int
    """Of all decisions that hold, also those about proposals of an earlier run."""
    rejected: int
    proposals: list[ProposalView]


class DecisionsUndone(Reply):
    """Decisions that were taken back."""

    undone: int
