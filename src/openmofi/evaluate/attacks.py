"""Images with a wrong word written on them: does the model look, or read?

SCAM (arXiv 2504.04893; BLISS-e-V/SCAM on the Hugging Face Hub, as Parquet or saved by `datasets`)
shows an object with a note; an unrelated word is written on it by hand (SCAM), by machine
(SynthSCAM) or not at all (NoSCAM). RTA-100 (arXiv 2304.04512) is a folder of files named
label=OBJECT_text=WORD.png. Your own images go into an attacks.csv with the columns file, object,
word and, if there are several groups, group.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from openmofi.errors import InputError
from openmofi.evaluate.data import AttackedImages, file_places
from openmofi.evaluate.metrics import check_embeddings, true_ranks
from openmofi.evaluate.tables import Table, find_tables
from openmofi.evaluate.zeroshot import (
    EncodeTexts,
    benchmark_texts,
    template_vectors,
)
from openmofi.images.formats import is_image
from openmofi.pairs.listing import read_listing

LISTING = "attacks.csv"
_SCAM_COLUMNS = ("object_label", "attack_word", "type")
_RTA_NAME = re.compile(r"label=(?P<object>.+?)_text=(?P<word>.+)\.[^.]+")


def scam_templates() -> tuple[str, ...]:
    """Returns the texts of SCAM's authors: the first 32 of OpenAI's 80 for ImageNet."""
    return benchmark_texts("imagenet1k")[1][:32]


def is_attacks(path: Path | str) -> bool:
    """Returns whether a path is one of the benchmarks of this module."""
    return is_scam(path) or is_rta100(path) or (Path(path) / LISTING).is_file()


def is_scam(path: Path | str) -> bool:
    """Returns whether a path holds a table with SCAM's columns."""
    table = _scam_table(path)
    return table is not None and set(_SCAM_COLUMNS) <= set(table.schema().names)


def is_rta100(path: Path | str) -> bool:
    """Returns whether a folder holds files named as RTA-100's are."""
    return next(_rta_files(Path(path)), None) is not None


def open_attacks(path: Path | str) -> AttackedImages:
    """Opens one of the benchmarks.

    Raises:
        InputError: it is none of them, or does not say what each image shows.
    """
    path = Path(path)
    if (path / LISTING).is_file():
        return _open_listing(path / LISTING)
    if is_rta100(path):
        found = sorted(_rta_files(path), key=lambda pair: pair[0])
        files = [file.relative_to(path).as_posix() for file, _ in found]
        objects, words = (tuple(name[part] for _, name in found) for part in ("object", "word"))
        return AttackedImages(file_places(path, files), objects, words, ("RTA-100",) * len(files))
    table = _scam_table(path)
    if table is None or not is_scam(path):
        raise InputError(
            f"{str(path)!r} holds no typographic attacks; pass SCAM's table, RTA-100's folder or a "
            f"folder with {LISTING}."
        )
    columns = [table.read([name])[name].to_pylist() for name in _SCAM_COLUMNS]
    objects, words, groups = (tuple(str(v or "").strip() for v in column) for column in columns)
    return _checked(AttackedImages(table.places(), objects, words, groups), table.root)


def attack_robustness(
    image_vectors: np.ndarray,
    images: AttackedImages,
    encode_texts: EncodeTexts,
    templates: Sequence[str] | None = None,
) -> Iterator[tuple[str, float]]:
    """Yields for each group how often its images are taken for what they show.

    `attack_two_way_GROUP` is SCAM's score: the object's text is nearer than the word's (a tie
    counts as lost). `attack_top1_GROUP` is RTA-100's: the object's text is the nearest of all the
    benchmark's objects and words. `attack_fooled_GROUP` is the share of images whose word is the
    nearest of all. SCAM's own code averages a name's texts before it normalises them; here they
    are normalised first.

    Args:
        image_vectors: unit vectors, one per image.
        images: the images; those without a word count only for top-1.
        encode_texts: texts -> unit vectors.
        templates: texts with {c}; by default SCAM's.

    Raises:
        InputError: a vector is not finite, or there is not one per image.
    """
    check_embeddings(image_vectors, rows=len(images.objects))
    names = sorted({*images.objects, *images.words} - {""})
    texts = template_vectors(encode_texts, names, templates or scam_templates())
    row_of = {name: row for row, name in enumerate(names)}
    shown = np.array([row_of[name] for name in images.objects])
    written = np.array([row_of.get(word, -1) for word in images.words])
    object_first = true_ranks(image_vectors, shown, texts) == 0
    word_first = true_ranks(image_vectors, written, texts) == 0
    nearer = _dots(image_vectors, texts[shown]) > _dots(image_vectors, texts[written])
    groups = np.array(images.groups)
    for group in dict.fromkeys(images.groups):
        here = groups == group
        attacked = here & (written >= 0)
        name = group.lower()
        if attacked.any():
            yield f"attack_two_way_{name}", float(nearer[attacked].mean())
        yield f"attack_top1_{name}", float(object_first[here].mean())
        if attacked.any():
            yield f"attack_fooled_{name}", float(word_first[attacked].mean())


def _dots(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return np.einsum("nd,nd->n", first, second)


def _scam_table(path: Path | str) -> Table | None:
    tables = find_tables(path)  # SCAM has a single split, train
    return next(iter(tables.values())) if len(tables) == 1 else None


def _rta_files(path: Path) -> Iterator[tuple[Path, re.Match[str]]]:
    for folder in (path, path / "data", path / "ours" / "data"):
        for file in folder.glob("label=*_text=*"):
            name = _RTA_NAME.fullmatch(file.name)
            if name and is_image(file.name):
                yield file, name


def _open_listing(path: Path) -> AttackedImages:
    lines = read_listing(path)
    wanted = ("file", "object", "word", "group")
    try:
        columns = [[line.fields.get(name, b"").decode() for line in lines] for name in wanted]
    except UnicodeDecodeError:
        raise InputError(f"{str(path)!r} is not UTF-8; save it again as UTF-8.") from None
    files, objects, words, groups = columns
    bad = [line.number for line, file in zip(lines, files, strict=True) if line.error or not file]
    if bad:
        raise InputError(
            f"{len(bad)} lines of {str(path)!r} are damaged or have no file, the first is line "
            f"{bad[0]}; expected the columns {', '.join(wanted)}."
        )
    places = file_places(path.parent, files)
    group = tuple(name or "all" for name in groups)
    return _checked(AttackedImages(places, tuple(objects), tuple(words), group), path)


def _checked(images: AttackedImages, path: Path) -> AttackedImages:
    bad = [row for row, name in enumerate(images.objects) if not name]
    if bad:
        raise InputError(
            f"{len(bad)} of {len(images.objects)} images in {str(path)!r} do not say what they "
            f"show, the first is in row {bad[0]}; a score counts every image."
        )
    return images
