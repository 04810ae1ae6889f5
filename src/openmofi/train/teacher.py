"""A teacher's stored vectors of a dataset: a folder written by `openmofi reinforce` -> vectors.

MobileCLIP's dataset reinforcement (arXiv 2311.17049): each image has K augmentations, and the
student is shown exactly those that the teacher saw. Only their number and a seed are stored,
because the random numbers of an augmentation follow from the image's row and the augmentation's
number. Where the recipe says augment.when=repeats, number 0 is the image unchanged.

It is the folder of a job over shards (see openmofi/shards), whose run.json says what was seen. Its
tables are Arrow files that are mapped:

    images/     image: fp16 [augmentations * dim]; caption: fp16 [dim]; a row for each image;
                synthetic: fp16 [most * dim], if there are synthetic captions, at most `most` each
    entities/   name, description ("name: description"): fp16 [dim]; a row for each class
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Bool, Float, Int

from openmofi.config import AugmentSettings, as_dict
from openmofi.errors import InputError, MismatchError, SettingsError
from openmofi.shards import commits
from openmofi.train.augment import CROPS_VERSION, NUM_DRAWS
from openmofi.train.data import TrainData
from openmofi.train.order import uniform
from openmofi.train.rand_augment import RAND_VERSION, operation_draws
from openmofi.train.texts import KINDS

IMAGES, ENTITIES = "images", "entities"
"""Kinds of shards, and folders of their tables."""
STORE_VERSION = 2
"""Of the folder; increase it whenever the same inputs give other bytes."""


def check_not_older(folder: Path) -> None:
    """Refuses a folder of an earlier version.

    Raises:
        InputError: it is one.
    """
    if any((folder / name).is_file() for name in ("card.json", "progress.json")):
        raise InputError(
            f"{str(folder)!r} holds a teacher's vectors as an earlier version of openmofi stored "
            "them; run `openmofi reinforce` again with another --out."
        )


def teacher_draws(
    rows: Int[np.ndarray, " n"],
    numbers: Int[np.ndarray, " n"],
    *,
    augmentations: int,
    seed: int,
    rand_ops: int = 0,
) -> Float[np.ndarray, "n draws"]:
    """Returns the random numbers of augmentation `numbers[i]` of image `rows[i]`."""
    places = rows * augmentations + numbers
    operations = operation_draws(places, num_ops=rand_ops, seed=seed)
    return np.concatenate([uniform(places, columns=NUM_DRAWS, key=seed), operations], axis=1)


def what_was_seen(data: TrainData, augment: AugmentSettings) -> dict[str, Any]:
    """Returns what a card states about the data and the augmentation."""
    names = hashlib.sha256()
    if data.vocabulary is not None:
        for column in ("label", "description"):
            names.update(json.dumps(data.vocabulary[column].to_pylist()).encode())
    changes = as_dict(augment)
    # What is switched off is not stated, as no card of an earlier version states it.
    if augment.when == "always":
        del changes["when"]
    if augment.rand_ops == 0:
        del changes["rand_ops"], changes["rand_magnitude"]
    else:
        changes["rand_version"] = RAND_VERSION
    seen = {
        "data": data.fingerprint(),
        "names": names.hexdigest(),
        "augment": changes,
        "crops": CROPS_VERSION,
    }
    if data.synthetic is not None:
        seen["synthetic"] = {"captions": data.synthetic.digest, "most": data.synthetic.most}
    return seen


class Taught(Protocol):
    """What `check_teachers` asks of a teacher."""

    folder: Path
    card: dict[str, Any]

    def check(self, data: TrainData, augment: AugmentSettings) -> None:
        """Checks that it saw the data, and the student sees what it saw."""
        ...


def check_teachers(teachers: Sequence[Taught], data: TrainData, augment: AugmentSettings) -> None:
    """Checks that the teachers saw what the student is going to see.

    Raises:
        MismatchError: they saw other data or other augmentations, or not the same ones.
    """
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


def check_versions(augment: AugmentSettings, augmentations: int) -> None:
    """Checks that there are versions for every epoch.

    Raises:
        SettingsError: the first epoch's unchanged images would be the only ones.
    """
    if augment.when == "repeats" and augmentations < 2:
        raise SettingsError(
            "augment.when=repeats shows images unchanged in the first epoch, so one version is "
            "the image itself; set --augmentations to at least 2."
        )


def read_card(folder: Path) -> dict[str, Any]:
    """Returns what was seen, of a job of `reinforce`; {} of any other folder."""
    try:
        card = json.loads((folder / "run.json").read_text())
    except (OSError, ValueError):
        return {}
    return card if isinstance(card, dict) and "store_version" in card else {}


class _Stored:
    """The rows of the files of one kind of shards, which are mapped when they are first needed."""

    def __init__(self, folder: Path, kind: str, files: dict[str, str], plan: Sequence[dict]):
        shards = [shard for shard in plan if shard["kind"] == kind]
        self._starts = np.array([shard["start"] for shard in shards])
        self._files = [folder / files[shard["name"]] for shard in shards]
        self._columns: dict[int, dict[str, np.ndarray]] = {}

    def rows(
        self,
        rows: Int[np.ndarray, " n"],
        column: str,
        *,
        parts: int = 1,
        numbers: Int[np.ndarray, " n"] | int = 0,
    ) -> Float[np.ndarray, "n width"]:
        """Returns part `numbers[i]` of the equal parts of a column in row `rows[i]`."""
        shards = np.searchsorted(self._starts, rows, side="right") - 1
        found = []
        for row, shard, number in np.broadcast(rows - self._starts[shards], shards, numbers):
            values = self._open(int(shard))[column][row]
            width = len(values) // parts
            found.append(values[number * width : (number + 1) * width])
        return np.array(found, np.float32)

    def _open(self, shard: int) -> dict[str, np.ndarray]:
        if shard not in self._columns:
            self._columns[shard] = map_columns(self._files[shard])
        return self._columns[shard]


def read_plan(folder: Path) -> list[dict[str, Any]]:
    """Returns the shards of a job; none if it was killed before it wrote them."""
    try:
        return pq.read_table(folder / "plan.parquet").to_pylist()
    except (OSError, pa.ArrowInvalid):
        return []


def map_columns(file: Path) -> dict[str, np.ndarray]:
    """Maps a table's lists into memory as arrays [rows, length]; the file is closed again.

    Raises:
        InputError: it is gone or damaged.
    """
    try:
        with pa.memory_map(str(file)) as opened:
            table = pa.ipc.open_file(opened).read_all()
    except (OSError, pa.ArrowInvalid):
        raise InputError(
            f"{str(file)!r} is gone or damaged; delete its record in "
            f"{str(file.parents[1] / '_done')!r} and repeat `openmofi reinforce`, which makes it "
            "again."
        ) from None
    return {
        name: table[name].chunk(0).flatten().to_numpy().reshape(len(table), -1)
        for name in table.column_names
    }


class Teacher:
    """The stored vectors of one teacher."""

    def __init__(self, folder: Path | str):
        """Opens a folder of which all shards are finished.

        Raises:
            InputError: the folder is not a finished output of `openmofi reinforce`.
        """
        folder = Path(folder)
        check_not_older(folder)
        self.card = read_card(folder)
        """What was seen; see `what_was_seen`."""
        plan = read_plan(folder) if self.card else []
        files = {c.shard: c.file for c in commits(folder) if c.file} if plan else {}
        if not plan or len(files) < len(plan):
            raise InputError(
                f"{str(folder)!r} is not a finished output of `openmofi reinforce`; run it, or the "
                "same command again to finish it."
            )
        self.folder = folder
        self.augmentations: int = self.card["augmentations"]
        self._augment: dict[str, Any] = self.card.get("augment", {})
        self._unchanged = int(self._augment.get("when") == "repeats")
        """Number of versions that are the image itself."""
        self._images = _Stored(folder, IMAGES, files, plan)
        self._entities = _Stored(folder, ENTITIES, files, plan)

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
        if "synthetic" in ours and self.card.get("synthetic") != ours["synthetic"]:
            raise MismatchError(
                f"The teacher's vectors in {str(self.folder)!r} are not of these synthetic "
                "captions; run `openmofi reinforce` with the same loss.synthetic and another --out."
            )
        if augment.crop < 1 and self.card.get("crops") != ours["crops"]:
            raise MismatchError(
                f"The teacher in {str(self.folder)!r} saw images cropped as an earlier "
                "version of openmofi did; run `openmofi reinforce` again with another --out."
            )
        seen, shown = (card["augment"].get("when", "always") for card in (self.card, ours))
        if seen != shown:
            raise MismatchError(
                f"The vectors in {str(self.folder)!r} were stored with augment.when={seen}, and "
                f"this recipe has augment.when={shown}; make them equal, or run `openmofi "
                "reinforce` again with another --out."
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

    def choose(
        self, draws: Float[np.ndarray, " n"], epochs: Int[np.ndarray, " n"]
    ) -> Int[np.ndarray, " n"]:
        """Returns the number of the augmentation that a draw from [0, 1) selects.

        With augment.when=repeats that is 0 in the first epoch, and any other later.
        """
        changed = (draws * (self.augmentations - self._unchanged)).astype(np.int64)
        return np.where((epochs == 0) & bool(self._unchanged), 0, self._unchanged + changed)

    def draws(
        self, rows: Int[np.ndarray, " n"], numbers: Int[np.ndarray, " n"]
    ) -> Float[np.ndarray, "n draws"]:
        """Returns the random numbers of some augmentations."""
        return teacher_draws(
            rows,
            numbers,
            augmentations=self.augmentations,
            seed=self.card["seed"],
            rand_ops=self._augment.get("rand_ops", 0),
        )

    def saw(self, rows: Int[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
        """Returns whether the teacher could read the images; the others' vectors are zeros."""
        return (self._images.rows(rows, "image", parts=self.augmentations) != 0).any(axis=1)

    def vectors(
        self,
        rows: Int[np.ndarray, " n"],
        numbers: Int[np.ndarray, " n"],
        kinds: Int[np.ndarray, " n"],
        targets: Int[np.ndarray, " n"],
        synthetic: Int[np.ndarray, " n"],
    ) -> tuple[Float[np.ndarray, "n E"], Float[np.ndarray, "n E"]]:
        """Returns the unit vectors of the augmented images and of their texts.

        Args:
            rows: the images.
            numbers: of their augmentations.
            kinds: of their texts, see texts.KINDS.
            targets: their classes.
            synthetic: numbers of their synthetic captions.
        """
        images = self._images.rows(rows, "image", parts=self.augmentations, numbers=numbers)
        texts = np.zeros_like(images)
        for kind, name in enumerate(KINDS):
            here = np.flatnonzero(kinds == kind)
            if len(here):
                texts[here] = self._texts(name, rows[here], targets[here], synthetic[here])
        return images, texts

    def _texts(
        self, kind: str, rows: np.ndarray, targets: np.ndarray, synthetic: np.ndarray
    ) -> np.ndarray:
        if kind == "synthetic":
            most = self.card["synthetic"]["most"]
            return self._images.rows(rows, kind, parts=most, numbers=synthetic)
        if kind == "caption":
            return self._images.rows(rows, kind)
        return self._entities.rows(targets, kind)
