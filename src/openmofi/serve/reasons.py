"""The schemas of answers about labels: why they were kept, what was refused, how good they are."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from openmofi.serve.replies import Entity, Reply


class CandidateView(Entity):
    """An entity that a mention may mean, with every term of its score."""

    description: str
    prior: float | None
    """p(entity | mention), by popularity alone."""
    context: float | None
    """Cosine of the caption and the entity's text."""
    coherence: float | None
    """Cosine of the entity's text and the caption's other entities."""
    type: float | None
    """Log odds of the entity's types."""
    linkability: float | None
    """Share of the name's uses, in captions, as a name."""
    case: int | None
    """1: written as the entity's name is, -1: otherwise, 0: no evidence."""
    text_score: float | None
    """Probability from the text alone."""
    clip: float | None
    """Cosine of the image and the entity's text."""
    clip_z: float | None
    """The same, standardised by the entity's own background."""
    clip_z_other: float | None
    """Mean clip_z with other captions' images."""
    score: float | None
    """Probability with the image."""


class Nil(Reply):
    """The probability that a mention means none of its candidates, or that none is shown."""

    text_score: float | None
    score: float | None


class MentionView(Reply):
    """A place of the caption that may name an entity."""

    start: int
    """First code point."""
    end: int
    """Behind its last code point."""
    surface: str
    candidates: list[CandidateView]
    nil: Nil
    text_choice: str | None
    """The choice by the text alone; null: none of them."""
    picture_choice: str | None
    """The candidate that the image agrees with most; null: none of them."""
    choice: str | None
    """The label that was kept for it; null: none."""
    said: list[str]
    """What people say of it."""


class LabelsRow(Reply):
    """A pair in the labels, as corrections name it."""

    file: int
    row: int


class Provenance(Reply):
    """Why an image has its labels, or none."""

    row: int
    caption: str
    width: int | None
    height: int | None
    text_area: float | None
    text_boxes: list[list[float]]
    """x0, y0, x1, y1 of each box, as shares of width and height."""
    kept: bool
    refused_as: str | None = Field(examples=["picture_disagrees"])
    classes: list[Entity]
    """The entities for which it is kept."""
    weights: dict[str, float] | None
    """Weights of the joint score."""
    threshold: float | None
    """Least score, or least clip_z, of a label that is kept; see threshold_on."""
    threshold_on: Literal["score", "clip_z"]
    mentions: list[MentionView]
    explanation: list[str]
    place: LabelsRow | None
    """Where corrections of it are sent; null: the server does not take any."""


class FunnelStep(Reply):
    """The pairs that were refused for one reason."""

    reason: str = Field(examples=["picture_disagrees"])
    count: int
    share: float
    """Share of all pairs."""
    meaning: str


class DataReply(Reply):
    """What a selection kept and refused."""

    name: str
    pairs: int
    kept_images: int
    kept_labels: int
    entities: int
    funnel: list[FunnelStep]
    settings: dict[str, Any]
    threshold: float | None
    calibration: dict[str, Any] | None
    histogram: dict[str, Any] | None
    """Histograms of the evidence with the images' own captions and with other captions."""


class RefusedRow(Reply):
    """A pair that was refused."""

    number: int
    """Row in refused.parquet."""
    key: str
    caption: str
    thumbnail: str


class RefusedReply(Reply):
    """Pairs that were refused for one reason."""

    reason: str
    total: int
    rows: list[RefusedRow]


class Report(Reply):
    """A report of an evaluation."""

    name: str
    url: str = Field(examples=["/evaluation/demo.html"])


class EvaluationReply(Reply):
    """The reports that are served."""

    reports: list[Report]
    results: dict[str, Any] | None
    """results.json of each report that has one, by name."""
