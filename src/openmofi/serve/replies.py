"""The schemas of the server's answers, from which OpenAPI is generated."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from openmofi.serve.marks import Mark


class Reply(BaseModel):
    """Any JSON answer of the server."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class Problem(Reply):
    """Why a request was refused."""

    code: str = Field(examples=["not_found"])
    """For programs: snake_case."""
    message: str = Field(examples=["There is no image 7; the index has rows 0 to 5."])
    """For people: one sentence."""


class Failure(Reply):
    """A refusal."""

    error: Problem


class Health(Reply):
    """Whether the server is running."""

    status: Literal["ok"] = "ok"


class Abilities(Reply):
    """What this server can do with what it was given."""

    text: bool
    """Search by text."""
    upload: bool
    """Search by an uploaded image, and tag it."""
    entities: bool
    """Show names, types and descriptions of entities from a knowledge base."""
    provenance: bool
    """Show why a label was kept."""
    map: bool
    """Show all images as points."""
    data: bool
    """Show what a selection kept and refused."""
    evaluation: bool
    """Show reports of evaluations."""


class Info(Reply):
    """What is served."""

    name: str = Field(examples=["demo"])
    images: int
    """Number of images that are not deleted."""
    entities: int
    """Number of entities that any image shows."""
    dim: int
    """Length of the vectors."""
    model: str
    """The encoder's folder or hub id; empty if unknown."""
    kb: str
    """The knowledge base's folder; empty if unknown."""
    selection: str
    """The selection that the labels come from; empty if unknown."""
    has: Abilities
    max_upload_bytes: int
    generation: int
    """Number that grows with every change of the index."""
    version: str = Field(examples=["0.1.0"])
    """Version of OpenMOFI."""


class Entity(Reply):
    """An entity with its label."""

    id: str = Field(examples=["Q142"])
    label: str = Field(examples=["France"])


class ImageEntity(Entity):
    """An entity that an image is labelled with."""

    score: float | None
    """Score of the label, 0 to 1; null if unknown."""


class HitView(Reply):
    """An image of the index."""

    row: int
    """Row number, which stays the same until the index is compacted."""
    id: str
    score: float | None
    """Cosine with the query; null without one."""
    caption: str
    source: str
    url: str
    """Its source on the web; the server never fetches it."""
    text_area: float | None
    """Share of the image that text covers; null if not measured."""
    entities: list[ImageEntity]
    marks: list[Mark]
    """corrected: people said something of its labels; audited: its label was checked; doubtful: a
    label's score is below .9."""
    thumbnail: str = Field(examples=["/api/images/17/thumbnail?v=5f0c"])
    """URL of its thumbnail; `&side=128`, 256 or 512 may be added."""
    image: str = Field(examples=["/api/images/17/file"])
    """URL of the image itself."""


class ImageView(HitView):
    """An image of the index with its size."""

    width: int | None
    """null: its file is gone, or is not an image."""
    height: int | None


class CountedEntity(Entity):
    """An entity and the number of images that show it."""

    count: int


class CountedSource(Reply):
    """A source and the number of images that come from it."""

    name: str
    count: int


class Facets(Reply):
    """The 50 most frequent of each among the rows that were counted."""

    entities: list[CountedEntity]
    types: list[CountedEntity]
    sources: list[CountedSource]
    of: int
    """Number of rows that were counted: without terms all that pass, else the 1,000 nearest."""


class TermView(Reply):
    """A term as it was understood."""

    kind: Literal["text", "upload", "row", "entity"]
    label: str
    weight: float
    thumbnail: str | None = None


class SearchReply(Reply):
    """The result of a search."""

    found: bool | None
    """Whether the index holds what was asked for; false: the hits are only the nearest; null: not
    known, as for a mix of terms, or where `openmofi index calibrate` has not run."""
    p_value: float | None
    """How often a query for something absent looks as present as this one; null: not computed."""
    presence: str
    """Why it was found or not, or why nobody can tell, in one sentence."""
    hits: list[HitView]
    total: int
    """Number of rows that pass the filter."""
    plan: str = Field(examples=["approximate"])
    """browse, exact or approximate."""
    seconds: float
    facets: Facets | None
    terms: list[TermView]


class UploadReply(Reply):
    """An uploaded image."""

    id: str = Field(examples=["0123456789abcdef0123456789abcdef"])
    """The first half of its SHA-256."""
    width: int
    height: int
    thumbnail: str


class EvidenceView(Reply):
    """The evidence for a tag."""

    class_score: float | None
    """Cosine with the entity's class row; null: the model was not trained on it."""
    text_score: float | None
    """Cosine with the entity's text."""
    prior: float | None
    """The entity's share of the popularity of all that may be named."""
    nearest: list[HitView]
    """The nearest images that are labelled with it."""


class TagView(Entity):
    """An entity that an image may show."""

    description: str
    score: float
    probability: float | None
    """Probability that it is right; null if the model is not calibrated."""
    evidence: EvidenceView


class TagReply(Reply):
    """What an image may show."""

    tags: list[TagView]
    abstains: bool
    """Whether all of them are too uncertain."""
    reason: str
    """Why it abstains, or why not, in one sentence."""


class NamedEntity(Entity):
    """An entity that was found by a name."""

    thumbnail: str | None
    """Of its surest image."""
    description: str
    images: int
    name: str
    """The name that matched."""


class EntityList(Reply):
    """Entities by name, or by the number of images that show them."""

    entities: list[NamedEntity]


class Sibling(Entity):
    """An entity whose images look alike."""

    thumbnail: str | None
    """Of its surest image."""
    images: int
    similarity: float
    """Cosine of the mean vectors."""


class Relative(Entity):
    """An entity of the same type."""

    thumbnail: str | None
    """Of its surest image."""
    images: int


class Confusion(Entity):
    """An entity that is found among the nearest images."""

    thumbnail: str | None
    """Of its surest image."""
    share: float
    """Share of the neighbours that were looked at."""
    images: int


class NameCandidate(Entity):
    """What a name may mean."""

    prior: float
    """p(entity | name)."""


class SharedName(Reply):
    """A name that may also mean other entities."""

    name: str
    candidates: list[NameCandidate]


class EntityReply(Entity):
    """The details of an entity."""

    description: str
    aliases: dict[str, list[str]] = Field(examples=[{"en": ["France", "French Republic"]}])
    """Names by language."""
    types: list[Entity]
    images: int
    popularity_rank: int | None
    """Rank by popularity; 0 is the most popular entity of the knowledge base."""
    wikidata: str | None
    """URL of its page in Wikidata; the server never fetches it."""
    siblings: list[Sibling]
    same_type: list[Relative]
    confused: list[Confusion]
    names_shared: list[SharedName]
    thumbnail: str | None
    """Of its surest image."""


class MapClass(Entity):
    """The entity that a colour of the map stands for."""

    count: int


class MapInfo(Reply):
    """The points and classes of the map."""

    points: int
    classes: list[MapClass]
    """The most frequent entities; class 255 stands for all others."""
    bounds: tuple[float, float, float, float] = (0, 0, 1, 1)
