"""The schemas of clients' requests, with a bound on every number and length.

Unknown fields are rejected, so that no term can name a URL; so are NaN and infinity.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag

from openmofi.search import Filter

MOST_HITS = 500
DEEPEST = 100_000
"""Largest offset."""


def _whole(value: Any) -> Any:
    """Accepts 5.0 as 5, as JSON Schema does."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


_WHOLE = BeforeValidator(_whole)
_NO_NUL = r"^[^\x00]*$"
Words = Annotated[str, Field(min_length=1, max_length=2_000, pattern=_NO_NUL)]
EntityId = Annotated[str, Field(min_length=1, max_length=200, pattern=_NO_NUL)]
Name = Annotated[str, Field(min_length=1, max_length=500, pattern=_NO_NUL)]
UploadId = Annotated[str, Field(pattern="^[0-9a-f]{32}$")]
Row = Annotated[int, Field(ge=0, lt=2**48), _WHOLE]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Weight = Annotated[float, Field(ge=-10, le=10, allow_inf_nan=False)]
_Coordinate = Annotated[float, Field(ge=-10, le=10, allow_inf_nan=False)]
Point = Annotated[list[_Coordinate], Field(min_length=2, max_length=2)]
Nothing = Annotated[list[Point], Field(max_length=0)]
Polygon = Annotated[list[Point], Field(min_length=3, max_length=1_000)]


class Question(BaseModel):
    """Any JSON request of a client."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, strict=True)


class _WeightedTerm(Question):
    weight: Weight = 1.0
    """Weight of the term; negative: search away from it; 0: ignore it."""


class TextTerm(_WeightedTerm):
    """Searches for what a text describes."""

    text: Words = Field(examples=["a red flag with a white cross"])
    """The text."""


class UploadTerm(_WeightedTerm):
    """Searches for what an uploaded image shows."""

    upload: UploadId = Field(examples=["0123456789abcdef0123456789abcdef"])
    """Id that POST /api/uploads gave."""


class RowTerm(_WeightedTerm):
    """Searches for images like one of the index."""

    row: Row = Field(examples=[17])
    """Row of the index."""


class EntityTerm(_WeightedTerm):
    """Searches for images typical of an entity."""

    entity: EntityId = Field(examples=["Q142"])
    """Id or name of the entity."""


def _first_of(given: Any, kinds: tuple[str, ...]) -> str | None:
    """Returns the first of the fields that an object has."""
    return next((kind for kind in kinds if isinstance(given, dict) and kind in given), None)


def _term_kind(term: Any) -> str | None:
    return _first_of(term, ("text", "upload", "row", "entity"))


AnyTerm = Annotated[
    Annotated[TextTerm, Tag("text")]
    | Annotated[UploadTerm, Tag("upload")]
    | Annotated[RowTerm, Tag("row")]
    | Annotated[EntityTerm, Tag("entity")],
    Discriminator(
        _term_kind,
        custom_error_type="term_kind",
        custom_error_message="a term has one of text, upload, row and entity",
    ),
]


class SearchFilter(Question):
    """Conditions that all hits must meet."""

    entities: list[EntityId] = Field([], max_length=200, examples=[["Q142"]])
    """Any of these entities."""
    not_entities: list[EntityId] = Field([], max_length=200)
    """Not any of these entities."""
    types: list[EntityId] = Field([], max_length=200, examples=[["Q6256"]])
    """An entity of any of these types."""
    sources: list[Name] = Field([], max_length=200)
    """Any of these sources."""
    min_label_score: Share | None = None
    """Least score of a label."""
    max_text_area: Share | None = None
    """Largest share of the image that text covers."""
    lasso: Nothing | Polygon = Field([])
    """Corners of a polygon on the map, with coordinates from 0 to 1; at least three, or none."""

    def conditions(self) -> Filter:
        """Returns the conditions as the index's filter."""
        return Filter(
            entities=tuple(self.entities),
            not_entities=tuple(self.not_entities),
            types=tuple(self.types),
            sources=tuple(self.sources),
            min_label_score=self.min_label_score,
            max_text_area=self.max_text_area,
            lasso=tuple((x, y) for x, y in self.lasso),
        )


class SearchQuestion(Question):
    """A query of the index; without terms, the index is browsed."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "terms": [{"text": "red flag"}, {"entity": "Q39", "weight": -0.5}],
                    "filter": {"types": ["Q6256"]},
                    "k": 20,
                }
            ]
        }
    )
    terms: list[AnyTerm] = Field([], max_length=32)
    """What to search for: a weighted mix of terms."""
    filter: SearchFilter = SearchFilter()
    """Conditions that all hits must meet."""
    min_score: Annotated[float, Field(ge=-1, le=1, allow_inf_nan=False)] | None = None
    """Least similarity; if given, it alone decides what is found."""
    absent_rate: Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)] | None = None
    """Share of the queries for absent things that may find something; null: the rate that the index
    was calibrated for."""
    k: Annotated[int, Field(ge=1, le=MOST_HITS), _WHOLE] = 60
    """Number of hits."""
    offset: Annotated[int, Field(ge=0, le=DEEPEST), _WHOLE] = 0
    """Number of hits to skip first."""
    facets: bool = True
    """Whether to count entities, types and sources."""


class _Tagged(Question):
    k: Annotated[int, Field(ge=1, le=50), _WHOLE] = 5
    """Number of entities."""
    error_rate: Share | None = None
    """Share of wrong answers above which the model abstains; null: the server's own if the model is
    calibrated, else it never abstains."""


class TagUpload(_Tagged):
    """Asks what an uploaded image shows."""

    upload: UploadId
    """Id that POST /api/uploads gave."""


class TagRow(_Tagged):
    """Asks what an image of the index shows."""

    row: Row
    """Row of the index."""


class Login(Question):
    """Requests the cookie."""

    token: Annotated[str, Field(max_length=1_000)] = Field(examples=["the token of openmofi serve"])
    """The server's token."""


def _tagged_kind(question: Any) -> str | None:
    return _first_of(question, ("upload", "row"))


TagQuestion = Annotated[
    Annotated[TagUpload, Tag("upload")] | Annotated[TagRow, Tag("row")],
    Discriminator(
        _tagged_kind,
        custom_error_type="tag_kind",
        custom_error_message="a question has one of upload and row",
    ),
]
