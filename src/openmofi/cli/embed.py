"""The verb `embed`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from openmofi.cli.app import Json, Out, app
from openmofi.cli.output import print_json, quoted, say_next, say_wrote


@app.command
def embed(
    model: str,
    path: Path,
    /,
    *,
    out: Annotated[Path, Out],
    device: str = "auto",
    as_json: Annotated[bool, Json] = False,
) -> None:
    """Embed images into a Parquet file of unit vectors.

    Example: openmofi embed run/model photos/ --out photos.parquet

    Args:
        model: Hub id or directory of a dual encoder.
        path: Shards, a folder of images, a listing, or the output of `openmofi select`.
        out: Parquet file to write.
        device: auto, cpu, cuda or cuda:N.
        as_json: Print the counts as JSON.
    """
    from openmofi.embed import embed as run_embed

    summary = run_embed(model, path, out=out, device=device)
    if as_json:
        print_json(summary)
        return
    say_wrote(out, summary.rows, summary.refused, "vectors")
    say_next(f"openmofi index {quoted(out)} --out index")
