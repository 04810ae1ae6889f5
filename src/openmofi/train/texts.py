"""The text with which an image is paired in a step: a caption, an entity's name or description."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Int

from openmofi.errors import SettingsError
from openmofi.train.data import TrainData

KINDS = ("caption", "name", "description", "synthetic")


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

    def choose(
        self, rows: Int[np.ndarray, " n"], draws: Float[np.ndarray, " n"]
    ) -> Int[np.ndarray, " n"]:
        """Returns which of its synthetic captions draws from [0, 1) select of each image."""
        synthetic = self._data.synthetic
        if synthetic is None:
            return np.zeros(len(rows), np.int64)
        return synthetic.choose(self._data.rows.of(rows), draws)

    def texts(
        self,
        kinds: Int[np.ndarray, " n"],
        rows: Int[np.ndarray, " n"],
        targets: Int[np.ndarray, " n"],
        synthetic: Int[np.ndarray, " n"],
    ) -> list[str]:
        """Returns one text per row.

        Args:
            kinds: numbers in KINDS.
            rows: the images.
            targets: their classes in this step.
            synthetic: numbers of their synthetic captions.
        """
        here = {name: np.flatnonzero(kinds == kind) for kind, name in enumerate(KINDS)}
        texts = np.full(len(kinds), "", object)
        captions = self._data.records(rows[here["caption"]], ["caption"])["caption"]
        texts[here["caption"]] = captions.to_pylist()
        for name, known in (("name", self.names), ("description", self.descriptions)):
            texts[here[name]] = [known[target] for target in targets[here[name]]]
        if len(here["synthetic"]):
            lists = self._data.synthetic_texts(rows[here["synthetic"]])
            chosen = synthetic[here["synthetic"]]
            texts[here["synthetic"]] = [
                written[number] for written, number in zip(lists, chosen, strict=True)
            ]
        return texts.tolist()


def check_kinds(data: TrainData, kinds: Sequence[str]) -> None:
    """Checks that images can be paired with the kinds of texts that a recipe lists.

    Raises:
        SettingsError: a kind does not exist, or needs entities, which raw pairs do not have, or
            synthetic captions, of which there is no file; or there is one for nothing.
    """
    if set(kinds) - set(KINDS) or not kinds:
        known = f"{', '.join(KINDS[:-1])} and {KINDS[-1]}"
        raise SettingsError(f"loss.text may list {known}; got {list(kinds)}.")
    if data.vocabulary is None and set(kinds) - {"caption", "synthetic"}:
        raise SettingsError(
            "Raw pairs have no entities: set loss.text to [caption], or pass the output of "
            "`openmofi select` as --data."
        )
    if "synthetic" in kinds and data.synthetic is None:
        raise SettingsError(
            "loss.text lists synthetic, but there are no such captions; name a table of them, as "
            "in --set loss.synthetic=captions.parquet."
        )
    if "synthetic" not in kinds and data.synthetic is not None:
        raise SettingsError(
            f"loss.synthetic is set, but loss.text lists only {list(kinds)}; add synthetic there, "
            "or leave out loss.synthetic."
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
