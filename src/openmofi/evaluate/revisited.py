"""ROxford and RParis (Radenovic et al. 2018): gallery, cropped queries -> mAP and mP@k, 3 levels.

    level    relevant      left out
    easy     easy          junk, hard
    medium   easy, hard    junk
    hard     hard          junk, easy

Images that are left out do not count in ranks, nor do queries without relevant images in the mean.
Images of equal similarity keep the order of the gallery; distractors (R1M) come after it. AP is
the area under precision over recall by trapezoids; P@k ends at the last relevant image.
"""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from openmofi.embed import Places
from openmofi.errors import InputError
from openmofi.evaluate.data import file_places
from openmofi.evaluate.ground_truth import GroundTruth, QueryTruth, read_ground_truth
from openmofi.evaluate.ranks import count_before, ranks_without_junk, trapezoid_precision
from openmofi.files.hidden import is_hidden

NAMES = ("roxford5k", "rparis6k")
LEVELS = {
    "easy": (("easy",), ("junk", "hard")),
    "medium": (("easy", "hard"), ("junk",)),
    "hard": (("hard",), ("junk", "easy")),
}
"""Level -> (relevant, left out)."""
_BITS = {"easy": 1, "hard": 2, "junk": 4}
_CUTOFFS = (1, 5, 10)
_DISTRACTORS = "revisitop1m"
_BLOCK = 16_384


@dataclass(frozen=True)
class RevisitedImages:
    """Images of ROxford or RParis; gallery and queries are in the order of the truth."""

    gallery: Places
    queries: Places
    """Cropped to the queries' boxes."""
    truth: GroundTruth
    distractors: Places | None = None
    truth_name: str = ""
    """roxford5k or rparis6k."""
    layout: ClassVar[str] = "revisited"
    classes: ClassVar[Sequence[str]] = ()

    @property
    def places(self) -> Places:
        """The images that are searched."""
        return self.gallery


def revisited(
    gallery: Float[np.ndarray, "N D"],
    queries: Float[np.ndarray, "Q D"],
    truth: GroundTruth,
    distractors: Float[np.ndarray, "M D"] | Iterable[np.ndarray] | None = None,
) -> Iterator[tuple[str, float]]:
    """Yields the scores of `mean_average_precision`, without levels that no query has."""
    scores = mean_average_precision(gallery, queries, truth, distractors=distractors)
    for name, value in scores.items():
        if not np.isnan(value):
            yield name, value


def mean_average_precision(
    gallery: Float[np.ndarray, "N D"],
    queries: Float[np.ndarray, "Q D"],
    truth: GroundTruth,
    *,
    distractors: Float[np.ndarray, "M D"] | Iterable[np.ndarray] | None = None,
) -> dict[str, float]:
    """Returns map_easy, mp1_easy, mp5_easy, mp10_easy, map_medium, ..., mp10_hard, from 0 to 1.

    Args:
        gallery: unit vectors of truth.gallery; similarity is the dot product.
        queries: unit vectors of truth.queries.
        truth: which images are relevant to which query.
        distractors: unit vectors of images that are relevant to no query: one array, or blocks
            that are used one at a time.

    Raises:
        InputError: the number or width of the vectors is wrong, or a similarity is not finite.
    """
    gallery, queries = np.asarray(gallery), np.asarray(queries)
    _check_shape("queries", queries, len(truth.queries), None)
    _check_shape("gallery", gallery, len(truth.gallery), queries.shape[1])
    similarity_QN = _similarities(queries, gallery)
    listed = _counted(similarity_QN, truth)
    first = len(gallery)
    parts = [distractors] if isinstance(distractors, np.ndarray) else distractors or ()
    for block in (part[at : at + _BLOCK] for part in parts for at in range(0, len(part), _BLOCK)):
        block = np.asarray(block)
        _check_shape("distractors", block, None, queries.shape[1])
        for images, row in zip(listed, _similarities(queries, block), strict=True):
            images.count(row.astype(similarity_QN.dtype, copy=False), first)
        first += len(block)
    return dict(_scores(listed))


def score_similarities(
    similarity: Float[np.ndarray, "Q N"], truth: GroundTruth
) -> dict[str, float]:
    """Returns what `mean_average_precision` returns, from similarities such as re-ranked ones.

    Raises:
        InputError: the similarities have another shape, or are not finite.
    """
    similarity = np.asarray(similarity)
    _check_shape("similarities", similarity, len(truth.queries), len(truth.gallery))
    _check_finite(similarity)
    return dict(_scores(_counted(similarity, truth)))


def _counted(similarity_QN: np.ndarray, truth: GroundTruth) -> list[_Listed]:
    """Returns the listed images of each query, with the gallery counted."""
    listed = []
    for query, row in zip(truth.queries, similarity_QN, strict=True):
        listed.append(_Listed.of(query, row))
        listed[-1].count(row, 0)
    return listed


@dataclass(frozen=True)
class _Listed:
    """The images that a query's truth lists, best first."""

    truth: QueryTruth
    rows: np.ndarray
    kinds: np.ndarray
    """For each image, the bits of the lists that hold it."""
    similarity: np.ndarray
    before: np.ndarray
    """For each image, how many of those counted so far rank before it."""

    @classmethod
    def of(cls, truth: QueryTruth, similarity_N: np.ndarray) -> _Listed:
        kinds_N = np.zeros(len(similarity_N), np.uint8)
        for name, bit in _BITS.items():
            kinds_N[getattr(truth, name)] |= bit
        rows = np.flatnonzero(kinds_N)
        rows = rows[np.argsort(-similarity_N[rows], kind="stable")]
        return cls(truth, rows, kinds_N[rows], similarity_N[rows], np.zeros(len(rows), np.int64))

    def count(self, similarity_N: np.ndarray, first: int) -> None:
        ranked = np.sort(similarity_N)
        above = len(ranked) - np.searchsorted(ranked, self.similarity, "right")
        equal = len(ranked) - np.searchsorted(ranked, self.similarity, "left") - above
        listed_here = (self.rows >= first) & (self.rows < first + len(ranked))
        if (equal > listed_here).any():  # ties, in which the order of the files decides
            above = count_before(similarity_N, first, self.similarity, self.rows)
        self.before[:] += above

    def scores(self, level: str) -> tuple[float, ...] | None:
        """Returns AP and P@k, or None if no image is relevant."""
        relevant, left_out = LEVELS[level]
        num_relevant = sum(len(getattr(self.truth, name)) for name in relevant)
        if not num_relevant:
            return None
        wanted, junk = (sum(_BITS[name] for name in names) for names in (relevant, left_out))
        ranks = ranks_without_junk(self.before, self.kinds, wanted, junk)
        last = int(ranks[-1]) + 1
        cutoffs = [min(last, k) for k in _CUTOFFS]
        hits = [bisect_left(ranks, k) for k in cutoffs]
        precisions = (hit / k for hit, k in zip(hits, cutoffs, strict=True))
        return trapezoid_precision(ranks, num_relevant), *precisions


def _scores(listed: list[_Listed]) -> Iterator[tuple[str, float]]:
    for level in LEVELS:
        asked = [row for part in listed if (row := part.scores(level)) is not None]
        means = np.mean(asked, axis=0) if asked else np.full(1 + len(_CUTOFFS), np.nan)
        names = (f"map_{level}", *(f"mp{k}_{level}" for k in _CUTOFFS))
        yield from zip(names, means.tolist(), strict=True)


def _check_shape(what: str, vectors: np.ndarray, rows: int | None, width: int | None) -> None:
    if (
        vectors.ndim != 2
        or rows not in (None, len(vectors))
        or width not in (None, vectors.shape[1])
    ):
        expected = ("any" if rows is None else rows, "any" if width is None else width)
        raise InputError(
            f"Vectors of the {what} have the shape {vectors.shape}, expected (rows, columns) = "
            f"{expected}."
        )


def _similarities(queries: np.ndarray, images: np.ndarray) -> np.ndarray:
    kind = np.result_type(queries, images, np.float32)
    with np.errstate(invalid="ignore", over="ignore"):
        scores = queries.astype(kind, copy=False) @ images.astype(kind, copy=False).T
    _check_finite(scores)  # a vector that is not finite makes scores that are not
    return scores


def _check_finite(scores: np.ndarray) -> None:
    if not np.isfinite(scores).all():
        raise InputError("Some embeddings hold NaN, infinity or huge numbers; fix or remove them.")


def is_revisited(path: Path | str) -> bool:
    """Returns whether a path holds ROxford or RParis as their authors' scripts lay them out."""
    return bool(_folders(Path(path)))


def open_revisited(path: Path | str, name: str | None = None) -> RevisitedImages:
    """Opens roxford5k/ or rparis6k/ (gnd_<name>.pkl and jpg/), and a revisitop1m/ next to it.

    Args:
        path: the folder itself, or one that holds it, directly or below datasets/.
        name: roxford5k or rparis6k; required if the folder holds both.

    Raises:
        InputError: the folder holds neither, or both without `name`, or images are missing.
    """
    found = _folders(Path(path))
    if name is not None:
        found = {key: folder for key, folder in found.items() if key == name}
    if not found:
        raise InputError(
            f"{str(path)!r} holds no {name or ' or '.join(NAMES)}; pass the folder with "
            f"gnd_{name or NAMES[0]}.pkl and jpg/."
        )
    if len(found) > 1:
        raise InputError(f"{str(path)!r} holds {' and '.join(found)}; pass the folder of one.")
    ((name, folder),) = found.items()
    truth = read_ground_truth(folder / f"gnd_{name}.pkl")
    files = [f"jpg/{image}.jpg" for image in truth.gallery]
    asked = [f"jpg/{query.name}.jpg" for query in truth.queries]
    missing = [file for file in dict.fromkeys([*files, *asked]) if not (folder / file).is_file()]
    if missing:
        raise InputError(
            f"{len(missing)} images are missing in {str(folder)!r}, the first is {missing[0]!r}; "
            "a score counts every one."
        )
    # The distractors: all .jpg files below jpg/, sorted by name.
    distractors, million = None, folder.parent / _DISTRACTORS
    if million.is_dir():
        others = [
            os.path.relpath(os.path.join(place, file), million)
            for place, _, found_files in os.walk(million / "jpg")
            for file in found_files
            if file.lower().endswith(".jpg")
        ]
        others = [file for file in others if not is_hidden(file)]
        if not others:
            raise InputError(f"{str(million)!r} holds no jpg/*.jpg; fill or remove it.")
        distractors = file_places(million, sorted(others))
    return RevisitedImages(
        file_places(folder, files),
        file_places(folder, asked, crops=[query.box for query in truth.queries]),
        truth,
        distractors,
        name,
    )


def _folders(path: Path) -> dict[str, Path]:
    """Returns {name: folder} of the benchmarks at a path."""
    found = {}
    for name in NAMES:
        for folder in (path, path / name, path / "datasets" / name):
            if (folder / f"gnd_{name}.pkl").is_file():
                found.setdefault(name, folder)
    return found
