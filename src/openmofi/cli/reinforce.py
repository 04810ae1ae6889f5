"""The verb `reinforce`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from openmofi.cli.app import Flags, Json, Out, app
from openmofi.cli.job_end import end_job, say_unfinished
from openmofi.cli.output import print_json, quoted, say_next
from openmofi.config import ReinforceSettings

if TYPE_CHECKING:
    from openmofi.train.reinforce import ReinforceSummary


@app.command
def reinforce(
    teacher: str,
    /,
    *,
    data: Path,
    recipe: Path,
    out: Annotated[Path, Out],
    settings: Annotated[ReinforceSettings, Flags] = ReinforceSettings(),
    set_: Annotated[list[str] | None, Parameter(name="--set")] = None,
    as_json: Annotated[bool, Json] = False,
) -> None:
    """Store a teacher's vectors of a dataset, for students to learn from.

    Example: openmofi reinforce MODEL --data i2e/select/default --recipe recipe.yaml --out teacher
    Example: openmofi reinforce DataCompDR-12M/ --data shards/ --recipe clip --out teacher

    Repeating the command continues an interrupted job. Exits with 1 if shards failed, or with 3 if
    images were missing; --retry failed,partial reads these again.

    Args:
        teacher: Hub id or directory of a dual encoder, or the tars of DataCompDR, whose stored
            vectors are brought to the images that you have of it.
        data: The data that the student will be trained on.
        recipe: The student's recipe; its seed, evaluation.holdout and augment must not change.
        out: Directory to write.
        settings: One option per field.
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
        changes=parse_assignments(set_ or []),
        settings=settings,
    )
    if as_json:
        print_json(summary)
    else:
        _say(summary, recipe=recipe, data=data, changes=set_ or [])
    end_job(out, summary.shards)


def _say(summary: ReinforceSummary, *, recipe: Path, data: Path, changes: list[str]) -> None:
    """Prints what was stored, what is left to do, and the command that trains a student."""
    lost = ", ".join(f"{reason} {count:,}" for reason, count in summary.unreadable.items())
    what = "left out" if summary.imported else "unreadable"
    print(
        f"wrote {summary.out} ({summary.images:,} images x {summary.augmentations} augmentations, "
        f"{summary.texts:,} texts{f'; {what}: {lost}' if lost else ''})"
    )
    say_unfinished(summary.out, summary.shards)
    if summary.shards.left or summary.shards.failed:
        return
    changes = [*changes, f"loss.teachers=[{summary.out}]"]
    if summary.imported:
        changes += [f"loss.synthetic={summary.out}", "loss.text=[caption,synthetic]"]
        changes += ["augment.crop=1", "augment.colour=0"]
    again = " ".join(f"--set {shlex.quote(change)}" for change in changes)
    say_next(f"openmofi train {quoted(recipe)} --data {quoted(data)} --out run {again}")
