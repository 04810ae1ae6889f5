"""Answers about some labels -> weights, shifts and what the threshold takes account of.

How the answers teach is in `answer_model.py`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from openmofi.corrections.standing import NameAnswer
from openmofi.kb.text import canonical
from openmofi.label.joint_weights import Weighing
from openmofi.label.score import ScoreWeights
from openmofi.select.answer_model import AnsweredMentions, AnswerModel
from openmofi.select.blocks import Block, LabelBlocks
from openmofi.select.choose import ScoredCandidates, TaughtPriors, read_mentions
from openmofi.select.corrections import Corrections
from openmofi.select.shifts import Shifts


@dataclass(frozen=True)
class TaughtByAnswers:
    """What answers taught."""

    weighing: Weighing
    common: float
    """a: log odds by which all labels are surer than their scores."""
    common_error: float
    """Its standard deviation, from how much less probable other values are with all else free."""
    shifts: Shifts
    num_answered: int
    """Mentions that taught it."""

    @property
    def certain_shift(self) -> float:
        """What the threshold takes account of."""
        return min(self.common, max(self.common - self.common_error, 0.0))


def find_answered(
    labels: LabelBlocks, corrections: Corrections, priors: TaughtPriors | None
) -> AnsweredMentions:
    """Returns the mentions of all labels that answers are about.

    Args:
        labels: all labels.
        corrections: what people said.
        priors: what images taught about names.
    """

    def answered(block: Block) -> list[AnsweredMentions]:
        parts = []
        for piece in block.pieces:
            rows = corrections.rows_in(piece.path, piece.group)
            if rows:
                found = read_mentions(
                    piece.path, "joint", priors, with_names=True, group=piece.group
                )
                parts += _answered(found, rows)
        return parts

    parts = [part for of_block in labels.run(answered, "find answers") for part in of_block]
    return _joined(parts)


def learn_corrections(answered: AnsweredMentions, weighing: Weighing) -> TaughtByAnswers:
    """Returns what the answers teach.

    Args:
        answered: the mentions that they are about.
        weighing: the weights without them.
    """
    if not len(answered.begins):
        return TaughtByAnswers(weighing, 0.0, 0.0, Shifts(), 0)
    model = AnswerModel(answered, weighing)
    fit = model.fit()
    own, a, names, pairs = model.parts(fit.x)
    learnt = ScoreWeights(float(np.exp(own[0])), float(np.exp(own[1])), float(own[2]))
    error = model.error_of_common(fit)
    shifts = Shifts.of_texts(names, pairs)
    weighing = replace(weighing, weights=learnt)
    return TaughtByAnswers(weighing, a, error, shifts, len(answered.begins))


def _answered(found: ScoredCandidates, rows: dict[int, dict[str, NameAnswer]]) -> list:
    """Returns the mentions of a file that answers are about, one by one."""
    assert found.ids is not None
    assert found.surfaces is not None
    parts = []
    ends = np.append(found.begins[1:], len(found.row))
    first_rows = found.row[found.begins]
    for row, answers in rows.items():
        for mention in range(*np.searchsorted(first_rows, [row, row + 1])):
            name = canonical(found.surfaces[mention].as_py())
            answer = answers.get(name)
            place = slice(found.begins[mention], ends[mention])
            if answer is None or np.isnan(found.clip_z[place]).any():
                continue
            ids = found.ids[place].to_pylist()
            kept, nil_kept = _left(answer, ids)
            parts.append(
                AnsweredMentions(
                    np.zeros(1, np.int64),
                    np.repeat(np.array([name], object), len(ids)),
                    np.array(ids, object),
                    found.log_text[place],
                    found.clip_z[place].astype(np.float64),
                    np.array(kept),
                    np.array([nil_kept]),
                )
            )
    return parts


def _left(answer: NameAnswer, ids: list[str]) -> tuple[list[bool], bool]:
    """Returns what an answer leaves: of the candidates, and whether nothing may be shown."""
    if answer.entity in ids:
        return [one == answer.entity for one in ids], False
    if answer.not_shown or answer.entity is not None:
        return [False] * len(ids), True
    return [one not in answer.wrong for one in ids], True


def _joined(parts: Iterable[AnsweredMentions]) -> AnsweredMentions:
    parts = [*parts]
    nothing = np.zeros(0)
    texts, masks = nothing.astype(object), nothing.astype(bool)
    empty = AnsweredMentions(nothing.astype(np.int64), texts, texts, nothing, nothing, masks, masks)
    columns = {
        name: np.concatenate([getattr(part, name) for part in (empty, *parts)])
        for name in vars(empty)
    }
    sizes = [len(part.name) for part in parts]
    columns["begins"] = np.cumsum([0, *sizes])[:-1].astype(np.int64)
    return AnsweredMentions(**columns)
