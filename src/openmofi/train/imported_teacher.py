"""Vectors that came with a dataset: a folder of import_reinforced.py -> vectors and versions.

It stands in a run where a `Teacher` stands. The versions that its images are shown in are not drawn
but stored, so the batches' pixels are changed already when they leave the loader.

    images/     row: int64, the image's place; image: fp16 [versions * dim]; caption: fp16 [dim];
                synthetic: fp16 [most * dim]; boxes: int32 [versions * 4]; operations: int8,
                magnitudes: float32 [versions * ops]; size: int32 [2], width and height, or zeros
    captions/   Parquet: key, shard, synthetic: what `loss.synthetic` reads
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from openmofi.config import AugmentSettings
from openmofi.errors import InputError, MismatchError
from openmofi.shards import commits
from openmofi.train.data import TrainData
from openmofi.train.datacompdr import num_teachers
from openmofi.train.replay import Version
from openmofi.train.teacher import Teacher, map_columns, read_card, read_plan
from openmofi.train.texts import KINDS

IMPORTED = "imported"
"""Entry of a card that says so."""
AS_STORED = {"crop": 1.0, "colour": 0.0, "flip": False, "rand_ops": 0, "when": "always"}
"""Settings under augment.* that leave images as the loader gives them."""


def open_teachers(
    folders: Sequence[str], *, synthetic: str | None
) -> list[Teacher | ImportedTeacher]:
    """Opens the folders of a recipe; an imported one holds several teachers.

    Args:
        folders: `loss.teachers`.
        synthetic: `loss.synthetic`.

    Raises:
        InputError: a folder is not a finished output of `openmofi reinforce`.
        MismatchError: the synthetic captions are not those of an imported folder.
    """
    teachers: list[Teacher | ImportedTeacher] = []
    for place in map(Path, folders):
        if IMPORTED not in read_card(place):
            teachers.append(Teacher(place))
            continue
        if synthetic is not None and Path(synthetic).resolve() != place.resolve():
            raise MismatchError(
                f"The vectors in {str(place)!r} are of the synthetic captions that came with them, "
                f"and this recipe names {synthetic!r}; set loss.synthetic={place}."
            )
        first = ImportedTeacher(place, 0)
        teachers += [first, *(ImportedTeacher(place, n) for n in range(1, first.num_teachers))]
    return teachers


def check_texts(teachers: Sequence[Teacher | ImportedTeacher], kinds: Sequence[str]) -> None:
    """Checks that there are vectors of all texts that a recipe lists.

    Raises:
        MismatchError: there are none of entities.
    """
    imported = [teacher for teacher in teachers if isinstance(teacher, ImportedTeacher)]
    if imported and set(kinds) - {"caption", "synthetic"}:
        raise MismatchError(
            f"{str(imported[0].folder)!r} has vectors of captions only, and this recipe's "
            f"loss.text is {list(kinds)}; set loss.text to [caption] or [caption,synthetic]."
        )


class ImportedTeacher:
    """The vectors of one of the teachers in a folder, and the versions that all of them saw."""

    def __init__(self, folder: Path, number: int):
        """Opens a folder of which all shards are finished.

        Raises:
            InputError: they are not, or no image was found in them.
        """
        self.folder, self.number, self.card = folder, number, read_card(folder)
        files = {c.shard: c for c in commits(folder) if c.file}
        plan = read_plan(folder)
        if not plan or len(files) < len(plan):
            raise InputError(
                f"{str(folder)!r} is not a finished output of `openmofi reinforce`; run it, or the "
                "same command again to finish it."
            )
        self.augmentations: int = self.card["augmentations"]
        self._files = [folder / files[s["name"]].file for s in plan if files[s["name"]].kept]
        if not self._files:
            raise InputError(f"No image is taught in {str(folder)!r}; store vectors of others.")
        self._columns: dict[int, dict[str, np.ndarray]] = {}
        total = self.card["images"]
        self._file, self._place = np.full(total, -1, np.int32), np.zeros(total, np.int32)
        for file in range(len(self._files) - 1, -1, -1):  # of several, the first tar's counts
            rows = self._open(file)["row"][:, 0]
            self._file[rows], self._place[rows] = file, np.arange(len(rows))
        first = self._open(0)
        self._dim = first["caption"].shape[1]
        self.num_teachers = num_teachers(first["caption"][0])

    def __getstate__(self) -> dict[str, Any]:
        """Lets another process map the files itself, instead of receiving their content."""
        return {"folder": self.folder, "number": self.number}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["folder"], state["number"])

    def check(self, data: TrainData, augment: AugmentSettings) -> None:
        """Checks that the vectors are of this data, and that nothing else changes its images.

        Raises:
            MismatchError: they are not, or something does.
        """
        if self.card["data"] != data.fingerprint():
            raise MismatchError(
                f"The vectors in {str(self.folder)!r} are of other data; run `openmofi reinforce` "
                "on the training data, with the same evaluation.holdout and seed."
            )
        others = {n: value for n, value in AS_STORED.items() if getattr(augment, n) != value}
        if others:
            told = " ".join(f"--set augment.{name}={value}" for name, value in others.items())
            raise MismatchError(
                f"Images are shown in the versions stored in {str(self.folder)!r}, so the recipe "
                f"may not change them; add {told}."
            )

    def choose(
        self, draws: Float[np.ndarray, " n"], epochs: Int[np.ndarray, " n"]
    ) -> Int[np.ndarray, " n"]:
        """Returns the number of the version that a draw from [0, 1) selects."""
        return (draws * self.augmentations).astype(np.int64)

    def saw(self, rows: Int[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
        """Returns whether vectors of the images are stored."""
        return self._file[rows] >= 0

    def version(self, row: int, number: int) -> Version:
        """Returns how an image was changed."""
        box, operations, magnitudes = (
            self._row(row, name).reshape(self.augmentations, -1)[number].tolist()
            for name in ("boxes", "operations", "magnitudes")
        )
        width, height = self._row(row, "size").tolist()
        return Version(
            tuple(box),
            tuple(zip(operations, magnitudes, strict=True)),
            (width, height) if width else None,
        )

    def vectors(
        self,
        rows: Int[np.ndarray, " n"],
        numbers: Int[np.ndarray, " n"],
        kinds: Int[np.ndarray, " n"],
        targets: Int[np.ndarray, " n"],
        synthetic: Int[np.ndarray, " n"],
    ) -> tuple[Float[np.ndarray, "n E"], Float[np.ndarray, "n E"]]:
        """Returns the unit vectors of the versions and of the texts; see `Teacher.vectors`."""
        width = self._dim // self.num_teachers
        part = slice(self.number * width, (self.number + 1) * width)
        images, texts = [], []
        for row, number, kind, written in zip(rows, numbers, kinds, synthetic, strict=True):
            images.append(self._row(row, "image").reshape(-1, self._dim)[number, part])
            place = written if KINDS[kind] == "synthetic" else 0
            texts.append(self._row(row, KINDS[kind]).reshape(-1, self._dim)[place, part])
        return np.array(images, np.float32), np.array(texts, np.float32)

    def _row(self, row: int, column: str) -> np.ndarray:
        return self._open(int(self._file[row]))[column][self._place[row]]

    def _open(self, file: int) -> dict[str, np.ndarray]:
        if file not in self._columns:
            self._columns[file] = map_columns(self._files[file])
        return self._columns[file]
