"""What all folders of readers of hard mentions have: fusion.json and the linear weights.

In: a folder. Out: what it says of itself, checked.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from openmofi.errors import InputError
from openmofi.link.weights import LinkWeights, load_link_weights, save_link_weights

CARD, LINEAR = "fusion.json", "weights.json"


def write_card(
    folder: Path, kind: str, version: int, weights: LinkWeights, card: dict[str, Any]
) -> None:
    """Writes what a reader's folder says of itself.

    Args:
        folder: of the reader.
        kind: pointer or decoder.
        version: of this kind.
        weights: of the linear score to which it adds.
        card: what it is and was trained on.
    """
    save_link_weights(weights, folder / LINEAR)
    write_json(folder / CARD, {"kind": kind, "version": version, **card})


def kind_of(folder: Path) -> str:
    """Returns the kind of a reader.

    Raises:
        InputError: the folder holds no reader.
    """
    return _card(folder)["kind"]


def read_card(folder: Path, kind: str, version: int) -> tuple[dict[str, Any], LinkWeights]:
    """Returns what a reader's folder says of itself, and the weights of the linear score.

    Args:
        folder: of the reader.
        kind: the one that is expected.
        version: the one that this code reads.

    Raises:
        InputError: it is not a reader's folder, or of another kind or version.
    """
    card = _card(folder)
    if (card["kind"], card["version"]) != (kind, version):
        raise InputError(
            f"{str(folder)!r} holds a {card['kind']} of version {card['version']}, but this "
            f"OpenMOFI reads a {kind} of version {version}; train it again with "
            "`openmofi kb fit --fusion`."
        )
    return card, load_link_weights(folder / LINEAR)


def _card(folder: Path) -> dict[str, Any]:
    try:
        card = json.loads((folder / CARD).read_text())
        return {**card, "kind": str(card["kind"]), "version": card["version"]}
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(
            f"{str(folder)!r} holds no fusion reader; expected a folder with {CARD}, as "
            "`openmofi kb fit --fusion` writes it."
        ) from None


def damaged(file: Path, why: str) -> InputError:
    """Returns the error of a reader whose weights cannot be read."""
    return InputError(
        f"{file.name} in {str(file.parent)!r} is damaged ({why}); train it again with "
        "`openmofi kb fit --fusion`."
    )


def write_json(path: Path, value: Sequence[Any] | dict[str, Any]) -> None:
    """Writes JSON for people."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n")
