"""The verb `caption`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from openmofi.cli.app import Flags, Json, Out, app
from openmofi.cli.job_end import end_job, say_unfinished
from openmofi.cli.output import print_json, quoted, say_next, say_wrote
from openmofi.config import CaptionSettings


@app.command
def caption(
    model: str,
    source: str,
    /,
    *,
    out: Annotated[Path, Out],
    settings: Annotated[CaptionSettings, Flags] = CaptionSettings(),
    as_json: Annotated[bool, Json] = False,
) -> None:
    """Write captions of images with an image-to-text model, to train on beside their own.

    Example: openmofi caption Salesforce/blip-image-captioning-base photos/ --out captions

    Repeating the command continues an interrupted job. Exits with 1 if shards failed, or with 3 if
    shards ended early; what could be read has captions.

    Args:
        model: Hub id or directory of an image-to-text model that needs no instruction.
        source: Shards, a folder of images, a listing, a URL of one of them, or the output of
            `openmofi select`.
        out: Folder to write.
        settings: One option per field.
        as_json: Print the counts as JSON.
    """
    from openmofi.embed.places import is_selection
    from openmofi.train.caption import caption as run_caption

    summary = run_caption(model, source, out=out, settings=settings)
    if as_json:
        print_json(summary)
    else:
        say_wrote(out, summary.captions, summary.refused, f"captions of {summary.images:,} images")
        say_unfinished(out, summary.shards)
        if not (summary.shards.left or summary.shards.failed):
            changes = "--set 'loss.text=[name, synthetic]'"
            if not is_selection(Path(source)):  # which alone has entities
                changes = "--set loss.supervised=0 --set 'loss.text=[caption, synthetic]'"
            say_next(
                f"openmofi train multitask --data {quoted(source)} --out run "
                f"--set loss.synthetic={quoted(out)} {changes}"
            )
    end_job(out, summary.shards)
