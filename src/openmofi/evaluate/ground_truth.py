"""The ground truth of ROxford and RParis: gnd_roxford5k.pkl -> GroundTruth.

The file is a pickled dictionary of imlist and qimlist (names of the images and of the queries)
and gnd: for each query bbx, easy, hard and junk (Radenovic et al. 2018).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from openmofi.errors import InputError
from openmofi.evaluate.plain_pickle import PickledArray, plain_values

_LARGEST = 64 << 20
"""Largest accepted file in bytes; the official ones have less than a million."""
_LEVELS = ("easy", "hard", "junk")


@dataclass(frozen=True)
class QueryTruth:
    """What is known about one query; the rows are those of the gallery, from 0."""

    name: str
    """Name of the image, without its suffix."""
    box: tuple[float, ...]
    """The part of the image that is the query: left, upper, right, lower, in pixels."""
    easy: np.ndarray
    """Rows that show the query's place clearly."""
    hard: np.ndarray
    """Rows that show it, but are hard to recognise."""
    junk: np.ndarray
    """Rows that are neither right nor wrong."""


@dataclass(frozen=True)
class GroundTruth:
    """Names of the gallery's images, without their suffix, and the queries."""

    gallery: tuple[str, ...]
    queries: tuple[QueryTruth, ...]


def read_ground_truth(path: Path | str) -> GroundTruth:
    """Reads an official ground truth file, written by Python 2 or 3, without running its content.

    Raises:
        InputError: the file is missing, is not a pickle of plain values and arrays, or is not a
            ground truth.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"There is no ground truth at {str(path)!r}.")
    if path.stat().st_size > _LARGEST:
        raise InputError(
            f"{str(path)!r} has more than {_LARGEST >> 20} MB, too many for a ground truth; "
            "download it again."
        )
    try:
        return _ground_truth(plain_values(path.read_bytes()))
    except InputError as error:
        raise InputError(f"{str(path)!r} is not a ground truth: {error}.") from error


def _ground_truth(content: Any) -> GroundTruth:
    parts = content if isinstance(content, dict) else {}
    for key in ("imlist", "qimlist", "gnd"):
        if not isinstance(parts.get(key), list):
            raise InputError(f"it lacks the list {key}")
    gallery, names, truths = parts["imlist"], parts["qimlist"], parts["gnd"]
    if len(names) != len(truths) or not names:
        raise InputError(f"it names {len(names)} queries but has answers to {len(truths)}")
    for name in (*gallery, *names):
        path = PurePosixPath(name) if isinstance(name, str) else PurePosixPath()
        if not path.name or path.is_absolute() or ".." in path.parts or "\0" in str(path):
            raise InputError("a name in imlist or qimlist is not an image below the folder jpg")
    queries = [
        _query_truth(name, truth, len(gallery)) for name, truth in zip(names, truths, strict=True)
    ]
    return GroundTruth(tuple(gallery), tuple(queries))


def _query_truth(name: str, truth: Any, num_images: int) -> QueryTruth:
    if not isinstance(truth, dict) or not {"bbx", *_LEVELS} <= truth.keys():
        raise InputError(f"the query {name!r} lacks one of bbx, {', '.join(_LEVELS)}")
    box = _numbers(truth["bbx"], f"bbx of {name!r}")
    if len(box) != 4 or not np.isfinite(box).all():
        raise InputError(f"bbx of {name!r} is not a box of four numbers")
    rows = {}
    for level in _LEVELS:
        what = f"{level} of {name!r}"
        numbers = _numbers(truth[level], what)
        if not ((numbers >= 0) & (numbers < num_images) & (numbers % 1 == 0)).all():
            raise InputError(f"{what} names rows outside the {num_images} images of imlist")
        rows[level] = numbers.astype(np.int64)
    return QueryTruth(name, tuple(box.tolist()), **rows)


def _numbers(value: Any, what: str) -> np.ndarray:
    """Returns a list or array of numbers as float64, which holds every row number exactly."""
    if isinstance(value, PickledArray):
        return value.values.reshape(-1).astype(np.float64)
    if not isinstance(value, (list, tuple)) or not all(type(v) in (int, float) for v in value):
        raise InputError(f"{what} is not a list of numbers")
    try:
        return np.array(value, dtype=np.float64)
    except OverflowError as error:
        raise InputError(f"{what} holds a number beyond all rows") from error
