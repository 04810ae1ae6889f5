"""Recognises evaluation data: a path -> LabelledImages, CaptionedImages, ...

Layouts: a folder of class folders; a listing (.csv / .jsonl) with the columns file and label; the
demo's world (test/ and truth.parquet). Names and descriptions of classes come from a knowledge
base where one is given, else the label is its own name.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from openmofi.embed import Places, find_places
from openmofi.errors import InputError
from openmofi.evaluate.data import LabelledImages, file_places
from openmofi.pairs.folder import IMAGE_SUFFIXES
from openmofi.pairs.listing import read_listing
from openmofi.pairs.rows import PATH_COLUMNS, pick_column

_LABEL_COLUMNS = ("label", "entity", "class", "class_id")


def open_labelled(path: Path | str) -> LabelledImages:
    """Recognises the layout at a path.

    Raises:
        InputError: it is none of the known ones, or holds fewer than two images.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"There is no evaluation data at {str(path)!r}.")
    if (path / "truth.parquet").is_file():
        found = _open_world(path)
    elif path.is_file() and path.suffix in (".csv", ".jsonl"):
        found = _open_listing(path)
    elif path.is_dir() and any(child.is_dir() for child in path.iterdir()):
        found = _open_class_folders(path)
    else:
        raise InputError(
            f"{str(path)!r} is no evaluation data; pass a folder of class folders, a .csv with the "
            "columns file and label, or a folder made by `openmofi demo`."
        )
    if len(found.labels) < 2:
        raise InputError(f"{str(path)!r} holds {len(found.labels)} labelled images; need two.")
    return found


def _open_world(path: Path) -> LabelledImages:
    truth = pq.read_table(path / "truth.parquet", columns=["key", "shown"])
    shown = dict(zip(truth["key"].to_pylist(), truth["shown"].to_pylist(), strict=True))
    test, train = (_labelled(find_places(path / part), shown) for part in ("test", "shards"))
    return replace(test, gallery=train)


def _labelled(places: Places, label_of: dict[str, str]) -> LabelledImages:
    keys = places.table["key"].to_pylist()
    known = [i for i, key in enumerate(keys) if key in label_of]
    table = places.table.take(pa.array(known, pa.int64()))
    return LabelledImages(
        Places(table, places.root, places.refused), tuple(label_of[keys[i]] for i in known)
    )


def _open_listing(path: Path) -> LabelledImages:
    lines = read_listing(path)
    names = list(dict.fromkeys(name for line in lines for name in line.fields))
    label, file = pick_column(names, _LABEL_COLUMNS), pick_column(names, PATH_COLUMNS)
    if label is None or file is None:
        raise InputError(
            f"{str(path)!r} has the columns {', '.join(names) or '(none)'}; expected file and one "
            f"of {', '.join(_LABEL_COLUMNS)}."
        )
    rows = []
    for line in lines:
        try:
            row = [line.fields.get(column, b"").decode() for column in (file, label)]
        except UnicodeDecodeError:
            row = []
        # A wrong truth gives a wrong score, so no line is passed over here.
        if line.error or not all(row):
            raise InputError(
                f"Line {line.number} of {str(path)!r} is damaged or lacks its file or label; mend "
                "or remove it, for a score counts every line."
            )
        rows.append(row)
    return _from_files(path.parent, [row[0] for row in rows], [row[1] for row in rows])


def _open_class_folders(path: Path) -> LabelledImages:
    files = sorted(
        str(file.relative_to(path))
        for file in path.glob("*/**/*")
        if file.suffix.lower() in IMAGE_SUFFIXES
    )
    return _from_files(path, files, [Path(file).parts[0] for file in files])


def _from_files(root: Path, files: list[str], labels: list[str]) -> LabelledImages:
    return LabelledImages(file_places(root, files), tuple(labels))
