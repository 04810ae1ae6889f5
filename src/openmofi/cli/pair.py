"""The verb `pair`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from openmofi.cli.app import Json, Out, app
from openmofi.cli.output import print_json, quoted, say_next, say_wrote


@app.command
def pair(
    image_encoder: str,
    text_encoder: str,
    /,
    *,
    data: Path,
    out: Annotated[Path, Out],
    embeddings: Path | None = None,
    device: str = "auto",
    set_: Annotated[list[str] | None, Parameter(name="--set")] = None,
    as_json: Annotated[bool, Json] = False,
) -> None:
    """Make one dual encoder of an image encoder and a text encoder, in minutes on a CPU.

    Example: openmofi pair facebook/dinov2-base intfloat/e5-small-v2 --data photos --out run

    Args:
        image_encoder: Hub id or directory of an image encoder (DINOv2, ViT, ConvNeXt, SigLIP, ...),
            or an .onnx file.
        text_encoder: Hub id or directory of a text encoder.
        data: Images with captions: shards, a folder, a listing, or the output of `openmofi select`.
        out: Directory to write.
        embeddings: Output of `openmofi embed` with the image encoder on the data, whose vectors
            are taken instead of encoding the images here.
        device: auto, cpu, cuda or cuda:N.
        set_: Override a setting, as in --set dim=256; repeatable.
        as_json: Print the summary as JSON.
    """
    from openmofi.config import parse_assignments
    from openmofi.train.pair import pair as run_pair

    changes = parse_assignments(set_ or [])
    summary = run_pair(
        image_encoder,
        text_encoder,
        data=data,
        out=out,
        changes=changes,
        device=device,
        embeddings=embeddings,
    )
    if as_json:
        print_json(summary)
        return
    for name, value in summary.after.items():
        print(
            f"held-out {name}: {summary.closed_form[name]:.3f} closed form, {value:.3f} chosen, "
            f"{summary.learnt[name]:.3f} among pairs learnt from"
        )
    say_wrote(out, summary.images, summary.refused, "images")
    say_next(f"openmofi embed {quoted(out / 'model')} {quoted(data)} --out photos.parquet")
