"""The verb `evaluate oven`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from openmofi.cli.app import Json, evaluate_app
from openmofi.cli.output import print_json, print_table

if TYPE_CHECKING:
    pass


@evaluate_app.command(name="oven")
def evaluate_oven(
    predictions: Path,
    /,
    *,
    truth: Path,
    as_json: Annotated[bool, Json] = False,
) -> None:
    """Score answers to OVEN's questions: top-1 on seen and unseen entities, and their mean.

    Example: openmofi evaluate oven answers.jsonl --truth oven_entity_val.jsonl

    Args:
        predictions: .jsonl with data_id and pred_entity_id, the Wikidata id of the answer, or a
            folder of such files.
        truth: OVEN's .jsonl with data_id, entity_id and data_split, or a folder of such files.
        as_json: Print JSON.
    """
    from openmofi.evaluate.oven import score_oven

    score = score_oven(predictions, truth)
    if as_json:
        print_json(score)
        return
    rows = [
        (
            name,
            split.num_seen,
            _shown(split.seen),
            split.num_unseen,
            _shown(split.unseen),
            _shown(split.score),
        )
        for name, split in (("entity", score.entity), ("query", score.query))
        if split is not None
    ]
    print_table(("split", "seen", "top-1", "unseen", "top-1", "harmonic mean"), rows)
    print(f"overall {_shown(score.overall)}")
    print(
        f"{score.questions:,} questions, {score.missing:,} without an answer and {score.not_ids:,} "
        "answered without a Wikidata id, all of which count as wrong"
    )


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
