"""What a teacher made of a dataset, stored once: a folder of `openmofi reinforce` -> vectors.

MobileCLIP's dataset reinforcement (arXiv 2311.17049): each image has K augmentations, and the
student is shown exactly those that the teacher saw. Nothing but their number and a seed has to be
stored, for the random numbers of an augmentation follow from the row and its number.

    card.json          augmentations, seed, settings of the augmentation, fingerprint of the data
    images.npy         fp16 [images, augmentations, dim]
    captions.npy       fp16 [images, dim]
    names.npy          fp16 [classes, dim]
    descriptions.npy   fp16 [classes, dim], of "name: description"
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from openmofi.config import AugmentSettings, as_dict
from openmofi.errors import InputError, MismatchError
from openmofi.train.augment import NUM_DRAWS
from openmofi.train.data import TrainData
from openmofi.train.order import uniform
from openmofi.train.texts import KINDS

IMAGES = "images"
TEXTS = ("captions", "names", "descriptions")
"""Files of the kinds of texts, in the order of texts.KINDS."""


def teacher_draws(
    rows: Int[np.ndarray, " n"], numbers: Int[np.ndarray, " n"], *, augmentations: int, seed: int
) -> Float[np.ndarray, "n draws"]:
    """Returns the random numbers of augmentation `numbers[i]` of image `rows[i]`."""
    return uniform(rows * augmentations + numbers, columns=NUM_DRAWS, key=seed)


class Teacher:
    """The stored vectors of one teacher."""

    def __init__(self, folder: Path | str):
        """Maps the files into memory.

        Raises:
            InputError: they are not there.
        """
        folder = Path(folder)
        if not (folder / "card.json").is_file():
            raise InputError(
                f"{str(folder)!r} is no finished output of `openmofi reinforce`; run it, or the "
                "same command again to finish it."
            )
        self.folder = folder
        self.card = json.loads((folder / "card.json").read_text())
        self.augmentations: int = self.card["augmentations"]
        self.images = np.load(folder / f"{IMAGES}.npy", mmap_mode="r")
        self._texts = [np.load(folder / f"{name}.npy", mmap_mode="r") for name in TEXTS]

    def check(self, data: TrainData, augment: AugmentSettings) -> None:
        """Refuses vectors of other data or of other augmentations.

        Raises:
            MismatchError: they are.
        """
        if self.card["data"] != data.fingerprint():
            raise MismatchError(
                f"The teacher's vectors in {str(self.folder)!r} are of other data; run `openmofi "
                "reinforce` on what you train on, with the same evaluation.holdout and seed."
            )
        ours = {name: value for name, value in as_dict(augment).items() if name != "when"}
        if self.card["augment"] != ours:
            raise MismatchError(
                f"The teacher in {str(self.folder)!r} saw pictures changed by "
                f"{self.card['augment']}, and this recipe changes them by {ours}; make them equal."
            )

    def choose(self, draws: Float[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
        """Returns the number of the augmentation that a draw from [0, 1) means."""
        return (draws * self.augmentations).astype(np.int64)

    def draws(
        self, rows: Int[np.ndarray, " n"], numbers: Int[np.ndarray, " n"]
    ) -> Float[np.ndarray, "n draws"]:
        """Returns the random numbers of some augmentations."""
        return teacher_draws(
            rows, numbers, augmentations=self.augmentations, seed=self.card["seed"]
        )

    def vectors(
        self,
        rows: Int[np.ndarray, " n"],
        numbers: Int[np.ndarray, " n"],
        kinds: Int[np.ndarray, " n"],
        targets: Int[np.ndarray, " n"],
    ) -> tuple[Float[np.ndarray, "n E"], Float[np.ndarray, "n E"]]:
        """Returns the unit vectors of the augmented images and of their texts."""
        images = self.images[rows, numbers].astype(np.float32)
        texts = np.zeros_like(images)
        for kind, name in enumerate(KINDS):
            here = kinds == kind
            index = rows[here] if name == "caption" else targets[here]
            texts[here] = self._texts[kind][index]
        return images, texts
