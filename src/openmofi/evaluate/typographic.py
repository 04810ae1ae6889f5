"""A typographic attack: each image gets another class's name; does the model look or read?

After ImageNet-Atr ("Less is More", arXiv 2305.05095): the attack class is the one most often
confused with the true one (without any confusion, the one with the nearest text). Its name is drawn
in red at a fixed place, the image is saved as JPEG, and the true label stays. Two things differ:
place and letter size are shares of the image's size, because not all images have ImageNet's, and
the font is the free one in Pillow (Aileron Regular, CC0), because the original's is not free.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Int
from PIL import Image, ImageDraw, ImageFont

from openmofi.errors import InputError
from openmofi.evaluate.data import LabelledImages
from openmofi.evaluate.metrics import nearest
from openmofi.evaluate.vectors import Encoded, ModelVectors
from openmofi.images.decode import read_image
from openmofi.pairs import ImageReader
from openmofi.progress import track

_PLACE = 1 / 8
"""Upper left corner of the text, as a share of width and height."""
_LETTERS = 1 / 6
"""Font size as a share of the height; a name too wide for the image is written smaller."""
_SMALLEST_LETTERS = 5
_RED = (255, 0, 0)
_CHUNK = 1024

Write = Callable[[Image.Image, str], bytes]
"""Writes a name on an RGB image and encodes the result."""


def write_on(image: Image.Image, name: str) -> bytes:
    """Returns an RGB image with a name written on it in red, as JPEG bytes."""
    image = image.copy()
    x, y = image.width * _PLACE, image.height * _PLACE
    size = max(image.height * _LETTERS, _SMALLEST_LETTERS)
    wide = _font(size).getlength(name)
    room = image.width - x - 1
    if wide > room:
        size = max(size * room / wide, _SMALLEST_LETTERS)
    ImageDraw.Draw(image).text((x, y), name, font=_font(size), fill=_RED)
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=95)
    return stream.getvalue()


def _font(size: float) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont), "Pillow was built without FreeType"
    return font


def typographic(
    source: ModelVectors,
    images: LabelledImages,
    encoded: Encoded,
    *,
    texts: Float[np.ndarray, "classes dim"],
    names: Sequence[str],
    words: Int[np.ndarray, " n"] | None = None,
    write: Write = write_on,
) -> Iterator[tuple[str, float]]:
    """Yields zero-shot accuracy before and under the attack, and how often the attack succeeds.

    Args:
        source: the model under attack.
        images: images and their true labels.
        encoded: the readable images, encoded without the attack.
        texts: vector of each class's texts, in the order of `images.classes`.
        names: what is written for each class.
        words: attack class of each readable image; by default `chosen_words` of the model's own
            mistakes.
        write: writes a name on an image; by default as the protocol says.

    Raises:
        InputError: there are fewer than two classes.
    """
    labels = images.codes(images.classes)[encoded.rows]
    plain = nearest(encoded.vectors, texts, 1, same=False)[0][:, 0]
    words = chosen_words(plain, labels, texts) if words is None else words
    written = written_images(images, encoded.rows, [names[word] for word in words], write)
    attacked = source.encode_bytes(written, total=len(labels), title="attacked")
    assert len(attacked.rows) == len(labels), "an attacked image cannot be read"
    answers = nearest(attacked.vectors, texts, 1, same=False)[0][:, 0]
    yield from attack_scores(plain, answers, labels, words)


def attack_scores(
    plain: Int[np.ndarray, " n"],
    attacked: Int[np.ndarray, " n"],
    labels: Int[np.ndarray, " n"],
    words: Int[np.ndarray, " n"],
) -> Iterator[tuple[str, float]]:
    """Yields the scores of answers to the plain and to the attacked images.

    Args:
        plain: class answered for each image as it is.
        attacked: class answered for each image with another class's name on it.
        labels: true class of each image.
        words: class whose name is on each image.
    """
    yield "typographic_clean", float((plain == labels).mean())
    yield "typographic_attacked", float((attacked == labels).mean())
    yield "typographic_fooled", float((attacked == words).mean())


def chosen_words(
    answers: Int[np.ndarray, " n"],
    labels: Int[np.ndarray, " n"],
    texts: Float[np.ndarray, "classes dim"],
    *,
    seed: int | None = None,
) -> Int[np.ndarray, " n"]:
    """Returns the class whose name is written on each image.

    Args:
        answers: class that a model answers for each image as it is.
        labels: true class of each image.
        texts: unit vectors of the classes' texts.
        seed: if given, another class is drawn uniformly with it, whatever the answers; None
            chooses the class with which the true one is most often confused.

    Raises:
        InputError: there are fewer than two classes.
    """
    if len(texts) < 2:
        raise InputError(f"A typographic attack needs at least two classes; found {len(texts)}.")
    if seed is None:
        return attack_classes(answers, labels, texts)[labels]
    shifts = np.random.default_rng(seed).integers(1, len(texts), size=len(labels))
    return (labels + shifts) % len(texts)


def attack_classes(
    answers: Int[np.ndarray, " n"],
    labels: Int[np.ndarray, " n"],
    texts: Float[np.ndarray, "classes dim"],
) -> Int[np.ndarray, " classes"]:
    """Returns each class's attack class: the most frequent mistake, else the nearest text.

    Among equally frequent mistakes, the one with the nearest text counts.
    """
    nearness = texts @ texts.T
    np.fill_diagonal(nearness, -np.inf)
    counts = np.zeros(nearness.shape, dtype=np.int64)
    np.add.at(counts, (labels, answers), 1)
    np.fill_diagonal(counts, -1)
    most = counts == counts.max(axis=1, keepdims=True)
    return np.where(most, nearness, -np.inf).argmax(axis=1)


def written_images(
    images: LabelledImages, rows: Int[np.ndarray, " n"], words: Sequence[str], write: Write
) -> Iterator[bytes]:
    """Yields the images of some rows at full size, each with its word on it."""
    reader, table = ImageReader(images.places.root), images.places.table
    columns = table.select(["shard", "offset", "size", "path"])
    for start in range(0, len(rows), _CHUNK):
        part = columns.take(pa.array(rows[start : start + _CHUNK])).to_pylist()
        for row, word in zip(part, words[start : start + _CHUNK], strict=True):
            yield write(read_image(reader.read(row)), word)


def write_attacks(
    images: LabelledImages,
    rows: Int[np.ndarray, " n"],
    words: Int[np.ndarray, " n"],
    names: Sequence[str],
    *,
    out: Path,
    write: Write = write_on,
) -> int:
    """Writes the attacked images and attacks.csv, which `evaluate` reads; returns how many.

    Args:
        images: images and their true labels.
        rows: rows of the images to attack.
        words: class whose name is written on each.
        names: name of each class.
        out: folder for images/ and attacks.csv.
        write: writes a name on an image; by default as the protocol says.
    """
    labels = images.codes(images.classes)[rows]
    (out / "images").mkdir(parents=True, exist_ok=True)
    encoded = written_images(images, rows, [names[word] for word in words], write)
    with (out / "attacks.csv").open("w", newline="", encoding="utf-8") as file:
        lines = csv.writer(file)
        lines.writerow(("file", "label", "object", "word"))
        for number, image in enumerate(track(encoded, "write", total=len(rows), unit="images")):
            name = f"images/{number:07d}.jpg"
            (out / name).write_bytes(image)
            label = images.labels[rows[number]]
            lines.writerow((name, label, names[labels[number]], names[words[number]]))
    return len(rows)
