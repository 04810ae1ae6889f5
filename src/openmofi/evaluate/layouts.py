"""Recognises evaluation data: a path -> what is there, as one of the classes of data.py.

    truth.parquet beside test/ and shards/         the demo's world
    test/*.tar with .cls or .txt                   CLIP_benchmark's "wds" folder; .txt are captions
    gnd_roxford5k.pkl beside jpg/                  ROxford / RParis
    attacks.csv; label=.._text=..; SCAM's table    typographic attacks
    *.parquet, or a saved Hugging Face dataset     labels or captions by their column
    .csv / .jsonl                                  the same, with a column that names the files
    0_a.jpg, 0_b.jpg, ... 1199_j.jpg               GPR1200
    class/picture.jpg                              a folder per class, also below train/ and test/

A folder that holds several of these at once, such as VTAB's nineteen "wds" folders, is all of them.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from openmofi.embed import Places, find_places
from openmofi.errors import InputError
from openmofi.evaluate.attacks import is_attacks, open_attacks
from openmofi.evaluate.data import AttackedImages, CaptionedImages, LabelledImages, file_places
from openmofi.evaluate.gpr1200 import class_order
from openmofi.evaluate.revisited import RevisitedImages, is_revisited, open_revisited
from openmofi.evaluate.tables import is_table, open_table
from openmofi.evaluate.wds import is_wds, open_wds
from openmofi.pairs.folder import is_picture
from openmofi.pairs.listing import Line, read_listing
from openmofi.pairs.rows import CAPTION_COLUMNS, PATH_COLUMNS, pick_column

Dataset = LabelledImages | CaptionedImages | AttackedImages | RevisitedImages

_LABEL_COLUMNS = ("label", "entity", "class", "class_id")
_NUMBERED = re.compile(r"\d+_")
_TEST_FOLDERS = ("test", "val", "validation")


def open_all(name: str, path: Path | str) -> dict[str, Dataset]:
    """Returns what lies at a path; of a folder with several datasets each as NAME/FOLDER.

    Raises:
        InputError: see `open_data`.
    """
    path = Path(path)
    parts = sorted(p for p in path.iterdir() if is_wds(p)) if path.is_dir() else []
    if parts and not is_wds(path):
        return {f"{name}/{part.name}": open_data(part) for part in parts}
    return {name: open_data(path)}


def open_data(path: Path | str) -> Dataset:
    """Recognises the layout at a path.

    Raises:
        InputError: it is none of the known ones, or holds fewer than two images.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"There is no evaluation data at {str(path)!r}.")
    found = _recognise(path)
    if found is None:
        raise InputError(
            f"{str(path)!r} is no evaluation data; pass a folder of class folders, a .csv with the "
            "columns file and label, a folder of CLIP_benchmark, GPR1200 or ROxford, a dataset in "
            "Parquet, or a folder made by `openmofi demo`."
        )
    count = len(found.gallery.table if isinstance(found, RevisitedImages) else found.places.table)
    if count < 2:
        raise InputError(f"{str(path)!r} holds {count} images with their truth; need two.")
    return found


def _recognise(path: Path) -> Dataset | None:
    if (path / "truth.parquet").is_file():
        return _open_world(path)
    for fits, read in (
        (is_wds, open_wds),
        (is_revisited, open_revisited),
        (is_attacks, open_attacks),
        (is_table, open_table),
    ):
        if fits(path):
            return read(path)
    if path.is_file():
        return _open_listing(path) if path.suffix in (".csv", ".jsonl") else None
    return _open_gpr1200(path) or _open_splits(path) or _open_class_folders(path)


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


def _open_listing(path: Path) -> LabelledImages | CaptionedImages:
    lines = read_listing(path)
    names = list(dict.fromkeys(name for line in lines for name in line.fields))
    label, file = pick_column(names, _LABEL_COLUMNS), pick_column(names, PATH_COLUMNS)
    label = label or pick_column(names, CAPTION_COLUMNS)
    if label is None or file is None:
        raise InputError(
            f"{str(path)!r} has the columns {', '.join(names) or '(none)'}; expected file and one "
            f"of {', '.join(_LABEL_COLUMNS)}, or caption."
        )
    rows = [_row(path, line, (file, label)) for line in lines]
    if label in _LABEL_COLUMNS:
        return LabelledImages(
            file_places(path.parent, [row[0] for row in rows]), tuple(row[1] for row in rows)
        )
    captions: dict[str, list[str]] = {}
    for name, caption in rows:  # a picture with several captions has a line for each
        captions.setdefault(name, []).append(caption)
    places = file_places(path.parent, list(captions))
    return CaptionedImages(places, tuple(map(tuple, captions.values())))


def _row(path: Path, line: Line, columns: tuple[str, str]) -> list[str]:
    """Returns a line's fields; a wrong truth gives a wrong score, so no line is passed over."""
    try:
        row = [line.fields.get(column, b"").decode() for column in columns]
    except UnicodeDecodeError:
        row = []
    if line.error or not row or not all(row):
        raise InputError(
            f"Line {line.number} of {str(path)!r} is damaged or lacks its file or {columns[1]}; "
            "mend or remove it, for a score counts every line."
        )
    return row


def _open_gpr1200(path: Path) -> LabelledImages | None:
    """Opens GPR1200's folder of images, or its parent; None where names do not begin by numbers."""
    root = path / "images" if (path / "images").is_dir() else path
    files = sorted(entry.name for entry in root.iterdir() if is_picture(entry.name))
    if not files or not all(_NUMBERED.match(name) for name in files):
        return None
    ordered = [files[row] for row in class_order(files)]
    labels = tuple(name.split("_")[0] for name in ordered)
    return LabelledImages(file_places(root, ordered), labels, layout="gpr1200")


def _open_splits(path: Path) -> LabelledImages | None:
    """Opens train/ and test/ (or val/) with the same class folders; None without these."""
    tests = [name for name in _TEST_FOLDERS if _has_classes(path / name)]
    if not tests or not _has_classes(path / "train"):
        return None
    return replace(_class_folders(path, tests[0]), gallery=_class_folders(path, "train"))


def _open_class_folders(path: Path) -> LabelledImages | None:
    return _class_folders(path, "") if any(p.is_dir() for p in path.iterdir()) else None


def _has_classes(folder: Path) -> bool:
    return folder.is_dir() and any(child.is_dir() for child in folder.iterdir())


def _class_folders(root: Path, part: str) -> LabelledImages:
    """Returns the pictures below the class folders of a part of a root."""
    folder = root / part
    files = sorted(
        str(file.relative_to(root)) for file in folder.glob("*/**/*") if is_picture(file.name)
    )
    depth = len(Path(part).parts)
    return LabelledImages(file_places(root, files), tuple(Path(f).parts[depth] for f in files))
