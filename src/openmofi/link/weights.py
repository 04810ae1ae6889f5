"""The weights of the linker's score: a few numbers in a readable JSON file."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from importlib.resources import files
from pathlib import Path

from openmofi.errors import InputError

TERMS = ("prior", "context", "coherence", "type", "linkability", "case", "detected")
"""The terms that have a weight, see disambiguate.py."""


@dataclass(frozen=True)
class LinkWeights:
    """The weight of each term of the score."""

    prior: float
    context: float
    coherence: float
    type: float
    linkability: float
    case: float
    detected: float
    nil: float
    """Log odds of NIL, that is of no entity of the knowledge base, if all terms are 0."""
    standardised: bool = False
    """Whether context and coherence are standardised cosines, as those of text encoders are, and
    not the plain ones of words."""
    types: dict[str, float] = field(default_factory=dict)
    """Type -> log odds that an entity of this type is meant."""
    fitted_on: str = ""


def load_link_weights(path: Path | str | None = None, standardised: bool = False) -> LinkWeights:
    """Returns the weights of a JSON file, by default those of the package.

    Args:
        path: the file.
        standardised: which of the package's, for standardised or for plain cosines.

    Raises:
        InputError: the file is missing or does not hold weights.
    """
    own = "weights_of_text_encoders.json" if standardised else "weights.json"
    source = Path(path) if path else files("openmofi.link") / own
    try:
        values = json.loads(source.read_text(encoding="utf-8"))
        return LinkWeights(
            **{name: float(values[name]) for name in (*TERMS, "nil")},
            standardised=bool(values.get("standardised", False)),
            types={str(name): float(value) for name, value in values.get("types", {}).items()},
            fitted_on=str(values.get("fitted_on", "")),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise InputError(
            f"{str(path)!r} does not hold the linker's weights; expected JSON with "
            f"{', '.join(TERMS)} and nil, as `openmofi kb fit` writes it."
        ) from None


def check_scale(weights: LinkWeights, standardised: bool) -> None:
    """Refuses weights that were fitted to words for a text encoder, and the other way round.

    Raises:
        InputError: they were.
    """
    if weights.standardised != standardised:
        fitted, used = (
            ("a text encoder", "words") if weights.standardised else ("words", "a text encoder")
        )
        raise InputError(
            f"The weights were fitted with {fitted} as context, which now is {used}; fit others "
            "with `openmofi kb fit --context`, or change the context."
        )


def save_link_weights(weights: LinkWeights, path: Path) -> None:
    """Writes weights as JSON that people can read and change."""
    path.write_text(json.dumps(asdict(weights), indent=2, ensure_ascii=False) + "\n")
