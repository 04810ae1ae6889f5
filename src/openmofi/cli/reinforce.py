"""The verb `reinforce`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from openmofi.cli.app import Json, Out, app
from openmofi.cli.output import print_json, quoted, say_next


@app.command
def reinforce(
    teacher: str,
    /,
    *,
    data: Path,
    recipe: Path,
    out: Annotated[Path, Out],
    augmentations: int = 5,
    device: str = "auto",
    set_: Annotated[list[str] | None, Parameter(name="--set")] = None,
    as_json: Annotated[bool, Json] = False,
) -> None:
    """Store a teacher's vectors of a dataset, for students to learn from.

    Example: openmofi reinforce MODEL --data i2e/select/default --recipe recipe.yaml --out teacher

    Repeating the command continues an interrupted run.

    Args:
        teacher: Hub id or directory of a dual encoder.
        data: The data that the student will be trained on.
        recipe: The student's recipe; its seed, evaluation.holdout and augment must not change.
        out: Directory to write.
        augmentations: Random crops and colours of each image that the teacher sees.
        device: auto, cpu, cuda or cuda:N.
        set_: Override a setting of the recipe, as in --set augment.crop=0.5; repeatable.
        as_json: Print the summary as JSON.
    """
    from openmofi.config import parse_assignments
    from openmofi.train.reinforce import reinforce as run_reinforce

    summary = run_reinforce(
        teacher,
        data=data,
        recipe=recipe,
        out=out,
        augmentations=augmentations,
        changes=parse_assignments(set_ or []),
        device=device,
    )
    if as_json:
        print_json(summary)
        return
    lost = ", ".join(f"{reason} {count:,}" for reason, count in summary.unreadable.items())
    print(
        f"wrote {out} ({summary.images:,} images x {summary.augmentations} augmentations, "
        f"{summary.texts:,} texts, {summary.seconds:,.0f} s"
        f"{f'; unreadable: {lost}' if lost else ''})"
    )
    changes = [*(set_ or []), f"loss.teachers=[{out}]"]
    again = " ".join(f"--set {shlex.quote(change)}" for change in changes)
    say_next(f"openmofi train {quoted(recipe)} --data {quoted(data)} --out run {again}")
