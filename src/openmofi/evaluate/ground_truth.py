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
"""Bytes of a file that may be a ground truth; the official ones have less than a million."""
_LEVELS = ("easy", "hard", "junk")


@dataclass(frozen=True)
class QueryTruth:
    """What is known of one query; the rows are rows of the gallery, from 0."""

    name: str
    """Name of the image, without its suffix."""
    box: tuple[float, ...]
    """Part of the image that is the query: left, upper, right, lower, in pixels."""
    easy: np.ndarray
    """Rows that show the query's place clearly."""
    hard: np.ndarray
    """Rows that show it, but hard to tell."""
    junk: np.ndarray
    """Rows that are neither right nor wrong."""


@dataclass(frozen=True)
class GroundTruth:
    """Names of the gallery's images, without their suffix, and the queries."""

    gallery: tuple[str, ...]
    queries: tuple[QueryTruth, ...]


def read_ground_truth(path: Path | str) -> GroundTruth:
    """Reads an official ground truth file, written by Python 2 or 3; runs nothing that is in it.

    Raises:
        InputError: no such file, not a pickle of plain values and arrays, or not a ground truth.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"There is no ground truth at {str(path)!r}.")
    if path.stat().st_size > _LARGEST:
        raise InputError(f"{str(path)!r} has more than {_LARGEST >> 20} MB: no ground truth has.")
    try:
        return _ground_truth(plain_values(path.read_bytes()))
    except InputError as error:
        raise InputError(f"{str(path)!r} is no ground truth: {error}.") from error


def _ground_truth(content: Any) -> GroundTruth:
    parts = content if isinstance(content, dict) else {}
    gallery, names, truths = (_list(parts.get(key), key) for key in ("imlist", "qimlist", "gnd"))
    if len(names) != len(truths) or not names:
        raise InputError(f"it names {len(names)} queries but has answers to {len(truths)}")
    for name in (*gallery, *names):
        _check_name(name)
    queries = [
        _query_truth(name, truth, len(gallery)) for name, truth in zip(names, truths, strict=True)
    ]
    return GroundTruth(tuple(gallery), tuple(queries))


def _list(part: Any, key: str) -> list:
    if not isinstance(part, list):
        raise InputError(f"it lacks the list {key}")
    return part


def _check_name(name: Any) -> None:
    path = PurePosixPath(name) if isinstance(name, str) else PurePosixPath()
    if not path.name or path.is_absolute() or ".." in path.parts or "\0" in str(path):
        raise InputError("a name in imlist or qimlist is not an image below the folder jpg")


def _query_truth(name: str, truth: Any, num_images: int) -> QueryTruth:
    if not isinstance(truth, dict) or not {"bbx", *_LEVELS} <= truth.keys():
        raise InputError(f"the query {name!r} lacks one of bbx, {', '.join(_LEVELS)}")
    box = _numbers(truth["bbx"], f"bbx of {name!r}")
    if len(box) != 4 or not np.isfinite(box).all():
        raise InputError(f"bbx of {name!r} is not a box of four numbers")
    easy, hard, junk = (
        _rows(truth[level], f"{level} of {name!r}", num_images) for level in _LEVELS
    )
    return QueryTruth(name, tuple(box.tolist()), easy, hard, junk)


def _rows(value: Any, what: str, num_images: int) -> np.ndarray:
    numbers = _numbers(value, what)
    if not ((numbers >= 0) & (numbers < num_images) & (numbers % 1 == 0)).all():
        raise InputError(f"{what} names rows outside the {num_images} images of imlist")
    return numbers.astype(np.int64)


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
