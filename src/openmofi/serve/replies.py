"""The shapes of what the server answers; OpenAPI is written from them."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class Reply(BaseModel):
    """Anything the server answers as JSON."""

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
    """Whether the server lives."""

    status: Literal["ok"] = "ok"


class Abilities(Reply):
    """What this server can do, by what it was given."""

    text: bool
    """Search by text."""
    upload: bool
    """Search by an uploaded image, and tag it."""
    entities: bool
    """Names, types and descriptions of entities: there is a knowledge base."""
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
    """Images that are not deleted."""
    entities: int
    """Entities that any image shows."""
    dim: int
    """Length of the vectors."""
    model: str
    """The encoder's folder or hub id; empty where none is known."""
    kb: str
    """The knowledge base's folder; empty where none is known."""
    selection: str
    """The selection that the labels come from; empty where none is known."""
    has: Abilities
    max_upload_bytes: int
    generation: int
    """Grows with every change of the index."""
    version: str = Field(examples=["0.1.0"])
    """Of OpenMOFI."""


class Entity(Reply):
    """An entity, named."""

    id: str = Field(examples=["Q142"])
    label: str = Field(examples=["France"])


class ImageEntity(Entity):
    """An entity that an image is labelled with."""

    score: float | None
    """Of the label, 0 to 1; null where it is not known."""


class HitView(Reply):
    """An image of the index."""

    row: int
    """Its number, the same as long as the index lives."""
    id: str
    score: float | None
    """Cosine with the question; null without one."""
    caption: str
    source: str
    url: str
    """Where it was found; the server never fetches it."""
    text_area: float | None
    """Share of the image that text covers; null where nobody measured."""
    entities: list[ImageEntity]
    thumbnail: str = Field(examples=["/api/images/17/thumbnail?v=5f0c"])
    """Where its thumbnail is; `&side=128`, 256 or 512 may be added."""
    image: str = Field(examples=["/api/images/17/file"])
    """Where the image itself is."""


class ImageView(HitView):
    """An image of the index, looked at."""

    width: int | None
    """None: its file is gone, or no image."""
    height: int | None


class CountedEntity(Entity):
    """An entity, and how many images show it."""

    count: int


class CountedSource(Reply):
    """A source, and how many images come from it."""

    name: str
    count: int


class Facets(Reply):
    """The 50 most frequent of each among the rows that were counted."""

    entities: list[CountedEntity]
    types: list[CountedEntity]
    sources: list[CountedSource]
    of: int
    """Rows that were counted: all that pass without terms, else the 1,000 nearest."""


class TermView(Reply):
    """A term as it was understood."""

    kind: Literal["text", "upload", "row", "entity"]
    label: str
    weight: float
    thumbnail: str | None = None


class SearchReply(Reply):
    """What was found."""

    hits: list[HitView]
    total: int
    """Rows that pass the filter."""
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
    """What speaks for a tag."""

    class_score: float | None
    """Cosine with the entity's class row; null: the model was not trained on it."""
    text_score: float | None
    """Cosine with the entity's text."""
    prior: float | None
    """How popular the entity is."""
    nearest: list[HitView]
    """The nearest images that are labelled with it."""


class TagView(Entity):
    """An entity that an image may show."""

    description: str
    score: float
    probability: float | None
    """That it is right; null where nothing was calibrated."""
    evidence: EvidenceView


class TagReply(Reply):
    """What an image may show."""

    tags: list[TagView]
    abstains: bool
    """Whether none of them is sure enough."""
    reason: str
    """Why it abstains, or why not, in one sentence."""


class NamedEntity(Entity):
    """An entity that a name was found for."""

    thumbnail: str | None
    """Of its surest image."""
    description: str
    images: int
    name: str
    """The name that matched."""


class EntityList(Reply):
    """Entities by name, or by how many images show them."""

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
    """Of the neighbours looked at."""
    images: int


class NameCandidate(Entity):
    """What a name may mean."""

    prior: float
    """p(entity | name)."""


class SharedName(Reply):
    """A name that means other entities, too."""

    name: str
    candidates: list[NameCandidate]


class EntityReply(Entity):
    """All that is known of an entity."""

    description: str
    aliases: dict[str, list[str]] = Field(examples=[{"en": ["France", "French Republic"]}])
    """Names by language."""
    types: list[Entity]
    images: int
    popularity_rank: int | None
    """0 is the most popular of the knowledge base."""
    wikidata: str | None
    """Its page there; the server never fetches it."""
    siblings: list[Sibling]
    same_type: list[Relative]
    confused: list[Confusion]
    names_shared: list[SharedName]
    thumbnail: str | None
    """Of its surest image."""


class MapClass(Entity):
    """What a colour of the map stands for."""

    count: int


class MapInfo(Reply):
    """What the map shows."""

    points: int
    classes: list[MapClass]
    """The most frequent entities; class 255 is any other."""
    bounds: tuple[float, float, float, float] = (0, 0, 1, 1)
