"""The verb `export`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from openmofi.cli.app import Json, Out, app
from openmofi.cli.output import print_json, quoted, say_next, say_wrote

if TYPE_CHECKING:
    pass

_THEN = {
    "webdataset": "webdataset.WebDataset({first!r})",
    "huggingface": "datasets.load_dataset({folder!r})",
    "datacomp": "resharder.py --subset-file {uids}",
}


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
    """Write a selection for other tools, with Croissant metadata; images keep their bytes.

    Example: openmofi export i2e/select/default --out flags --format huggingface

    Args:
        selection: Output of `openmofi select`: I2E/select/NAME.
        out: Folder to write; it appears whole and replaces an older export.
        format: webdataset: tars of .jpg, .json and .txt; huggingface: a folder for
            datasets.load_dataset; datacomp: the .npy of uids that defines a subset of DataComp's
            pool.
        shard_size: Images per file.
        license: Licence of the dataset, for its card.
        url: URL of the dataset; the default is that of the folder.
        as_json: Print the counts as JSON.
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
