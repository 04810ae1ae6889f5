"""The verb `train`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from openmofi.cli.app import Json, Out, app
from openmofi.cli.output import print_json, quoted, say_next


@app.command
def train(
    recipe: Path,
    /,
    *,
    data: Path,
    out: Annotated[Path, Out],
    labels: Path | None = None,
    texts: Path | None = None,
    kb: Path | None = None,
    resume: bool = False,
    set_: Annotated[list[str] | None, Parameter(name="--set")] = None,
    as_json: Annotated[bool, Json] = False,
) -> None:
    """Train a model by a recipe.

    Example: openmofi train multitask --data i2e/select/default --out run

    From a pretrained image encoder and your own labels: openmofi train finetune_images
    --data photos.csv --labels labels.csv --out run --set model.init=facebook/dinov2-small

    With several GPUs: torchrun --nproc-per-node 8 -m openmofi train ... with the same arguments.

    Args:
        recipe: Name of a recipe that comes with the package, or a YAML file with the settings that
            differ from the defaults.
        data: Output of `openmofi select`, or pairs; without --labels for a recipe that only uses
            captions.
        out: Directory to write.
        labels: CSV or Parquet with the id or path of an image and its label, where --data is pairs.
        texts: CSV with id, name and description of the labels' entities.
        kb: Knowledge base with the same.
        resume: Continue from the newest checkpoint in --out.
        set_: Override a setting, as in --set optim.learning_rate=1e-3; repeatable.
        as_json: Print the summary as JSON.
    """
    from openmofi.config import parse_assignments
    from openmofi.train import train as run_train

    changes = parse_assignments(set_ or [])
    given = {"labels": labels, "texts": texts, "kb": kb}
    summary = run_train(recipe, data=data, out=out, **given, resume=resume, changes=changes)
    if int(os.environ.get("RANK", "0")):  # one of torchrun's processes speaks for all
        return
    if as_json:
        print_json(summary)
        return
    if not summary.finished:
        print(f"stopped after step {summary.steps}; repeat the command with --resume to continue")
        return
    print(
        f"wrote {out}/model ({summary.steps:,} steps on {summary.images:,} images"
        f"{f' of {summary.classes:,} entities' if summary.classes else ''}, "
        f"loss {summary.loss:.3f}, {summary.seconds:,.0f} s)"
    )
    if summary.choice is not None and summary.choice.share == 0:
        print(
            "model/ keeps the weights that training began with, since nothing between them and the "
            "last ones does better on held-out images; hold out more of them, or lower "
            "optim.learning_rate"
        )
    elif summary.choice is not None:
        print(
            f"the weights lie {summary.choice.share:.0%} of the way from the first to the last, "
            "where held-out images are retrieved best"
        )
    for name, score in summary.scores.items():
        print(f"{name.replace('_', ' ')}: {score:.3f}")
    if summary.unreadable:
        print(f"{summary.unreadable} times an image could not be read and another replaced it")
    if summary.skipped:
        print(f"{summary.skipped} steps were skipped, since their gradient was not finite")
    say_next(f"openmofi evaluate {quoted(out / 'model')} --data NAME=PATH")
