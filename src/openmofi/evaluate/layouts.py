"""Recognises evaluation data: a path -> what is there, as one of the classes of data.py.

    truth.parquet beside test/ and shards/         the demo's world
    test/*.tar with .cls or .txt                   CLIP_benchmark's "wds" folder; .txt are captions
    gnd_roxford5k.pkl beside jpg/                  ROxford / RParis
    attacks.csv; label=.._text=..; SCAM's table    typographic attacks
    *.parquet, or a saved Hugging Face dataset     labels or captions by their column
    .csv / .jsonl                                  the same, with a column that names the files
    0_a.jpg, 0_b.jpg, ... 1199_j.jpg               GPR1200, if there are some 12,000
    class/image.jpg                              a folder per class, also below train/ and test/

A folder that holds several of these at once, such as VTAB's nineteen "wds" folders, is all of them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from openmofi.embed import Places, find_places
from openmofi.errors import InputError
from openmofi.evaluate.attacks import is_attacks, open_attacks
from openmofi.evaluate.data import (
    LABEL_COLUMNS,
    TEST_SPLITS,
    AttackedImages,
    CaptionedImages,
    LabelledImages,
    file_places,
    in_order,
)
from openmofi.evaluate.gpr1200 import NUM_CLASSES, PER_CLASS, class_order
from openmofi.evaluate.revisited import RevisitedImages, is_revisited, open_revisited
from openmofi.evaluate.tables import is_table, open_table
from openmofi.evaluate.wds import is_wds, open_wds
from openmofi.files.hidden import is_hidden
from openmofi.images.formats import is_image
from openmofi.pairs.listing import LISTING_SUFFIXES, Line, read_listing
from openmofi.pairs.rows import CAPTION_COLUMNS, PATH_COLUMNS, pick_column

Dataset = LabelledImages | CaptionedImages | AttackedImages | RevisitedImages

_GPR1200 = NUM_CLASSES * PER_CLASS
_NUMBERED = re.compile(r"\d+_")
_SPLITS = ("train", *TEST_SPLITS)


def open_all(name: str, path: Path | str) -> dict[str, Dataset]:
    """Returns what lies at a path; of a folder with several datasets each as NAME/FOLDER.

    Raises:
        InputError: see `open_data`.
    """
    path = Path(path)
    parts = sorted(p for p in path.iterdir() if is_wds(p)) if path.is_dir() else []
    if not parts or is_wds(path):
        return {name: open_data(path)}
    others = [p.name for p in _folders(path) if p not in parts]
    if others:
        raise InputError(
            f"{str(path)!r} holds {len(parts)} datasets of CLIP_benchmark, but {others[0]!r} is "
            "none (classnames.txt and test/*.tar are expected); fix it or move it away."
        )
    return {f"{name}/{part.name}": open_data(part) for part in parts}


def open_data(path: Path | str) -> Dataset:
    """Recognises the layout at a path.

    Raises:
        InputError: it is of an unknown kind, or holds fewer than two images.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"There is no evaluation data at {str(path)!r}.")
    found = next((data for fits, read in LAYOUTS if fits(path) and (data := read(path))), None)
    if found is None:
        raise InputError(
            f"{str(path)!r} is not evaluation data; pass a folder of class folders, a .csv with "
            "the columns file and label, a folder of CLIP_benchmark, GPR1200 or ROxford, a dataset "
            "in Parquet, or a folder made by `openmofi demo`."
        )
    count = len(found.places.table)
    if count < 2:
        raise InputError(f"{str(path)!r} holds {count} images with their truth; need two.")
    if isinstance(found, LabelledImages) and len(found.classes) < 2:
        raise InputError(
            f"{str(path)!r} holds one class, {found.classes[0]!r}, so that every answer would be "
            "right; need two."
        )
    return found


def open_labelled(path: Path | str) -> LabelledImages:
    """Opens data that must be labelled images.

    Raises:
        InputError: it is something else, or see `open_data`.
    """
    found = open_data(path)
    if not isinstance(found, LabelledImages):
        raise InputError(f"{str(path)!r} holds {_KINDS[type(found)]}; expected labelled images.")
    return found


_KINDS: dict[type, str] = {
    CaptionedImages: "images with captions",
    AttackedImages: "typographic attacks",
    RevisitedImages: "a benchmark of queries",
}


def _is_world(path: Path) -> bool:
    return (path / "truth.parquet").is_file()


def _open_world(path: Path) -> LabelledImages:
    truth = pq.read_table(path / "truth.parquet", columns=["key", "shown"])
    shown = dict(zip(truth["key"].to_pylist(), truth["shown"].to_pylist(), strict=True))
    test, train = (_labelled(find_places(path / part), shown) for part in ("test", "shards"))
    return replace(test, gallery=train, layout="world")


def _labelled(places: Places, label_of: dict[str, str]) -> LabelledImages:
    keys = places.table["key"].to_pylist()
    known = [i for i, key in enumerate(keys) if key in label_of]
    table = places.table.take(pa.array(known, pa.int64()))
    return LabelledImages(
        Places(table, places.root, places.refused), tuple(label_of[keys[i]] for i in known)
    )


def _is_listing(path: Path) -> bool:
    return path.is_file() and path.suffix in LISTING_SUFFIXES


def _open_listing(path: Path) -> LabelledImages | CaptionedImages:
    lines = read_listing(path)
    names = list(dict.fromkeys(name for line in lines for name in line.fields))
    label, file = pick_column(names, LABEL_COLUMNS), pick_column(names, PATH_COLUMNS)
    known = label or pick_column(names, CAPTION_COLUMNS)
    if known is None or file is None:
        raise InputError(
            f"{str(path)!r} has the columns {', '.join(names) or '(none)'}; expected file and one "
            f"of {', '.join(LABEL_COLUMNS)}, or caption."
        )
    texts: dict[str, list[str]] = {}
    for line in lines:
        name, text = _row(path, line, (file, known))
        if label and name in texts:
            raise InputError(
                f"Line {line.number} of {str(path)!r} lists {name!r} once more; an image would be "
                "its own neighbour, so give each one label."
            )
        texts.setdefault(name, []).append(text)  # captions may be several
    places = file_places(path.parent, list(texts))
    if label:
        return LabelledImages(places, tuple(text for [text] in texts.values()))
    return CaptionedImages(places, tuple(map(tuple, texts.values())))


def _row(path: Path, line: Line, columns: tuple[str, str]) -> list[str]:
    """Returns a line's fields; a wrong truth gives a wrong score, so no line is passed over."""
    try:
        row = [line.fields.get(column, b"").decode() for column in columns]
    except UnicodeDecodeError:
        row = []
    if line.error or not row or not all(row):
        raise InputError(
            f"Line {line.number} of {str(path)!r} is damaged or lacks its file or {columns[1]}; "
            "fix or remove it, for a score counts every line."
        )
    return row


def _open_gpr1200(path: Path) -> LabelledImages | None:
    """Opens GPR1200's folder of images, or its parent; None where there are far from 12,000.

    Raises:
        InputError: a few are missing, or too many.
    """
    root = path / "images" if (path / "images").is_dir() else path
    files = sorted(entry.name for entry in root.iterdir() if _is_shown(entry))
    if abs(len(files) - _GPR1200) > _GPR1200 // 10:
        return None
    if 2 * sum(bool(_NUMBERED.match(name)) for name in files) < len(files):
        return None
    ordered = [files[row] for row in class_order(files)]
    labels = tuple(name.split("_")[0] for name in ordered)
    return LabelledImages(file_places(root, ordered), labels, layout="gpr1200")


def _open_splits(path: Path) -> LabelledImages | None:
    """Opens test/ and train/ (if there) with class folders; None without a folder named test."""
    named = {folder.name.lower(): folder for folder in _folders(path)}
    name = next((name for name in TEST_SPLITS if name in named), None)
    if name is None or not _folders(named[name]):
        return None
    test = _class_folders(path, named[name])
    train = named.get("train")
    return replace(test, gallery=_class_folders(path, train)) if train else test


def _open_class_folders(path: Path) -> LabelledImages | None:
    return _class_folders(path, path) if _folders(path) else None


def _class_folders(root: Path, part: Path) -> LabelledImages:
    """Returns the images below the class folders of a part of a root.

    Raises:
        InputError: a class has no image, or is named as a split.
    """
    classes = {folder.name: folder for folder in _folders(part)}
    files, labels, others = [], [], 0
    for name in in_order(classes):
        found = sorted(_below(classes[name]))
        shown = [file for file in found if is_image(file.name)]
        if not shown or name.lower() in _SPLITS:
            raise InputError(
                f"The folder {name!r} in {str(part)!r} is not a class: it "
                f"{'is named as a split' if shown else 'holds no image'}; expected a folder "
                "of images for each class, or these below train/ and test/."
            )
        others += len(found) - len(shown)
        files += [file.relative_to(root).as_posix() for file in shown]
        labels += [name] * len(shown)
    places = file_places(root, files)
    if others:
        places = replace(places, refused={"no_picture_by_its_name": others})
    return LabelledImages(places, tuple(labels))


def _folders(path: Path) -> list[Path]:
    """Returns the folders that are not hidden."""
    return sorted(f for f in path.iterdir() if f.is_dir() and not is_hidden(f.name))


def _below(folder: Path) -> Iterator[Path]:
    """Yields the files below a folder, also behind links, but none that is hidden."""
    seen = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not is_hidden(name)]
        if (real := os.path.realpath(place)) in seen:
            folders.clear()  # a link to a folder above
            continue
        seen.add(real)
        yield from (Path(place) / name for name in names if not is_hidden(name))


def _is_shown(file: Path) -> bool:
    return is_image(file.name) and not is_hidden(file.name)


LAYOUTS = (
    (_is_world, _open_world),
    (is_wds, open_wds),
    (is_revisited, open_revisited),
    (is_attacks, open_attacks),
    (is_table, open_table),
    (_is_listing, _open_listing),
    (Path.is_dir, _open_gpr1200),
    (Path.is_dir, _open_splits),
    (Path.is_dir, _open_class_folders),
)
"""(May a path be this?, its reader), the surest first; a reader returns None if it is not."""
