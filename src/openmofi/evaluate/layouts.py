"""Recognises evaluation data: a path -> the data there, as one of the classes of data.py.

    truth.parquet beside test/ and shards/         the demo's world
    test/*.tar with .cls or .txt                   CLIP_benchmark's "wds" folder; .txt are captions
    gnd_roxford5k.pkl beside jpg/                  ROxford / RParis
    attacks.csv; label=.._text=..; SCAM's table    typographic attacks
    *.parquet, or a saved Hugging Face dataset     labels or captions by their column
    .csv / .jsonl                                  the same, with a column that names the files
    0_a.jpg, 0_b.jpg, ... 1199_j.jpg               GPR1200, if there are about 12,000
    class/image.jpg                                a folder per class, or the same below train/
                                                   and test/

A folder of several "wds" folders, such as VTAB's nineteen, is opened as all of them.
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
    DOMAIN_COLUMN,
    LABEL_COLUMNS,
    TEST_SPLITS,
    AttackedImages,
    CaptionedImages,
    LabelledImages,
    file_places,
    in_order,
)
from openmofi.evaluate.gpr1200 import DOMAINS, NUM_CLASSES, PER_CLASS, class_order
from openmofi.evaluate.revisited import RevisitedImages, is_revisited, open_revisited
from openmofi.evaluate.tables import is_table, open_table
from openmofi.evaluate.wds import is_wds, open_wds
from openmofi.files.hidden import is_hidden
from openmofi.images.formats import is_image
from openmofi.pairs.listing import LISTING_SUFFIXES, read_listing
from openmofi.pairs.rows import CAPTION_COLUMNS, PATH_COLUMNS, pick_column

Dataset = LabelledImages | CaptionedImages | AttackedImages | RevisitedImages

_NO_DOMAIN = "(no domain)"
_GPR1200 = NUM_CLASSES * PER_CLASS
_NUMBERED = re.compile(r"\d+_")
_SPLITS = ("train", *TEST_SPLITS)


def open_all(name: str, path: Path | str) -> dict[str, Dataset]:
    """Opens the data at a path; each dataset of a folder of several is named NAME/FOLDER.

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
            "not one (classnames.txt and test/*.tar are expected); fix it or move it away."
        )
    return {f"{name}/{part.name}": open_data(part) for part in parts}


def open_data(path: Path | str) -> Dataset:
    """Recognises the layout at a path.

    Raises:
        InputError: the layout is unknown, or there are fewer than two images or classes.
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
        raise InputError(f"{str(path)!r} holds {count} images with their truth; need at least two.")
    if isinstance(found, LabelledImages) and len(found.classes) < 2:
        raise InputError(
            f"{str(path)!r} holds one class, {found.classes[0]!r}, so every answer would be "
            "right; need at least two."
        )
    return found


def open_labelled(path: Path | str) -> LabelledImages:
    """Opens data that must be labelled images.

    Raises:
        InputError: it is something else; see also `open_data`.
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


def _open_world(path: Path) -> LabelledImages:
    """Opens the demo's world; images that the truth does not list are left out."""
    truth = pq.read_table(path / "truth.parquet", columns=["key", "shown"])
    shown = dict(zip(truth["key"].to_pylist(), truth["shown"].to_pylist(), strict=True))
    parts = []
    for part in ("test", "shards"):
        places = find_places(path / part)
        keys = places.table["key"].to_pylist()
        known = [i for i, key in enumerate(keys) if key in shown]
        table = places.table.take(pa.array(known, pa.int64()))
        labels = tuple(shown[keys[i]] for i in known)
        parts.append(LabelledImages(Places(table, places.root, places.refused), labels))
    test, train = parts
    return replace(test, gallery=train, layout="world")


def _open_listing(path: Path) -> LabelledImages | CaptionedImages:
    """Opens a .csv or .jsonl that names files and their labels or captions.

    Labels may have a column `domain` beside them, by which a report draws its map.

    Raises:
        InputError: a column is missing, a line is damaged or incomplete, or an image has two
            labels. No line is skipped: a score counts every one.
    """
    lines = read_listing(path)
    names = list(dict.fromkeys(name for line in lines for name in line.fields))
    label, file = pick_column(names, LABEL_COLUMNS), pick_column(names, PATH_COLUMNS)
    known = label or pick_column(names, CAPTION_COLUMNS)
    if known is None or file is None:
        raise InputError(
            f"{str(path)!r} has the columns {', '.join(names) or '(none)'}; expected file and one "
            f"of {', '.join(LABEL_COLUMNS)}, or caption."
        )
    wanted = (file, known, DOMAIN_COLUMN)
    texts: dict[str, list[str]] = {}
    domains: list[str] = []
    for line in lines:
        try:
            name, text, domain = (line.fields.get(column, b"").decode() for column in wanted)
        except UnicodeDecodeError:
            name = text = domain = ""
        if line.error or not name or not text:
            raise InputError(
                f"Line {line.number} of {str(path)!r} is damaged or lacks its file or {known}; "
                "fix or remove it, because a score counts every line."
            )
        domains.append(domain or _NO_DOMAIN)
        if label and name in texts:
            raise InputError(
                f"Line {line.number} of {str(path)!r} lists {name!r} again; an image would be "
                "its own neighbour, so give each image one label."
            )
        texts.setdefault(name, []).append(text)  # an image may have several captions
    places = file_places(path.parent, list(texts))
    if label:
        labels = tuple(text for [text] in texts.values())
        several = len(set(domains)) > 1
        return LabelledImages(places, labels, domains=tuple(domains) if several else ())
    return CaptionedImages(places, tuple(map(tuple, texts.values())))


def _open_gpr1200(path: Path) -> LabelledImages | None:
    """Opens GPR1200's folder of images, or its parent; None if far fewer or more than 12,000.

    Raises:
        InputError: there are nearly 12,000 images, but not exactly so many.
    """
    root = path / "images" if (path / "images").is_dir() else path
    names = (entry.name for entry in root.iterdir())
    files = sorted(name for name in names if is_image(name) and not is_hidden(name))
    if abs(len(files) - _GPR1200) > _GPR1200 // 10:
        return None
    if 2 * sum(bool(_NUMBERED.match(name)) for name in files) < len(files):
        return None
    ordered = [files[row] for row in class_order(files)]
    labels = tuple(name.split("_")[0] for name in ordered)
    domains = tuple(name for name, part in DOMAINS.items() for _ in part for _ in range(PER_CLASS))
    return LabelledImages(file_places(root, ordered), labels, domains=domains, layout="gpr1200")


def _open_splits(path: Path) -> LabelledImages | None:
    """Opens class folders below test/ and, if present, train/; None without a test split."""
    named = {folder.name.lower(): folder for folder in _folders(path)}
    name = next((name for name in TEST_SPLITS if name in named), None)
    if name is None or not _folders(named[name]):
        return None
    test = _class_folders(path, named[name])
    train = named.get("train")
    return replace(test, gallery=_class_folders(path, train)) if train else test


def _class_folders(root: Path, part: Path) -> LabelledImages:
    """Returns the images below the class folders of `part`, which lies in `root`.

    Raises:
        InputError: a class has no image, or has the name of a split.
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
                "of images for each class, directly or below train/ and test/."
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
    """Yields the files below a folder, following links and skipping what is hidden."""
    seen = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not is_hidden(name)]
        if (real := os.path.realpath(place)) in seen:
            folders.clear()  # a link to a folder above
            continue
        seen.add(real)
        yield from (Path(place) / name for name in names if not is_hidden(name))


LAYOUTS = (
    (lambda path: (path / "truth.parquet").is_file(), _open_world),
    (is_wds, open_wds),
    (is_revisited, open_revisited),
    (is_attacks, open_attacks),
    (is_table, open_table),
    (lambda path: path.is_file() and path.suffix in LISTING_SUFFIXES, _open_listing),
    (Path.is_dir, _open_gpr1200),
    (Path.is_dir, _open_splits),
    (Path.is_dir, lambda path: _class_folders(path, path) if _folders(path) else None),
)
"""(Can the path be this layout?, its reader), most specific first; a reader may return None."""
