"""The verbs about labels: label, select, inspect."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from openmofi.cli.app import Flags, Json, app
from openmofi.cli.output import print_json, say_next, say_wrote
from openmofi.config import LabelSettings, SelectSettings
from openmofi.errors import OpenMOFIError

if TYPE_CHECKING:
    from openmofi.shards import RunTotals

_SHOWN = 10


@app.command
def label(
    source: Path,
    /,
    *,
    kb: Path,
    model: str,
    out: Path,
    settings: Annotated[LabelSettings, Flags] = LabelSettings(),
    as_json: Annotated[bool, Json] = False,
) -> None:
    """Score the candidate entities of every image-caption pair against its picture.

    Example: openmofi label shards/ --kb kb --model openai/clip-vit-base-patch32 --out i2e

    Parameters
    ----------
    source
        Folder of .tar or .parquet shards, folder of images with captions, or a listing.
    kb
        Knowledge base directory.
    model
        Any Hugging Face dual encoder: a hub id or a local directory.
    out
        Directory to write; the same command again continues.
    as_json
        Print the counts as JSON.
    """
    from openmofi.label import label as run_label

    totals = run_label(source, kb=kb, model=model, out=out, settings=settings)
    if as_json:
        print_json(totals)
    else:
        _say_labelled(out, totals)
    if totals.failed:
        raise OpenMOFIError(
            f"{totals.failed} of {totals.shards} shards failed; mend the cause, and the same "
            f"command tries them again ({out}/_done has the reasons)."
        )


@app.command
def select(
    i2e: Path,
    /,
    *,
    name: str = "default",
    settings: Annotated[SelectSettings, Flags] = SelectSettings(),
    as_json: Annotated[bool, Json] = False,
) -> None:
    """Decide which labels and images to keep; takes seconds and never touches the labels.

    Example: openmofi select i2e --name strict --false-label-rate 0.01 --min-images 10

    Parameters
    ----------
    i2e
        Output of `openmofi label`.
    name
        Name of this selection.
    as_json
        Print the counts as JSON.
    """
    from openmofi.select import select as run_select

    summary = run_select(i2e, name=name, settings=settings)
    if as_json:
        print_json(summary)
        return
    say_wrote(summary.out, summary.kept, summary.refused, "images")
    print(f"{summary.labels:,} labels of {summary.classes:,} entities")
    if summary.missing_shards:
        print(f"note: {summary.missing_shards:,} shards of the input have no labels (yet)")
    if summary.calibration:
        print(
            f"threshold {summary.threshold:.2f} on clip_z, estimated false-label rate "
            f"{summary.calibration.estimated_false_label_rate:.3f}"
        )
        if not summary.calibration.reached:
            print(
                "warning: no threshold reaches the false-label rate asked for; this is the best. "
                "Does the model know these pictures?"
            )
    say_next(f"openmofi inspect {i2e} --name {name}")


@app.command
def inspect(
    i2e: Path, /, *, name: str = "default", out: Path | None = None, images: int = 60
) -> None:
    """Write one HTML page that shows what was kept, what was refused, and why.

    Example: openmofi inspect i2e --name strict --out look.html

    Parameters
    ----------
    i2e
        Output of `openmofi label`.
    name
        Name of the selection.
    out
        HTML file to write; the default lies beside the selection.
    images
        Pictures per section.
    """
    from openmofi.select.report import inspect as run_inspect

    page = run_inspect(i2e, name=name, out=out, images=images)
    print(f"wrote {page}")
    say_next(f"openmofi train RECIPE --data {i2e}/select/{name} --out run")


def _say_labelled(out: Path, totals: RunTotals) -> None:
    from openmofi.shards import commits

    say_wrote(out, totals.rows - sum(totals.errors.values()), totals.errors, "pairs")
    troubled = [commit for commit in commits(out) if commit.reason]
    for commit in troubled[:_SHOWN]:
        fate = "failed" if commit.status == "failed" else "ended early"
        print(f"shard {commit.shard} {fate}: {commit.reason}")
    if len(troubled) > _SHOWN:
        print(f"and {len(troubled) - _SHOWN:,} more shards; see {out}/_done")
    finished = totals.done + totals.partial + totals.failed
    if finished < totals.shards:
        print(f"{totals.shards - finished:,} of {totals.shards:,} shards are left to other ranks")
    if totals.done + totals.partial:
        say_next(f"openmofi select {out}")
