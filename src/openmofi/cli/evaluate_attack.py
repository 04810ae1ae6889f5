"""The verb `evaluate attack`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from openmofi.cli.app import Json, Out, evaluate_app
from openmofi.cli.output import print_json, quoted, say_next

if TYPE_CHECKING:
    pass


@evaluate_app.command(name="attack")
def evaluate_attack(
    model: str,
    /,
    *,
    data: Path,
    out: Annotated[Path, Out],
    kb: Path | None = None,
    class_names: str | None = None,
    seed: int | None = None,
    device: str = "auto",
    as_json: Annotated[bool, Json] = False,
) -> None:
    """Write the name of another class on every image, as in ImageNet-Atr, to test other models.

    Example: openmofi evaluate attack run/model --data photos/test --out attacked

    Args:
        model: Hub id or directory of the dual encoder whose mistakes decide which name is written
            on an image.
        data: Labelled images, in any layout that `evaluate` knows.
        out: Folder for images/ and attacks.csv; `evaluate --data NAME=FOLDER` reads it.
        kb: Knowledge base with the labels' names and descriptions.
        class_names: See `evaluate`.
        seed: Draw the names uniformly with this seed instead of using the model's mistakes.
        device: auto, cpu, cuda or cuda:N.
        as_json: Print the counts as JSON.
    """
    from openmofi.evaluate.attack import attack

    summary = attack(
        model, data=data, out=out, kb=kb, class_names=class_names, seed=seed, device=device
    )
    if as_json:
        print_json(summary)
        return
    lost = sum(summary.refused.values())
    dropped = f"; {lost:,} cannot be read" if lost else ""
    print(f"wrote {out} ({summary.images:,} images of {summary.classes:,} classes{dropped})")
    say_next(f"openmofi evaluate {quoted(model)} --data attacked={quoted(out)}")
