"""The weights of the linker's score: a few numbers in a readable JSON file."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from openmofi.errors import InputError

TERMS = ("prior", "context", "coherence", "type", "linkability", "case", "detected")
"""The terms that have a weight, see disambiguate.py."""


@dataclass(frozen=True)
class LinkWeights:
    """How much each term of the score counts."""

    prior: float
    context: float
    coherence: float
    type: float
    linkability: float
    case: float
    detected: float
    nil: float
    """Log odds of NIL, that is of no entity of the knowledge base, where no term says anything."""
    types: dict[str, float] = field(default_factory=dict)
    """Type -> log odds that an entity of this type is meant."""
    fitted_on: str = ""


def load_link_weights(path: Path | str | None = None) -> LinkWeights:
    """Returns the weights of a JSON file; without one, those that ship with the package.

    Raises:
        InputError: the file is missing or is not such a file.
    """
    source = Path(path) if path else files("openmofi.link") / "weights.json"
    try:
        return _parse(json.loads(source.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise InputError(
            f"{str(path)!r} does not hold the linker's weights; expected JSON with "
            f"{', '.join(TERMS)} and nil, as `openmofi kb fit` writes it."
        ) from None


def _parse(values: dict[str, Any]) -> LinkWeights:
    return LinkWeights(
        **{name: float(values[name]) for name in (*TERMS, "nil")},
        types={str(name): float(value) for name, value in values.get("types", {}).items()},
        fitted_on=str(values.get("fitted_on", "")),
    )


def save_link_weights(weights: LinkWeights, path: Path) -> None:
    """Writes weights as JSON that a person can read and change."""
    path.write_text(json.dumps(asdict(weights), indent=2, ensure_ascii=False) + "\n")
