"""The verb `evaluate compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from openmofi.cli.app import Json, Out, evaluate_app
from openmofi.cli.output import print_json
from openmofi.errors import OpenMOFIError


@evaluate_app.command(name="compare")
def evaluate_compare(
    *results: str,
    out: Annotated[Path, Out],
    classes: list[str] | None = None,
    as_json: Annotated[bool, Json] = False,
) -> None:
    """Write one page that compares the outputs of several evaluations.

    Example: openmofi evaluate compare scores/before scores/after --out compare.html

    It has the scores side by side, mAP by the number of classes that each model learnt, and the
    nearest image of the same queries by each model.

    Args:
        results: Folders that `openmofi evaluate --out` wrote, or NAME=FOLDER; without NAME, a run
            is called by its folder.
        out: HTML file to write.
        classes: NAME=NUMBER: how many classes the model of a run learnt, if it was not made here or
            its own number is not what you want. Repeatable.
        as_json: Print the scores and the number of classes of each run.
    """
    from openmofi.evaluate.compare import compare
    from openmofi.evaluate.results import records

    named: dict[str, str] = {}
    for result in results:
        name, folder = "", result
        if "=" in result and not Path(result).is_dir():  # a folder may have an = in its name
            name, _, folder = result.partition("=")
        name = name or Path(folder).resolve().name
        if name in named:
            raise OpenMOFIError(f"Two runs are called {name!r}; give them names: NAME=FOLDER.")
        named[name] = folder
    numbers: dict[str, int] = {}
    for argument in classes or ():
        name, _, number = argument.rpartition("=")
        if not name or not number.isdecimal():
            raise OpenMOFIError(
                f"--classes expects NAME=NUMBER, as in before=1000; got {argument!r}."
            )
        numbers[name] = int(number)
    runs = compare(named, out=out, classes=numbers)
    if as_json:
        print_json(
            [
                {
                    "run": run.name,
                    "classes": run.classes,
                    "scores": list(records([*run.scores.values()])),
                }
                for run in runs
            ]
        )
        return
    print(f"wrote {out} ({len(runs)} runs)")
    unknown = [run.name for run in runs if run.classes is None]
    if unknown:
        print(
            f"not in the plot by classes, as it is not known how many they learnt: "
            f"{', '.join(unknown)}; say it with --classes NAME=NUMBER"
        )
