"""The text with which an image is paired in a step: its caption, entity name, or description."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
from jaxtyping import Float, Int

from openmofi.errors import SettingsError
from openmofi.train.data import TrainData

KINDS = ("caption", "name", "description")


class TextMix:
    """Draws one text per image and step from the kinds that a recipe lists."""

    def __init__(self, data: TrainData, kinds: tuple[str, ...]):
        if set(kinds) - set(KINDS) or not kinds:
            raise SettingsError(
                f"loss.text may list caption, name and description; got {list(kinds)}."
            )
        if data.vocabulary is None and set(kinds) != {"caption"}:
            raise SettingsError(
                "Raw pairs have no entities: set loss.text to [caption], or pass the output of "
                "`openmofi select` as --data."
            )
        self._kinds = kinds
        self._data = data
        self.names: list[str] = []
        self.descriptions: list[str] = []
        if data.vocabulary is not None:
            self.names = data.vocabulary["label"].to_pylist()
            self.descriptions = [
                f"{name}: {text}" if text else name
                for name, text in zip(
                    self.names, data.vocabulary["description"].to_pylist(), strict=True
                )
            ]

    def kinds(self, draws: Float[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
        """Returns the numbers in KINDS that draws from [0, 1) choose."""
        choice = (draws * len(self._kinds)).astype(np.int64)
        return np.array([KINDS.index(kind) for kind in self._kinds])[choice]

    def texts(self, kinds: np.ndarray, rows: np.ndarray, targets: np.ndarray) -> list[str]:
        """Returns one text per row; `targets` are the chosen classes of this step."""
        is_caption = kinds == KINDS.index("caption")
        captions = iter(self._data.records(rows[is_caption], ["caption"])["caption"].to_pylist())
        of_entity = (self.names, self.descriptions)
        return [
            next(captions) if kind == 0 else of_entity[kind - 1][target]
            for kind, target in zip(kinds.tolist(), targets.tolist(), strict=True)
        ]


def meaning_keys(targets: np.ndarray, texts: Sequence[str]) -> Int[np.ndarray, "batch 2"]:
    """Returns (entity, hash of the text) of each pair; -1 means no entity.

    Two pairs that share one of these are not each other's negatives: neither two images of one
    entity, nor two entities paired with the same name, such as the country and the state Georgia.
    The entity is the chosen one; `losses.no_negatives` gets the other entities of an image
    separately.
    """
    hashes = [
        int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()) >> 1
        for text in texts
    ]
    return np.stack([targets.astype(np.int64), np.array(hashes, dtype=np.int64)], axis=1)
