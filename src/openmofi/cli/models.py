"""The verbs about models: train, embed, evaluate."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from openmofi.cli.app import Json, app, evaluate_app
from openmofi.cli.output import print_json, print_table, say_next, say_wrote
from openmofi.errors import OpenMOFIError


@app.command
def train(
    recipe: Path,
    /,
    *,
    data: Path,
    out: Path,
    resume: bool = False,
    set_: Annotated[list[str] | None, Parameter(name="--set")] = None,
    as_json: Annotated[bool, Json] = False,
) -> None:
    """Train a model as a recipe says.

    Example: openmofi train recipes/multitask.yaml --data i2e/select/default --out run

    With several GPUs: torchrun --nproc-per-node 8 -m openmofi train ... with the same arguments.

    Parameters
    ----------
    recipe
        YAML file with what differs from the defaults.
    data
        Output of `openmofi select`, or raw pairs for a recipe that uses captions alone.
    out
        Directory to write.
    resume
        Go on from the newest checkpoint in --out.
    set_
        Override a setting, as in --set optim.learning_rate=1e-3; repeatable.
    as_json
        Print the summary as JSON.
    """
    from openmofi.config import parse_assignments
    from openmofi.train import train as run_train

    changes = parse_assignments(set_ or [])
    summary = run_train(recipe, data=data, out=out, resume=resume, changes=changes)
    if int(os.environ.get("RANK", "0")):  # one of torchrun's processes speaks for all
        return
    if as_json:
        print_json(summary)
        return
    if not summary.finished:
        print(f"stopped after step {summary.steps}; the same command with --resume goes on")
        return
    print(
        f"wrote {out}/model ({summary.steps:,} steps on {summary.images:,} images"
        f"{f' of {summary.classes:,} entities' if summary.classes else ''}, "
        f"loss {summary.loss:.3f}, {summary.seconds:,.0f} s)"
    )
    for name, score in summary.scores.items():
        print(f"{name.replace('_', ' ')}: {score:.3f}")
    if summary.unreadable:
        print(f"{summary.unreadable} times a picture could not be read and another stood in for it")
    if summary.skipped:
        print(f"{summary.skipped} steps were skipped, since their gradient was not finite")
    say_next(f"openmofi evaluate {out}/model --data NAME=PATH")


@app.command
def embed(
    model: str,
    path: Path,
    /,
    *,
    out: Path,
    device: str = "auto",
    as_json: Annotated[bool, Json] = False,
) -> None:
    """Embed pictures into a Parquet file of unit vectors.

    Example: openmofi embed run/model photos/ --out photos.parquet

    Parameters
    ----------
    model
        Hub id or directory of a dual encoder.
    path
        Shards, a folder of images, a listing, or the output of `openmofi select`.
    out
        Parquet file to write.
    device
        auto, cpu, cuda or cuda:N.
    as_json
        Print the counts as JSON.
    """
    from openmofi.embed import embed as run_embed

    summary = run_embed(model, path, out=out, device=device)
    if as_json:
        print_json(summary)
        return
    say_wrote(out, summary.rows, summary.refused, "vectors")
    say_next(f"openmofi index {out} --out index")


@evaluate_app.default
def evaluate(
    model: str,
    /,
    *,
    data: list[str],
    kb: Path | None = None,
    out: Path | None = None,
    device: str = "auto",
    as_json: Annotated[bool, Json] = False,
) -> None:
    """Measure retrieval, kNN and zero-shot accuracy on labelled images.

    Example: openmofi evaluate run/model --data shop=photos/test.csv --kb kb --out scores

    `openmofi evaluate linking` measures entity linking; a folder of that name is ./linking.

    Parameters
    ----------
    model
        Hub id or directory of a dual encoder.
    data
        NAME=PATH; a folder of class folders, a .csv with the columns file and label, or a demo
        world. Repeatable.
    kb
        Knowledge base with the labels' names and descriptions.
    out
        Directory for scores.json.
    device
        auto, cpu, cuda or cuda:N.
    as_json
        Print JSON in the form of CLIP_benchmark's result files.
    """
    from openmofi.evaluate import evaluate as run_evaluate
    from openmofi.evaluate.evaluate import records

    scores = run_evaluate(model, data=_named_paths(data), out=out, kb=kb, device=device)
    if as_json:
        print_json(list(records(scores)))
        return
    names = list(dict.fromkeys(name for s in scores for name in s.metrics))
    rows = [
        (s.dataset, s.images, *(f"{s.metrics[n]:.3f}" if n in s.metrics else "-" for n in names))
        for s in scores
    ]
    print_table(("dataset", "images", *names), rows)
    unreadable = sum(s.unreadable for s in scores)
    if unreadable:
        print(f"{unreadable} pictures could not be read and were left out")
    if out is not None:
        print(f"wrote {out}/scores.json")
    say_next(f"openmofi embed {model} PICTURES --out embeddings.parquet")


def _named_paths(arguments: list[str]) -> dict[str, Path]:
    named = {}
    for argument in arguments:
        name, _, path = argument.partition("=")
        if not name or not path:
            raise OpenMOFIError(f"--data expects NAME=PATH, as in shop=photos; got {argument!r}.")
        if name in named:
            raise OpenMOFIError(f"--data names {name!r} twice; give each its own name.")
        named[name] = Path(path)
    return named
