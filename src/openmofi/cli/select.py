"""The verb `select`."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from openmofi.cli.app import Flags, Json, app
from openmofi.cli.output import print_json, print_table, quoted, say_next, say_wrote
from openmofi.config import SelectSettings

if TYPE_CHECKING:
    from openmofi.select.select import SelectSummary

_SHOWN = 20


@app.command
def select(
    i2e: Path,
    /,
    *,
    name: str = "default",
    settings: Annotated[SelectSettings, Flags] = SelectSettings(),
    as_json: Annotated[bool, Json] = False,
) -> None:
    """Decide which labels and images to keep; quick, and never changes the labels.

    Example: openmofi select i2e --name strict --false-label-rate 0.01 --min-images 10

    Args:
        i2e: Output of `openmofi label`.
        name: Name of the selection.
        settings: One option per field.
        as_json: Print the counts as JSON.
    """
    from openmofi.select import select as run_select

    summary = run_select(i2e, name=name, settings=settings)
    if as_json:
        print_json(summary)
        return
    say_wrote(summary.out, summary.kept, summary.refused, "images")
    print(f"{summary.labels:,} labels of {summary.classes:,} entities")
    if settings.priors == "images":
        _say_priors(json.loads((summary.out / "card.json").read_text())["priors"])
    _say_notes(summary, settings)
    say_next(f"openmofi inspect {quoted(i2e)} --name {quoted(name)}")


def _say_priors(priors: dict[str, Any]) -> None:
    if priors["off"]:
        print(f"note: the images taught nothing about names: {priors['off']}")
        return
    moved = priors["moved"]
    print(f"{len(moved):,} names mean something else here than the labels' prior says")
    rows = [
        (
            name["name"],
            f"{name['mentions']:,}",
            *(f"{name[side]['id']} ({name[side]['prior']:.2f})" for side in ("before", "after")),
        )
        for name in moved[:_SHOWN]
    ]
    print_table(("name", "mentions", "before", "now"), rows)


def _say_notes(summary: SelectSummary, settings: SelectSettings) -> None:
    """Prints what the user might not expect."""
    if summary.missing_shards:
        print(f"note: {summary.missing_shards:,} shards of the input have no labels (yet)")
    if summary.unreadable_excluded:
        print(f"note: {summary.unreadable_excluded:,} images of --exclude cannot be read")
    if not summary.looked and settings.order != "caption-match":
        print(
            "note: the images were not looked at, since the labels were made without an encoder; "
            "use openmofi label --model"
        )
    if summary.calibration:
        assert summary.threshold is not None
        name, threshold = "clip_z", summary.threshold
        if summary.weights:
            name, threshold = "the score", 1 / (1 + math.exp(-threshold))
        print(
            f"threshold {threshold:.2f} on {name}, estimated false-label rate "
            f"{summary.calibration.estimated_false_label_rate:.3f} (nine times in ten between "
            f"{summary.calibration.low_rate:.3f} and {summary.calibration.high_rate:.3f})"
        )
        if summary.calibration.doubt:
            print(f"warning: {summary.calibration.doubt}")
        if not summary.calibration.reached:
            print(
                "warning: no threshold reaches the requested false-label rate; this is the best "
                "one. Does the model know these images?"
            )
