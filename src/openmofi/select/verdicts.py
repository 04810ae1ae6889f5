"""A decided block -> the verdict on each of its row groups, on disk until the files are written."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from openmofi.select.blocks import Block
from openmofi.select.funnel import Funnel
from openmofi.select.repeats import Repeats


@dataclass(frozen=True)
class RowVerdicts:
    """What becomes of the rows of a row group of the labels."""

    begin: np.ndarray
    """The number of its first image."""
    code: np.ndarray
    """Per row: the index of its reason, 0 if it is kept."""
    reasons: np.ndarray
    row: np.ndarray
    """Per kept label: its row, ascending; the surest label of a row first."""
    classes: np.ndarray
    scores: np.ndarray
    priors: np.ndarray
    """[m, 2] or [m, 0], see `choose.ChosenCandidates`."""
    repeats: np.ndarray
    """Its refused duplicates, see `repeats.REPEAT`."""
    repeated: np.ndarray
    """The numbers of images that refused ones repeat."""


def write_verdicts(
    folder: Path, block: Block, funnel: Funnel, class_of: np.ndarray, repeats: Repeats
) -> None:
    """Writes the verdict on each row group of a block after all steps."""
    labels, refused, repeated = funnel.labels, repeats.refused(block), repeats.repeated(block)
    cuts = np.searchsorted(labels.image, block.begins)
    reasons = np.array(funnel.reasons)
    for number in range(len(block.pieces)):
        low, high = block.begins[number : number + 2]
        mine = slice(*cuts[number : number + 2])
        begin, end = block.begin + low, block.begin + high
        verdict = RowVerdicts(
            begin,
            funnel.code[low:high],
            reasons,
            labels.image[mine] - low,
            class_of[labels.entity[mine]],
            labels.score[mine],
            labels.priors[mine],
            refused[slice(*np.searchsorted(refused["image"], (begin, end)))],
            repeated[slice(*np.searchsorted(repeated, (begin, end)))],
        )
        np.savez(_path(folder, block, number), **vars(verdict))


def read_verdict(folder: Path, block: Block, number: int) -> RowVerdicts:
    """Returns the verdict on one row group of a block."""
    with np.load(_path(folder, block, number)) as stored:
        return RowVerdicts(*(stored[field.name] for field in fields(RowVerdicts)))


def _path(folder: Path, block: Block, number: int) -> Path:
    return folder / f"{block.number}-{number}.npz"
