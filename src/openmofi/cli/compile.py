"""The verb `compile`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from openmofi.cli.app import Flags, Json, Out, app
from openmofi.cli.output import print_json, quoted, say_next
from openmofi.config import CompileSettings


@app.command(name="compile")
def compile_(
    model: str,
    /,
    *,
    out: Annotated[Path, Out],
    to: Literal["onnx"] = "onnx",
    images: Path | None = None,
    settings: Annotated[CompileSettings, Flags] = CompileSettings(),
    as_json: Annotated[bool, Json] = False,
) -> None:
    """Write an encoder in a form that computes faster, and check it against the original.

    Example: openmofi compile run/model --out small --int8 --images photos/

    Args:
        model: Hub id or directory of an encoder.
        out: Model directory to write; any verb takes it as its model.
        to: Form: onnx, which onnxruntime computes.
        images: Images like those that will come: shards, a folder, a listing, or the output of
            `openmofi select`. --int8 needs them.
        settings: One option per field.
        as_json: Print the checks as JSON.
    """
    del to  # there is one
    from openmofi.compile import compile_model

    summary = compile_model(model, out=out, settings=settings, images=images)
    if as_json:
        print_json(summary)
        return
    sizes = ", ".join(f"{name} {size:g} MB" for name, size in summary.megabytes.items())
    print(f"wrote {out} ({sizes})")
    for name, value in summary.largest_difference.items():
        print(f"{name}: at most {value:.1e} from the original's vectors, in 32 bits")
    if summary.least_cosine is not None:
        print(f"8 bits: cosine with the original's vectors at least {summary.least_cosine:.4f}")
    if settings.int8 and "texts" in summary.largest_difference and "captions" not in summary.found:
        print("texts stay in 32 bits: without captions, 8 bits could not be checked")
    for task, (before, after) in summary.found.items():
        print(f"{task} find their image: mAP {before:.2f} before, {after:.2f} compiled")
    rates = summary.images_per_cpu_second
    print(
        f"images per CPU-second: {rates['fp32']:,g} before, {rates['auto']:,g} with --precision "
        f"auto, {rates['compiled']:,g} compiled"
    )
    say_next(f"openmofi embed {quoted(out)} photos/ --out photos.parquet")
