"""A teacher's stored vectors of a dataset: a folder written by `openmofi reinforce` -> vectors.

MobileCLIP's dataset reinforcement (arXiv 2311.17049): each image has K augmentations, and the
student is shown exactly those that the teacher saw. Only their number and a seed are stored,
because the random numbers of an augmentation follow from the image's row and the augmentation's
number.

    card.json          augmentations, seed, settings of the augmentation, fingerprints of the data
    images.npy         fp16 [images, augmentations, dim]
    captions.npy       fp16 [images, dim]
    names.npy          fp16 [classes, dim]
    descriptions.npy   fp16 [classes, dim], of "name: description"
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from openmofi.config import AugmentSettings, as_dict
from openmofi.errors import InputError, MismatchError
from openmofi.train.augment import CROPS_VERSION, NUM_DRAWS
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


def what_was_seen(data: TrainData, augment: AugmentSettings) -> dict[str, Any]:
    """Returns what a card states about the data and the augmentation."""
    names = hashlib.sha256()
    if data.vocabulary is not None:
        for column in ("label", "description"):
            names.update(json.dumps(data.vocabulary[column].to_pylist()).encode())
    changes = {name: value for name, value in as_dict(augment).items() if name != "when"}
    return {
        "data": data.fingerprint(),
        "names": names.hexdigest(),
        "augment": changes,
        "crops": CROPS_VERSION,
    }


def check_teachers(teachers: Sequence[Teacher], data: TrainData, augment: AugmentSettings) -> None:
    """Checks that the teachers saw what the student is going to see.

    Raises:
        MismatchError: they saw other data or other augmentations, or not the same ones; or the
            student is shown images without augmentation, which no teacher saw.
    """
    if teachers and augment.when != "always":
        raise MismatchError(
            f"augment.when={augment.when} shows images as they are, which no teacher saw; set "
            "augment.when=always, or leave out loss.teachers."
        )
    for teacher in teachers:
        teacher.check(data, augment)
        ours, first = (
            [t.card[name] for name in ("augmentations", "seed")] for t in (teacher, teachers[0])
        )
        if ours != first:
            raise MismatchError(
                f"The teachers in {str(teacher.folder)!r} and {str(teachers[0].folder)!r} saw "
                "different augmentations; run `openmofi reinforce` for both with the same "
                "--augmentations and seed."
            )


class Teacher:
    """The stored vectors of one teacher."""

    def __init__(self, folder: Path | str):
        """Maps the files into memory.

        Raises:
            InputError: the folder is not a finished output of `openmofi reinforce`.
        """
        folder = Path(folder)
        if not (folder / "card.json").is_file():
            raise InputError(
                f"{str(folder)!r} is not a finished output of `openmofi reinforce`; run it, or the "
                "same command again to finish it."
            )
        self.folder = folder
        self.card = json.loads((folder / "card.json").read_text())
        self.augmentations: int = self.card["augmentations"]
        self.images = np.load(folder / f"{IMAGES}.npy", mmap_mode="r")
        self._texts = [np.load(folder / f"{name}.npy", mmap_mode="r") for name in TEXTS]

    def check(self, data: TrainData, augment: AugmentSettings) -> None:
        """Checks that the vectors are of this data and augmentation.

        Raises:
            MismatchError: they are not.
        """
        ours = what_was_seen(data, augment)
        if any(self.card[name] != ours[name] for name in ("data", "names")):
            raise MismatchError(
                f"The teacher's vectors in {str(self.folder)!r} are of other data; run `openmofi "
                "reinforce` on the training data, with the same evaluation.holdout and seed."
            )
        if augment.crop < 1 and self.card.get("crops") != ours["crops"]:
            raise MismatchError(
                f"The teacher in {str(self.folder)!r} saw images cropped as an earlier "
                "version of openmofi did; run `openmofi reinforce` again with another --out."
            )
        if self.card["augment"] != ours["augment"]:
            raise MismatchError(
                f"The teacher in {str(self.folder)!r} saw images changed by "
                f"{self.card['augment']}, and this recipe changes them by {ours['augment']}; make "
                "them equal."
            )

    def __getstate__(self) -> dict[str, Any]:
        """Lets another process map the files itself, instead of receiving their content."""
        return {"folder": self.folder}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["folder"])

    def choose(self, draws: Float[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
        """Returns the number of the augmentation that a draw from [0, 1) selects."""
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
