"""The verb `compile`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from openmofi.cli.app import Flags, Json, Out, app
from openmofi.cli.output import print_json, quoted, say_next
from openmofi.config import CompileSettings
from openmofi.errors import SettingsError

if TYPE_CHECKING:
    from openmofi.compile import CompileSummary
    from openmofi.web import SiteSummary


@app.command(name="compile")
def compile_(
    model: str,
    /,
    *,
    out: Annotated[Path, Out],
    to: Literal["onnx", "web"] = "onnx",
    images: Path | None = None,
    settings: Annotated[CompileSettings, Flags] = CompileSettings(),
    kb: Path | None = None,
    index: Path | None = None,
    k: int | None = None,
    error_rate: float | None = None,
    unknown: float | None = None,
    runtime: Path | None = None,
    as_json: Annotated[bool, Json] = False,
) -> None:
    """Write an encoder in a form that computes faster, or as a page that tags images by itself.

    Example: openmofi compile run/model --out small --int8 --images photos/

    Args:
        model: Hub id or directory of an encoder; for web also what this verb wrote.
        out: Directory to write: a model for any verb, or the page's folder.
        to: Form: onnx, which onnxruntime computes; or web, static files for a browser.
        images: Images like those that will come: shards, a folder, a listing, or the output of
            `openmofi select`. --int8 needs them.
        settings: One option per field.
        kb: With web: knowledge base with the entities' names.
        index: With web, for a model without class rows: the index whose entities are named, instead
            of all of the knowledge base.
        k: With web: entities per image; 5 by default.
        error_rate: With web: share of the answers that may be wrong; for less certain images the
            page abstains. Needs `openmofi tag calibrate` of the compiled model.
        unknown: With web: your estimate of the share of images without an entity that the model
            knows; 0 by default.
        runtime: With web: the npm package onnxruntime-web, a .tgz file or unpacked; the default is
            to fetch it with npm.
        as_json: Print the checks as JSON.
    """
    web: dict[str, Any] = {"kb": kb, "index": index, "k": k, "error_rate": error_rate}
    web |= {"unknown": unknown, "runtime": runtime}
    web = {name: value for name, value in web.items() if value is not None}
    if to == "web":
        from openmofi.web import write_site

        if kb is None:
            raise SettingsError("--to web needs --kb: the knowledge base with the entities' names.")
        site = write_site(model, out=out, images=images, settings=settings, **web)
        print_json(site) if as_json else _say_site(site)
        return
    if web:
        flag = f"--{next(iter(web)).replace('_', '-')}"
        raise SettingsError(f"{flag} goes with --to web; leave it out, or add that.")
    from openmofi.compile import compile_model

    summary = compile_model(model, out=out, settings=settings, images=images)
    print_json(summary) if as_json else _say_model(summary, int8=settings.int8)


def _say_model(summary: CompileSummary, *, int8: bool) -> None:
    sizes = ", ".join(f"{name} {size:g} MB" for name, size in summary.megabytes.items())
    print(f"wrote {summary.out} ({sizes})")
    for name, value in summary.largest_difference.items():
        print(f"{name}: at most {value:.1e} from the original's vectors, in 32 bits")
    if summary.least_cosine is not None:
        print(f"8 bits: cosine with the original's vectors at least {summary.least_cosine:.4f}")
    if int8 and "texts" in summary.largest_difference and "captions" not in summary.found:
        print("texts stay in 32 bits: without captions, 8 bits could not be checked")
    for task, (before, after) in summary.found.items():
        print(f"{task} find their image: mAP {before:.2f} before, {after:.2f} compiled")
    rates = summary.images_per_cpu_second
    print(
        f"images per CPU-second: {rates['fp32']:,g} before, {rates['auto']:,g} with --precision "
        f"auto, {rates['compiled']:,g} compiled"
    )
    say_next(f"openmofi embed {quoted(summary.out)} photos/ --out photos.parquet")


def _say_site(summary: SiteSummary) -> None:
    sizes = ", ".join(f"{name} {size:g} MB" for name, size in summary.megabytes.items())
    print(f"wrote {summary.out}: names {summary.entities:,} entities ({sizes})")
    if summary.threshold is not None:
        print(f"answers from a score of {summary.threshold:.3f}")
    say_next(f"python -m http.server --bind 127.0.0.1 --directory {quoted(summary.out)}")
