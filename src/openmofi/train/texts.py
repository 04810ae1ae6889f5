"""Which text an image is paired with in a step: its caption, entity name, or description."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from openmofi.errors import SettingsError
from openmofi.train.data import TrainData


class TextMix:
    """Draws one text per image and step from the kinds a recipe names."""

    def __init__(self, data: TrainData, kinds: tuple[str, ...], *, seed: int):
        unknown = set(kinds) - {"caption", "name", "description"}
        if unknown or not kinds:
            raise SettingsError(
                f"loss.text may list caption, name and description; got {list(kinds)}."
            )
        if data.vocabulary is None and set(kinds) != {"caption"}:
            raise SettingsError(
                "Raw pairs have no entities: set loss.text to [caption], or pass the output of "
                "`openmofi select` as --data."
            )
        self.kinds, self.seed = kinds, seed
        self._captions = data.table["caption"]
        self._classes = data.classes
        if data.vocabulary is not None:
            self._names = data.vocabulary["label"].to_pylist()
            self._descriptions = [
                f"{name}: {text}" if text else name
                for name, text in zip(
                    self._names, data.vocabulary["description"].to_pylist(), strict=True
                )
            ]

    def draw(self, rows: np.ndarray, targets: np.ndarray, *, step: int) -> list[str]:
        """Returns one text per row; `targets` are the classes meant in this step."""
        random = np.random.default_rng([self.seed, step])
        kinds = random.integers(len(self.kinds), size=len(rows))
        return [
            self._text(self.kinds[kind], int(row), int(target))
            for kind, row, target in zip(kinds, rows, targets, strict=True)
        ]

    def _text(self, kind: str, row: int, target: int) -> str:
        if kind == "caption":
            return self._captions[row].as_py()
        return (self._names if kind == "name" else self._descriptions)[target]


def same_meaning(targets: np.ndarray, texts: Sequence[str]) -> torch.Tensor:
    """Returns int64 groups [batch]: rows of one entity, or of one text, are in one group.

    Two entities of one name, the country Georgia and the state, must not be told apart by it.
    """
    groups = np.arange(len(targets))
    seen: dict[object, int] = {}
    for row, keys in enumerate(zip(targets.tolist(), texts, strict=True)):
        known = {groups[seen[key]] for key in keys if key in seen and key != -1}
        for group in known:
            groups[groups == group] = row
        seen.update((key, row) for key in keys)
    return torch.from_numpy(groups)


def targets_of(data: TrainData, rows: np.ndarray) -> np.ndarray:
    """Returns int64 class indices [batch, K], padded with -1; [batch, 1] of -1 for raw pairs."""
    if not data.classes:
        return np.full((len(rows), 1), -1, dtype=np.int64)
    lists = [data.classes[row] for row in rows]
    targets = np.full((len(rows), max(map(len, lists))), -1, dtype=np.int64)
    for i, classes in enumerate(lists):
        targets[i, : len(classes)] = classes
    return targets
