"""CLIP_benchmark's "wds" folders (clip_benchmark.webdataset_builder) -> evaluation data.

classnames.txt                          class names in label order
zeroshot_classification_templates.txt   texts with {c}
dataset_type.txt                        absent: classification; or retrieval
test/nshards.txt, test/0.tar, ...       images, each with its label in a .cls of the same key,
train/...                               or its captions, one a line, in a .txt
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from openmofi.embed import Places, find_places
from openmofi.errors import InputError
from openmofi.evaluate.data import CaptionedImages, LabelledImages
from openmofi.evaluate.zeroshot import benchmarks
from openmofi.files.hidden import is_hidden
from openmofi.pairs.caption import plain_name
from openmofi.pairs.tar import scan_tar

_NAMES, _TEMPLATES = "classnames.txt", "zeroshot_classification_templates.txt"
_TYPE, _COUNT = "dataset_type.txt", "nshards.txt"
_DAMAGE = frozenset({"truncated_tar", "not_a_tar", "damaged_tar_header", "unreadable_shard"})


def is_wds(path: Path | str) -> bool:
    """Returns whether a path is such a folder."""
    path = Path(path)
    marks = (_NAMES, _TEMPLATES, _TYPE, f"test/{_COUNT}")
    return bool(_tars(path / "test")) and any((path / mark).is_file() for mark in marks)


def open_wds(path: Path | str) -> LabelledImages | CaptionedImages:
    """Opens such a folder; test/ is evaluated, and train/ (if present) is the gallery.

    Labels are the numbers in the .cls files, as text. Without classnames.txt, the names are those
    of the benchmark that the folder's name tells, such as wds_vtab-svhn.

    Raises:
        InputError: an image has no label or caption or has several labels, a label is out of
            range, or shards are damaged or missing.
    """
    path = Path(path)
    kind = "\n".join(_lines(path / _TYPE)).lower() or "classification"
    if kind == "retrieval":
        places = _places(path / "test")
        captions = []
        for value in _values(path / "test", places, "txt"):
            lines = [line.strip() for line in value.decode("utf-8", "replace").splitlines()]
            captions.append(tuple(line for line in lines if line))
        return CaptionedImages(places, tuple(captions))
    if kind != "classification":
        raise InputError(
            f"{str(path)!r} is of the type {kind!r}; expected classification or retrieval."
        )
    # The folder's own texts, else those of the benchmark that its name tells.
    name = re.sub(r"^wds[_-]", "", path.resolve().name)
    plain = re.sub(r"^vtab[-_/]", "", name)
    keys = [f"{plain}_vtab"] * (plain != name) + [plain]
    known = next((benchmarks()[key] for key in keys if key in benchmarks()), {})
    names = _lines(path / _NAMES) or known.get("classes", [])
    templates = _lines(path / _TEMPLATES) or known.get("templates", [])
    test = _labelled(path / "test", names, templates)
    if not _tars(path / "train"):
        return test
    return LabelledImages(
        test.places,
        test.labels,
        _labelled(path / "train", names, templates),
        test.class_names,
        test.templates,
    )


def _labelled(folder: Path, names: list[str], templates: list[str]) -> LabelledImages:
    places = _places(folder)
    values = [value.strip() for value in _values(folder, places, "cls")]
    limit = len(names) or 1 << 31
    bad = [value for value in values if not value.isdigit() or int(value) >= limit]
    if bad:
        expected = f"a number below {limit} (lines of {_NAMES})" if names else "a number"
        raise InputError(
            f"{len(bad)} of {len(values)} labels in {str(folder)!r} are wrong, the first is "
            f"{bad[0].decode('utf-8', 'replace')!r}; expected {expected}."
        )
    return LabelledImages(
        places,
        tuple(str(int(value)) for value in values),
        class_names={str(i): name for i, name in enumerate(names)},
        templates=tuple(templates),
    )


def _tars(folder: Path) -> list[Path]:
    """Returns the shards below a folder that are not hidden."""
    found = sorted(folder.rglob("*.tar"))
    return [file for file in found if not is_hidden(file.relative_to(folder).as_posix())]


def _places(folder: Path) -> Places:
    """Returns the images of a split; refuses missing and damaged shards: a score counts all."""
    shards = len(_tars(folder))
    stated = _lines(folder / _COUNT)
    if stated and stated[0] != str(shards):
        raise InputError(
            f"{str(folder)!r} holds {shards} shards, but its {_COUNT} says {stated[0]}; download "
            "the folder again."
        )
    places = find_places(folder)
    lost = sorted(set(places.refused) & _DAMAGE)
    if lost:
        raise InputError(
            f"{str(folder)!r} has damaged shards ({', '.join(lost)}); download them again, because "
            "a score counts every image."
        )
    return places


def _values(folder: Path, places: Places, extension: str) -> list[bytes]:
    """Returns the content of each image's file with an extension, such as cls."""
    found: dict[tuple[str, str], bytes] = {}
    for file in _tars(folder):
        shard = file.relative_to(folder).as_posix()
        for key, value in _members(file, extension):
            if (shard, key) in found:
                raise InputError(f"{shard} in {str(folder)!r} holds {key}.{extension} twice.")
            if value.strip():
                found[shard, key] = value
    columns = (places.table[name].to_pylist() for name in ("shard", "key"))
    images = list(zip(*columns, strict=True))
    lost = [place for place in images if place not in found]
    alone = found.keys() - images
    if lost or alone:
        shard, key = lost[0] if lost else min(alone)
        what = f"images have no .{extension}" if lost else f".{extension} have no image"
        raise InputError(
            f"{len(lost or alone)} {what} in {str(folder)!r}, the first is {key!r} in {shard}; a "
            "score counts every image."
        )
    return [found[place] for place in images]


def _members(tar: Path, extension: str) -> list[tuple[str, bytes]]:
    """Returns (key, content) of the files with an extension, without reading any image."""
    result = []
    with tar.open("rb", buffering=0) as file:
        for member in scan_tar(tar):
            if is_hidden(member.name):
                continue
            folder, slash, name = member.name.rpartition("/")
            key, _, ending = name.partition(".")
            if ending.lower() == extension:
                content = os.pread(file.fileno(), member.size, member.offset)
                result.append((plain_name(f"{folder}{slash}{key}"), content))
    return result


def _lines(file: Path) -> list[str]:
    """Returns the lines of a small text file, or an empty list if it does not exist."""
    if not file.is_file():
        return []
    try:
        lines = [line.strip() for line in file.read_text("utf-8").splitlines()]
    except UnicodeDecodeError:
        raise InputError(f"{str(file)!r} is not UTF-8; save it again as UTF-8.") from None
    while lines and not lines[-1]:
        lines.pop()
    return lines
