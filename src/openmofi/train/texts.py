"""The text with which an image is paired in a step: its caption, entity name, or description."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Int

from openmofi.errors import SettingsError
from openmofi.train.data import TrainData

KINDS = ("caption", "name", "description")


class TextMix:
    """Draws one text per image and step from the kinds that a recipe lists."""

    def __init__(self, data: TrainData, kinds: tuple[str, ...]):
        check_kinds(data, kinds)
        self._kinds = kinds
        self._data = data
        self.names: list[str] = []
        self.descriptions: list[str] = []
        if data.vocabulary is not None:
            self.names, self.descriptions = entity_texts(data.vocabulary)

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


def check_kinds(data: TrainData, kinds: Sequence[str]) -> None:
    """Checks that images can be paired with the kinds of texts that a recipe lists.

    Raises:
        SettingsError: a kind does not exist, or needs entities, which raw pairs do not have.
    """
    if set(kinds) - set(KINDS) or not kinds:
        raise SettingsError(f"loss.text may list caption, name and description; got {list(kinds)}.")
    if data.vocabulary is None and set(kinds) != {"caption"}:
        raise SettingsError(
            "Raw pairs have no entities: set loss.text to [caption], or pass the output of "
            "`openmofi select` as --data."
        )


def entity_texts(vocabulary: pa.Table) -> tuple[list[str], list[str]]:
    """Returns the names of entities, and "name: description" of each."""
    names = vocabulary["label"].to_pylist()
    texts = zip(names, vocabulary["description"].to_pylist(), strict=True)
    return names, [f"{name}: {text}" if text else name for name, text in texts]


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
