"""The verb `embed`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from openmofi.cli.app import Flags, Json, Out, app
from openmofi.cli.job_end import end_job, say_unfinished
from openmofi.cli.output import print_json, quoted, say_next, say_wrote
from openmofi.config import EmbedSettings


@app.command
def embed(
    model: str,
    source: str,
    /,
    *,
    out: Annotated[Path, Out],
    settings: Annotated[EmbedSettings, Flags] = EmbedSettings(),
    as_json: Annotated[bool, Json] = False,
) -> None:
    """Embed images into unit vectors: a folder of Parquet files, shard by shard, or one file.

    Example: openmofi embed run/model photos/ --out photos.parquet

    Repeating the command continues an interrupted job. Exits with 1 if shards failed, or with 3 if
    shards ended early; what could be read is embedded.

    Args:
        model: Hub id or directory of an encoder of images.
        source: Shards, a folder of images, a listing, a URL of one of them, or the output of
            `openmofi select`.
        out: Folder to write, or a name in .parquet for a single file; other verbs read both.
        settings: One option per field.
        as_json: Print the counts as JSON.
    """
    from openmofi.embed import embed as run_embed

    summary = run_embed(model, source, out=out, settings=settings)
    if as_json:
        print_json(summary)
    else:
        say_wrote(out, summary.rows, summary.refused, "vectors")
        say_unfinished(summary.job, summary.shards)
        if summary.rows:
            say_next(f"openmofi index {quoted(out)} --out index")
    end_job(summary.job, summary.shards)
