"""A selection -> its mentions as they were decided: what a person could be asked about.

Of more mentions than a million, a sample, drawn by the images' bytes and the captions.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from openmofi.corrections.keys import name_keys, pair_keys, text_keys
from openmofi.corrections.standing import NameAnswer, Standing
from openmofi.errors import InputError
from openmofi.kb.text import canonical
from openmofi.select.blocks import LabelBlocks, Piece, label_blocks
from openmofi.select.choose import ScoredCandidates, best_candidates, read_mentions
from openmofi.select.corrections import Corrections
from openmofi.select.sample import DrawnMentions, draw_mentions
from openmofi.select.selection import Selection

_ENOUGH = 1_000_000


@dataclass(frozen=True)
class Pool:
    """Mentions whose images were looked at; arrays have one element per mention."""

    file: np.ndarray
    """The labels file, as `Selection.files` counts them."""
    row: np.ndarray
    """Row of that file."""
    start: np.ndarray
    """First character of the mention in the caption."""
    name: np.ndarray
    """uint64, see corrections/keys.py."""
    pair: np.ndarray
    """uint64: the name and the entity that was chosen."""
    evidence: np.ndarray
    """Log odds of the chosen entity; NaN where the selection knows what people said."""
    said: np.ndarray
    """int8, what people have said since: 1 right, -1 wrong, 0 nothing."""
    threshold: float
    """Least evidence of a label that is kept."""
    weight: float
    """How many mentions each stands for."""

    def __len__(self) -> int:
        return len(self.row)

    def at(self, file: int, row: int, start: int) -> list[int]:
        """Returns the numbers of the mentions at a place: one, or none."""
        here = (self.file == file) & (self.row == row) & (self.start == start)
        return np.flatnonzero(here).tolist()

    @cached_property
    def open(self) -> np.ndarray:
        """Whether nobody has said yet what is right."""
        return ~np.isnan(self.evidence)


def pool_of(selection: Selection, standing: Standing | None = None, *, most: int = _ENOUGH) -> Pool:
    """Returns the mentions of a selection in the order joint.

    Args:
        selection: one whose images were looked at.
        standing: what people have said by now.
        most: about how many to draw.

    Raises:
        InputError: the selection was made in another order, or nobody looked at the images.
    """
    _check(selection)
    said = Corrections.of(standing or Standing(), selection.kb)[0]
    labels = label_blocks(selection.files, num_entities=len(selection.kb))

    def read(piece: Piece) -> tuple[DrawnMentions, np.ndarray]:
        found = read_mentions(
            piece.path,
            "joint",
            selection.priors,
            selection.corrections,
            with_names=True,
            group=piece.group,
        )
        own, _ = best_candidates(found, "joint", selection.weights)
        assert found.ids is not None
        assert found.surfaces is not None
        assert found.starts is not None
        names = name_keys(found.surfaces)
        ids = text_keys(found.ids.dictionary)[found.ids.indices.to_numpy()[own.best]]
        evidence = own.evidence.astype(np.float64)
        looked = ~np.isnan(evidence)
        if found.known is not None:
            evidence[found.known != 0] = np.nan
        row = found.row[found.begins]
        told = _said(found, own.best, said.rows_in(piece.path, piece.group))
        columns = names, pair_keys(names, ids), evidence, told, found.starts
        return DrawnMentions(row, np.arange(len(row)), columns), looked

    drawn = draw_mentions(labels, read, most, "read labels")
    name, pair, evidence, told, start = drawn.columns
    file, row = _places(labels, drawn.image)
    whole = sum(selection.card["histogram"]["observed"])
    weight = max(whole / max(len(row), 1), 1.0)
    threshold = selection.card["threshold"]
    return Pool(file, row, start, name, pair, evidence, told, threshold, weight)


def _check(selection: Selection) -> None:
    card = selection.card
    if card["settings"]["order"] != "joint" or card["histogram"] is None:
        raise InputError(
            f"{str(selection.folder)!r} has no scores of text and image together to ask about; "
            "review a selection in the order joint of labels made with an encoder."
        )


def _said(
    found: ScoredCandidates, best: np.ndarray, rows: dict[int, dict[str, NameAnswer]]
) -> np.ndarray:
    """Returns what people say of the chosen candidate of each mention."""
    assert found.ids is not None
    assert found.surfaces is not None
    said = np.zeros(len(found.begins), np.int8)
    first_rows = found.row[found.begins]
    for row, answers in rows.items():
        for mention in range(*np.searchsorted(first_rows, [row, row + 1])):
            answer = answers.get(canonical(found.surfaces[mention].as_py()))
            if answer is not None:
                chosen = found.ids[int(best[mention])].as_py()
                wrong = answer.not_shown or answer.entity is not None or chosen in answer.wrong
                said[mention] = 1 if answer.entity == chosen else -1 if wrong else 0
    return said


def _places(labels: LabelBlocks, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the labels file and the row of it for images counted over all files."""
    pieces = labels.pieces
    ends = np.cumsum([piece.num_rows for piece in pieces])
    files = np.array([piece.file for piece in pieces])
    file = files[np.searchsorted(ends, images, "right")]
    begins = np.cumsum(np.bincount(files, [piece.num_rows for piece in pieces])).astype(np.int64)
    begins = np.append(0, begins)[:-1]
    return file, images - begins[file]
