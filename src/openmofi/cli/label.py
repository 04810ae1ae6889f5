"""The verb `label`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from openmofi.cli.app import Flags, Json, Out, app
from openmofi.cli.job_end import end_job, say_unfinished
from openmofi.cli.output import print_json, quoted, say_next, say_wrote
from openmofi.config import LabelSettings

if TYPE_CHECKING:
    from openmofi.shards import RunTotals


@app.command
def label(
    source: str,
    /,
    *,
    kb: Path,
    model: str | None = None,
    then: str | None = None,
    out: Annotated[Path, Out],
    onto: Path | None = None,
    settings: Annotated[LabelSettings, Flags] = LabelSettings(),
    as_json: Annotated[bool, Json] = False,
) -> None:
    """Score the candidate entities of every image-caption pair against its image.

    Example: openmofi label shards/ --kb kb --model openai/clip-vit-base-patch32 --out i2e

    Exits with 1 if shards failed, or with 3 if shards ended early; what could be read is labelled.

    Args:
        source: Folder of .tar or .parquet shards, a saved Hugging Face dataset, a folder of images
            with captions, a listing, or the URL of one of them, such as s3://bucket/shards.
        kb: Knowledge base directory.
        model: Any Hugging Face dual encoder: a hub id or a local directory. Without one, captions
            are linked and images opened, but not compared.
        then: A second, larger encoder. It looks only at the images where that may change a label.
        out: Directory to write; repeating the command continues an interrupted job.
        onto: Output of an earlier job that differs in nothing but the knowledge base. Images are
            looked at again only where their captions offer other candidates; the labels are the
            same.
        settings: One option per field.
        as_json: Print the counts as JSON.
    """
    from openmofi.label import label as run_label
    from openmofi.label.second_look import read_second_look

    totals = run_label(source, kb=kb, model=model, out=out, settings=settings, onto=onto, then=then)
    learnt = read_second_look(out)[1] if then is not None else {}
    if as_json:
        print_json(totals if then is None else asdict(totals) | {"second_look": learnt})
    else:
        say_wrote(out, totals.rows - sum(totals.errors.values()), totals.errors, "pairs")
        if onto is not None:
            share = totals.looked / max(totals.rows, 1)
            print(f"looked at {totals.looked:,} images ({share:.1%} of the pairs)")
        if then is not None:
            _say_second_look(totals, learnt)
        say_unfinished(out, totals)
        if totals.done + totals.partial:
            say_next(f"openmofi select {quoted(out)}")
    end_job(out, totals)


def _say_second_look(totals: RunTotals, learnt: dict[str, float]) -> None:
    """Says how many images each encoder looked at."""
    unopened = totals.rows - totals.looked
    share = totals.looked_twice / max(totals.looked, 1)
    print(
        f"{unopened:,} pairs were settled without their image; of {totals.looked:,} images the "
        f"second encoder looked at {totals.looked_twice:,} ({share:.1%}), and at "
        f"{learnt['images']:,} to learn where it has to; of 100 labels it would change "
        f"{100 * learnt['changes']:.1f}, "
        f"{100 * learnt['changes_left']:.1f} of them where it did not look"
    )
