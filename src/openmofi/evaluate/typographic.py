"""A typographic attack: another class's name stands on each picture; does the model look or read?

After ImageNet-Atr ("Less is More", arXiv 2305.05095): the attack class is the one most often
confused with the true one (where nothing is, the one with the nearest text); its name is drawn at a
fixed place in red, and the picture saved as JPEG; the true label stays. What differs: letters and
place are shares of the picture's size, since not all pictures have ImageNet's, and the font is the
free one inside Pillow (Aileron Regular, CC0), where the original's is not free. All pictures are
held in memory at their full size.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from jaxtyping import Float, Int
from PIL import Image, ImageDraw, ImageFont

from openmofi.embed import Places
from openmofi.errors import InputError
from openmofi.evaluate.data import LabelledImages
from openmofi.kb import KnowledgeBase
from openmofi.model import MofiModel
from openmofi.pairs import ImageReader
from openmofi.pairs.decode import PICTURE_ERRORS, read_picture
from openmofi.progress import track

_PLACE = 1 / 8
"""Upper left corner of the text, as a share of width and height."""
_LETTERS = 1 / 6
"""Size of the font as a share of the height; a name too wide for the picture is written smaller."""
_SMALLEST_LETTERS = 5
_RED = (255, 0, 0)
_BATCH = 256


def write_on(picture: Image.Image, name: str) -> bytes:
    """Returns an RGB picture with a name written on it in red, as JPEG bytes."""
    picture = picture.copy()
    x, y = picture.width * _PLACE, picture.height * _PLACE
    size = max(picture.height * _LETTERS, _SMALLEST_LETTERS)
    wide = _font(size).getlength(name)
    room = picture.width - x - 1
    if wide > room:
        size = max(size * room / wide, _SMALLEST_LETTERS)
    ImageDraw.Draw(picture).text((x, y), name, font=_font(size), fill=_RED)
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=95)
    return stream.getvalue()


def _font(size: float) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont), "Pillow was built without FreeType"
    return font


def typographic(
    model: MofiModel,
    *,
    images: LabelledImages,
    kb: KnowledgeBase,
    reference: MofiModel | None = None,
    write: Callable[[Image.Image, str], bytes] = write_on,
) -> Iterator[tuple[str, float]]:
    """Yields accuracy before and under the attack, and how often the attack is believed.

    The classifier is zero-shot: the entity whose text (`KnowledgeBase.entity_text`) is nearest.

    Args:
        model: the one under attack.
        images: pictures labelled with ids of the knowledge base.
        kb: knows the names and texts of the classes.
        reference: chooses the attack classes by its own mistakes, so that several models can be
            shown the same pictures; the default is the model itself.
        write: puts a name on an RGB picture and encodes it; the default is the protocol's way.

    Raises:
        InputError: a label is not in the knowledge base, there are fewer than two classes, or
            fewer than two pictures can be read.
    """
    classes = images.classes
    rows = _class_rows(classes, kb)
    pictures, labels = _read(images, classes)
    texts = kb.entity_text(rows)
    plain = _answers(model, pictures, texts)
    confused = plain if reference is None else _answers(reference, pictures, texts)
    attacker = reference or model
    attack = attack_classes(confused, labels, attacker.encode_texts(texts))
    names = [kb.texts.label[row].as_py() for row in rows]
    written = [
        write(picture, names[attack[label]])
        for picture, label in zip(pictures, labels, strict=True)
    ]
    yield from attack_scores(plain, _answers(model, written, texts), labels, attack)


def attack_scores(
    plain: Int[np.ndarray, " n"],
    attacked: Int[np.ndarray, " n"],
    labels: Int[np.ndarray, " n"],
    attack: Int[np.ndarray, " classes"],
) -> Iterator[tuple[str, float]]:
    """Yields the scores of answers to the plain and to the attacked pictures.

    Args:
        plain: class answered for each picture as it is.
        attacked: class answered for each picture with the attack class's name on it.
        labels: true class of each picture.
        attack: attack class of each class.
    """
    yield "typographic_clean", float((plain == labels).mean())
    yield "typographic_attacked", float((attacked == labels).mean())
    yield "typographic_fooled", float((attacked == attack[labels]).mean())


def attack_classes(
    answers: Int[np.ndarray, " n"],
    labels: Int[np.ndarray, " n"],
    texts: Float[np.ndarray, "classes dim"],
) -> Int[np.ndarray, " classes"]:
    """Returns each class's attack class: what it is most often taken for, else its nearest text.

    Of equally frequent mistakes the one with the nearer text counts.
    """
    nearness = texts @ texts.T
    np.fill_diagonal(nearness, -np.inf)
    counts = np.zeros(nearness.shape, dtype=np.int64)
    np.add.at(counts, (labels, answers), 1)
    np.fill_diagonal(counts, -1)
    most = counts == counts.max(axis=1, keepdims=True)
    return np.where(most, nearness, -np.inf).argmax(axis=1)


def _class_rows(classes: Sequence[str], kb: KnowledgeBase) -> list[int]:
    """Returns the knowledge base's rows of the classes."""
    if len(classes) < 2:
        raise InputError(f"A typographic attack needs two classes or more; there is {classes}.")
    return kb.rows_of(classes)


def _read(
    images: LabelledImages, classes: list[str]
) -> tuple[list[Image.Image], Int[np.ndarray, " n"]]:
    """Returns the readable pictures at their full size, and their classes."""
    pictures, kept = [], []
    places: Places = images.places
    reader = ImageReader(places.root)
    rows = places.table.select(["shard", "offset", "size", "path"]).to_pylist()
    for number, row in enumerate(track(rows, "read", total=len(rows), unit="images")):
        try:
            pictures.append(read_picture(reader.read(row)))
        except PICTURE_ERRORS:
            continue
        kept.append(number)
    if len(kept) < 2:
        raise InputError(f"{len(kept)} of {len(rows)} pictures can be read; two are needed.")
    return pictures, images.codes(classes)[kept]


def _answers(
    model: MofiModel, pictures: Sequence[Image.Image | bytes], texts: Sequence[str]
) -> Int[np.ndarray, " n"]:
    """Returns the class whose text is nearest to each picture."""
    classes = model.encode_texts(texts)
    parts = [
        (model.encode_images(pictures[start : start + _BATCH]) @ classes.T).argmax(axis=1)
        for start in range(0, len(pictures), _BATCH)
    ]
    return np.concatenate(parts)
