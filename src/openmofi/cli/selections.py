"""The verbs about selections: select, inspect, export."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from openmofi.cli.app import Flags, Json, Out, app
from openmofi.cli.output import print_json, quoted, say_next, say_wrote
from openmofi.config import SelectSettings

if TYPE_CHECKING:
    from openmofi.select.select import SelectSummary

_THEN = {
    "webdataset": "webdataset.WebDataset({first!r})",
    "huggingface": "datasets.load_dataset({folder!r})",
    "datacomp": "resharder.py --subset-file {uids}",
}


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
    _say_notes(summary, settings)
    say_next(f"openmofi inspect {quoted(i2e)} --name {quoted(name)}")


def _say_notes(summary: SelectSummary, settings: SelectSettings) -> None:
    """Says what the user might not expect."""
    if summary.missing_shards:
        print(f"note: {summary.missing_shards:,} shards of the input have no labels (yet)")
    if summary.unreadable_excluded:
        print(f"note: {summary.unreadable_excluded:,} pictures of --exclude cannot be read")
    if not summary.looked and settings.order != "caption-match":
        print(
            "note: nobody looked at the pictures, for the labels were made without an encoder; "
            "openmofi label --model does"
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
                "warning: no threshold reaches the false-label rate asked for; this is the best. "
                "Does the model know these pictures?"
            )


@app.command
def inspect(
    i2e: Path,
    /,
    *,
    name: str = "default",
    out: Annotated[Path | None, Out] = None,
    images: int = 60,
    as_json: Annotated[bool, Json] = False,
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
    as_json
        Print where the page is as JSON.
    """
    from openmofi.select.report import inspect as run_inspect

    page = run_inspect(i2e, name=name, out=out, images=images)
    if as_json:
        print_json({"page": page})
        return
    print(f"wrote {page}")
    say_next(f"openmofi train RECIPE --data {quoted(i2e / 'select' / name)} --out run")


@app.command
def export(
    selection: Path,
    /,
    *,
    out: Annotated[Path, Out],
    format: Literal["webdataset", "huggingface", "datacomp"] = "webdataset",
    shard_size: int = 10_000,
    license: str = "unknown",
    url: str | None = None,
    as_json: Annotated[bool, Json] = False,
) -> None:
    """Write a selection for other tools, with Croissant metadata; pictures keep their bytes.

    Example: openmofi export i2e/select/default --out flags --format huggingface

    Parameters
    ----------
    selection
        Output of `openmofi select`: I2E/select/NAME.
    out
        Folder to write; it appears whole, and takes the place of an older export.
    format
        webdataset: tars of .jpg, .json and .txt; huggingface: a folder for datasets.load_dataset;
        datacomp: the .npy of uids that names a subset of DataComp's pool.
    shard_size
        Images per file.
    license
        Licence of the dataset, as its card names it.
    url
        Where the dataset can be found; the default is the folder.
    as_json
        Print the counts as JSON.
    """
    from openmofi.export import export as run_export

    summary = run_export(
        selection, out=out, format=format, shard_size=shard_size, license=license, url=url
    )
    if as_json:
        print_json(summary)
        return
    unit = "uids" if format == "datacomp" else "images"
    say_wrote(summary.out, summary.images, summary.unreadable, unit)
    uids = quoted(out / "uids.npy")
    say_next(_THEN[format].format(folder=str(out), first=str(out / "00000.tar"), uids=uids))
