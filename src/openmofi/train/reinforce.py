"""What a teacher makes of a dataset, stored once: a model and a dataset -> the files of teacher.py.

MobileCLIP's dataset reinforcement (arXiv 2311.17049, section 3): every image is augmented K times
and encoded by a teacher, its texts are encoded as well, and students then learn from the vectors
for the price of reading them.

The teacher sees an image at its own size: as its own transform decodes it, then changed by the
same random numbers as the student's copy. They are shares of an image's sides and levels, so that
both see the same crop and the same colours, each in its own resolution.

The files are filled chunk by chunk, and progress.json says after each how far they are; the same
command goes on there. card.json comes last: without it nothing is read.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8

import openmofi
from openmofi.arrays.random_keys import Purpose, random_key
from openmofi.config import AugmentSettings, TrainSettings, override
from openmofi.errors import InputError, MismatchError, OpenMOFIError, SettingsError
from openmofi.files.folders import local_path, replace_file
from openmofi.images.look import decode
from openmofi.label.encoder import model_digest
from openmofi.model import MofiModel, load_model
from openmofi.model.mofi import ENCODE_BATCH
from openmofi.pairs import ImageReader
from openmofi.progress import progress
from openmofi.refused import Refused
from openmofi.train.augment import augment
from openmofi.train.data import TrainData, open_train_data
from openmofi.train.recipe import read_recipe
from openmofi.train.teacher import IMAGES, TEXTS, teacher_draws, what_was_seen
from openmofi.train.texts import TextMix

_CHUNK = ENCODE_BATCH
"""Rows between two notes in progress.json; fixed, for vectors depend on their batch in the last
bits, and a resumed run is to give the same files."""


@dataclass(frozen=True)
class ReinforceSummary:
    """What a teacher left."""

    out: Path
    images: int
    augmentations: int
    """Of each image."""
    texts: int
    dim: int
    unreadable: dict[str, int]
    """Images that could not be read, by reason; a student never sees them."""
    seconds: float


def reinforce(
    teacher: str | Path,
    *,
    data: Path | str,
    recipe: Path | str | TrainSettings,
    out: Path | str,
    augmentations: int = 5,
    changes: dict | None = None,
    device: str = "auto",
) -> ReinforceSummary:
    """Stores a teacher's vectors of what `train` with this recipe and data learns from.

    Args:
        teacher: directory or hub id of a dual encoder, also one of open_clip's.
        data: what the student is trained on.
        recipe: the student's; its evaluation.holdout, seed and augment say what the student sees,
            its precision is the teacher's arithmetic, its threads decode images.
        out: directory to write; the same call goes on where an earlier one was stopped.
        augmentations: of each image (K); a student draws one of them in each epoch.
        changes: settings that override the recipe's, as nested dicts.
        device: auto, cpu, cuda or cuda:N.

    Raises:
        OpenMOFIError: a mistake in the recipe or the data, or `out` belongs to something else.
    """
    started, out = time.monotonic(), local_path(out)
    if augmentations < 1:
        raise SettingsError(f"--augmentations cannot be {augmentations}; expected at least 1.")
    settings = recipe if isinstance(recipe, TrainSettings) else read_recipe(recipe)
    settings = override(settings, changes or {})
    images, _ = open_train_data(data).split(settings.evaluation.holdout, seed=settings.seed)
    texts = TextMix(images, settings.loss.text)
    what = what_was_seen(images, settings.augment) | {
        "augmentations": augmentations,
        "seed": random_key(settings.seed, Purpose.TEACHER),
        "teacher": str(teacher),
        "digest": model_digest(str(teacher)),
        "precision": settings.precision,
    }
    done = _Done(out, what)
    if done.card is None:
        model = load_model(teacher, device=device, precision=settings.precision)
        card = what | {"dim": model.dim, "openmofi": openmofi.__version__}
        _encode_images(model, images, settings, card, done)
        captions = images.table["caption"].to_pylist()
        for name, lines in zip(TEXTS, (captions, texts.names, texts.descriptions), strict=True):
            _encode_texts(model, lines, name, done)
        done.finish(card)
    assert done.card is not None
    return ReinforceSummary(
        out=out,
        images=len(images),
        augmentations=augmentations,
        texts=len(images) + len(texts.names) + len(texts.descriptions),
        dim=done.card["dim"],
        unreadable=dict(done.unreadable),
        seconds=time.monotonic() - started,
    )


class _Done:
    """How far the files in a folder are."""

    def __init__(self, out: Path, what: dict[str, Any]):
        """Takes up a folder, or begins a new one.

        Raises:
            MismatchError: the folder was begun with something else.
            InputError: it holds other files.
        """
        self.out, self.what = out, what
        self.rows: dict[str, int] = {}
        self.unreadable: Counter[str] = Counter()
        self.card: dict[str, Any] | None = _read(out / "card.json")
        begun = self.card or _read(out / "progress.json")
        if begun is None:
            if out.exists() and (not out.is_dir() or any(out.glob("[!.]*"))):
                raise InputError(
                    f"{str(out)!r} exists and holds no teacher's vectors; give --out a new folder."
                )
            return
        changed = sorted(name for name, value in what.items() if begun.get(name) != value)
        if changed:
            raise MismatchError(
                f"{str(out)!r} was made with another {', '.join(changed)}; repeat the command "
                "with the same, or choose another --out."
            )
        self.unreadable.update(begun["unreadable"])
        self.rows = begun.get("rows", {})

    def open(self, name: str, shape: tuple[int, ...]) -> np.memmap:
        """Returns a file's array, to be filled from row `rows[name]` on."""
        path = self.out / f"{name}.npy"
        if not self.rows.get(name):
            self.out.mkdir(parents=True, exist_ok=True)
            self.note(name, 0)
            return np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=shape)
        try:
            return np.lib.format.open_memmap(path, mode="r+")
        except (OSError, ValueError):
            raise InputError(
                f"{str(path)!r} is gone or damaged; delete {str(self.out)!r} and repeat the "
                "command."
            ) from None

    def note(self, name: str, rows: int) -> None:
        """Writes down that a file's first `rows` rows are on disk."""
        self.rows[name] = rows
        now = {**self.what, "rows": self.rows, "unreadable": dict(self.unreadable)}
        _write(self.out / "progress.json", now)

    def finish(self, card: dict[str, Any]) -> None:
        """Writes the card, from which on the folder can be read."""
        self.card = card | {"unreadable": dict(self.unreadable)}
        _write(self.out / "card.json", self.card)
        (self.out / "progress.json").unlink()


def _read(path: Path) -> dict[str, Any] | None:
    return json.loads(path.read_text()) if path.is_file() else None


def _write(path: Path, content: dict[str, Any]) -> None:
    """Writes a JSON file that is there whole or not at all."""
    with replace_file(path) as partial:
        partial.write_text(json.dumps(content, indent=2))


def _encode_texts(model: MofiModel, texts: Sequence[str], name: str, done: _Done) -> None:
    """Fills the file of one kind of texts."""

    def encode(start: int, stop: int) -> np.ndarray:
        return model.encode_texts(texts[start:stop])

    _fill(done, name, (len(texts), model.dim), encode)


def _fill(
    done: _Done,
    name: str,
    shape: tuple[int, ...],
    encode: Callable[[int, int], Float[np.ndarray, "n ..."]],
) -> None:
    """Fills the rest of a file chunk by chunk; `encode` gets the first row and the one behind."""
    array = done.open(name, shape)
    with progress(name, total=len(array)) as bar:
        bar.advance(done.rows[name])
        for start in range(done.rows[name], len(array), _CHUNK):
            stop = min(start + _CHUNK, len(array))
            vectors = encode(start, stop)
            if not np.isfinite(vectors).all():
                raise OpenMOFIError(
                    f"The teacher {done.what['teacher']!r} gives vectors that are not finite; try "
                    "--set precision=fp32, or another teacher."
                )
            array[start:stop] = vectors
            array.flush()
            done.note(name, stop)
            bar.advance(stop - start)


def _encode_images(
    model: MofiModel,
    images: TrainData,
    settings: TrainSettings,
    card: dict[str, Any],
    done: _Done,
) -> None:
    """Fills the images' file; an image that cannot be read gets zeros."""
    shape = (len(images), card["augmentations"], model.dim)
    with ThreadPoolExecutor(settings.threads) as pool:
        chunks = _decoded(images, model, pool, first=done.rows.get(IMAGES, 0))

        def encode(start: int, stop: int) -> np.ndarray:
            vectors = np.zeros((stop - start, *shape[1:]), dtype=np.float32)
            decoded = next(chunks)
            good = np.array([i for i, p in enumerate(decoded) if not isinstance(p, Refused)], int)
            done.unreadable.update(p.reason for p in decoded if isinstance(p, Refused))
            if len(good):
                pixels = np.stack([p for p in decoded if not isinstance(p, Refused)])
                seen = _each_augmentation(model, pixels, start + good, card, settings.augment)
                for number, augmented in enumerate(seen):
                    vectors[good, number] = model.encode_pixels(augmented)
            return vectors

        _fill(done, IMAGES, shape, encode)


def _decoded(
    images: TrainData, model: MofiModel, pool: ThreadPoolExecutor, *, first: int
) -> Iterator[list[UInt8[np.ndarray, "size size 3"] | Refused]]:
    """Yields images, or why not, chunk by chunk and one chunk ahead."""
    reader = ImageReader(images.root)
    places = images.table.select(["shard", "path", "offset", "size"])

    def pixels(place: dict[str, Any]) -> np.ndarray | Refused:
        found = decode(reader.read, place, model.transform)
        return found if isinstance(found, Refused) else found[0]

    ahead: list[Future] = []
    for start in range(first, len(images), _CHUNK):
        chunk = places.slice(start, _CHUNK).to_pylist()
        before, ahead = ahead, [pool.submit(pixels, place) for place in chunk]
        if before:
            yield [future.result() for future in before]
    yield [future.result() for future in ahead]


def _each_augmentation(
    model: MofiModel,
    pixels: UInt8[np.ndarray, "n size size 3"],
    rows: np.ndarray,
    card: dict[str, Any],
    changes: AugmentSettings,
) -> Iterator[UInt8[np.ndarray, "n size size 3"]]:
    """Yields the images as each of their augmentations shows them."""
    batch = torch.from_numpy(pixels).to(model.device)
    for number in range(card["augmentations"]):
        draws = teacher_draws(
            rows,
            np.full_like(rows, number),
            augmentations=card["augmentations"],
            seed=card["seed"],
        )
        on_device = torch.from_numpy(draws.astype(np.float32)).to(model.device)
        yield augment(batch, changes, on_device).cpu().numpy()
