"""Stores a teacher's vectors of a dataset: a model and a dataset -> the files of teacher.py.

MobileCLIP's dataset reinforcement (arXiv 2311.17049, section 3): every image is augmented K times
and encoded by a teacher, and so are its texts; students then learn from the vectors at the cost of
reading them.

The teacher sees an image in its own resolution: as its own transform decodes it, then changed by
the same random numbers as the student's copy. These are shares of an image's sides and levels, so
both see the same crop and the same colours.

The files are filled chunk by chunk; after each chunk, progress.json states how far they are, and
the same command continues there. card.json is written last: without it, nothing is read.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8

import openmofi
from openmofi.arrays.random_keys import Purpose, random_key
from openmofi.config import TrainSettings, override
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
from openmofi.train.data import PLACE, TrainData, open_train_data
from openmofi.train.recipe import read_recipe
from openmofi.train.teacher import IMAGES, TEXTS, teacher_draws, what_was_seen
from openmofi.train.texts import TextMix

_CHUNK = ENCODE_BATCH
"""Rows between two updates of progress.json. It is fixed because the last bits of vectors depend on
their batch, and a resumed run must write the same files."""


@dataclass(frozen=True)
class ReinforceSummary:
    """What was stored of a teacher."""

    out: Path
    images: int
    augmentations: int
    """Number of augmentations of each image."""
    texts: int
    dim: int
    unreadable: dict[str, int]
    """Number of images that could not be read, by reason; a student never sees them."""
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
    """Stores a teacher's vectors of the images and texts that `train` uses with a recipe and data.

    Args:
        teacher: directory or hub id of a dual encoder, which may be one of open_clip's.
        data: the student's training data.
        recipe: the student's recipe; its evaluation.holdout, seed and augment determine what the
            student sees, its precision is that of the teacher, its threads decode images.
        out: directory to write; the same call continues where an earlier one was stopped.
        augmentations: number of augmentations of each image (K); a student draws one per epoch.
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
    images = open_train_data(data).split(settings.evaluation, seed=settings.seed).learnt
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
        kinds = len(images), len(texts.names), len(texts.descriptions)
        for kind, (name, count) in enumerate(zip(TEXTS, kinds, strict=True)):
            _encode_texts(model, texts, kind, count, name, done)
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
    """The progress of the files in a folder."""

    def __init__(self, out: Path, what: dict[str, Any]):
        """Continues a folder, or begins a new one.

        Raises:
            MismatchError: the folder was begun with another teacher, data or settings.
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
        """Returns a file's array, which is to be filled from row `rows[name]` on."""
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
        """Records that a file's first `rows` rows are on disk."""
        self.rows[name] = rows
        now = {**self.what, "rows": self.rows, "unreadable": dict(self.unreadable)}
        _write(self.out / "progress.json", now)

    def finish(self, card: dict[str, Any]) -> None:
        """Writes the card, which makes the folder readable."""
        self.card = card | {"unreadable": dict(self.unreadable)}
        _write(self.out / "card.json", self.card)
        (self.out / "progress.json").unlink()


def _read(path: Path) -> dict[str, Any] | None:
    return json.loads(path.read_text()) if path.is_file() else None


def _write(path: Path, content: dict[str, Any]) -> None:
    """Writes a JSON file atomically."""
    with replace_file(path) as partial:
        partial.write_text(json.dumps(content, indent=2))


def _encode_texts(
    model: MofiModel, texts: TextMix, kind: int, count: int, name: str, done: _Done
) -> None:
    """Fills the file of one kind of texts, of which there are `count`."""

    def encode(start: int, stop: int) -> np.ndarray:
        rows = np.arange(start, stop)
        return model.encode_texts(texts.texts(np.full(len(rows), kind), rows, rows))

    _fill(done, name, (count, model.dim), encode)


def _fill(
    done: _Done,
    name: str,
    shape: tuple[int, ...],
    encode: Callable[[int, int], Float[np.ndarray, "n ..."]],
) -> None:
    """Fills the rest of a file chunk by chunk; `encode` gets the first row and the end."""
    array = done.open(name, shape)
    with progress(name, total=len(array)) as bar:
        bar.skip(done.rows[name])
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
    """Fills the file of the images; an image that cannot be read gets zeros."""
    augmentations, seed = card["augmentations"], card["seed"]
    shape = (len(images), augmentations, model.dim)
    with ThreadPoolExecutor(settings.threads) as pool:
        chunks = _decoded(images, model, pool, first=done.rows.get(IMAGES, 0))

        def encode(start: int, stop: int) -> np.ndarray:
            vectors = np.zeros((stop - start, *shape[1:]), dtype=np.float32)
            decoded = next(chunks)
            good = np.array([i for i, p in enumerate(decoded) if not isinstance(p, Refused)], int)
            done.unreadable.update(p.reason for p in decoded if isinstance(p, Refused))
            if len(good):
                pixels = np.stack([p for p in decoded if not isinstance(p, Refused)])
                batch = torch.from_numpy(pixels).to(model.device)
                for number in range(augmentations):
                    draws = teacher_draws(
                        start + good,
                        np.full_like(good, number),
                        augmentations=augmentations,
                        seed=seed,
                    )
                    on_device = torch.from_numpy(draws.astype(np.float32)).to(model.device)
                    augmented = augment(batch, settings.augment, on_device).cpu().numpy()
                    vectors[good, number] = model.encode_pixels(augmented)
            return vectors

        _fill(done, IMAGES, shape, encode)


def _decoded(
    images: TrainData, model: MofiModel, pool: ThreadPoolExecutor, *, first: int
) -> Iterator[list[UInt8[np.ndarray, "size size 3"] | Refused]]:
    """Yields chunks of decoded images or refusals, decoding one chunk ahead."""
    reader = ImageReader(images.root)

    def pixels(place: dict[str, Any]) -> np.ndarray | Refused:
        found = decode(reader.read, place, model.transform)
        return found if isinstance(found, Refused) else found[0]

    ahead: list[Future] = []
    for start in range(first, len(images), _CHUNK):
        rows = np.arange(start, min(start + _CHUNK, len(images)))
        chunk = images.records(rows, PLACE).to_pylist()
        before, ahead = ahead, [pool.submit(pixels, place) for place in chunk]
        if before:
            yield [future.result() for future in before]
    yield [future.result() for future in ahead]
