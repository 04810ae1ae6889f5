"""The verb `kb fit`."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from openmofi.cli.app import Json, Out, kb_app
from openmofi.cli.link import open_linker
from openmofi.cli.output import print_json, quoted, say_next

if TYPE_CHECKING:
    from openmofi.evaluate.linking_data import LinkingData
    from openmofi.link import Linker
    from openmofi.train.fusion import FusionSummary


@kb_app.command(name="fit")
def kb_fit(
    data: list[Path],
    /,
    *,
    out: Annotated[Path, Out],
    kb: Path = Path("kb"),
    context: str = "words",
    fusion: str | None = None,
    device: str = "auto",
    set_: Annotated[list[str] | None, Parameter(name="--set")] = None,
    as_json: Annotated[bool, Json] = False,
) -> None:
    """Fit the weights of the linker's score, or a reader of hard mentions, to annotated texts.

    Example: openmofi kb fit wikidata_mel_train.jsonl --kb kb --out weights.json

    Args:
        data: Files in the format of MELBench, ELEVANT or ZELDA, as for `evaluate linking`; all have
            the same weight. Only ELEVANT's annotate every mention and thus teach NIL. Or output
            folders of `openmofi label`: what the images tell of the captions' names.
        out: JSON file to write, which `openmofi link --weights` takes; with --fusion, a directory.
        kb: Knowledge base directory.
        context: What compares texts with the candidates' descriptions: words (those they share), or
            the directory or hub id of a text encoder. Link with the one that was fitted.
        fusion: Train a reader of hard mentions instead, which starts from this directory or hub id:
            of a text encoder, for a pointer, or of an encoder-decoder such as T5, for a decoder
            that spells titles. An interrupted training goes on; torchrun gives it more processes.
        device: auto, cpu, cuda or cuda:N; where the reader learns.
        set_: Override a setting of the reader, as in --set epochs=5; repeatable.
        as_json: Print JSON.
    """
    from openmofi.errors import SettingsError
    from openmofi.evaluate.linking_data import read_linking
    from openmofi.evaluate.linking_fit import fit_on
    from openmofi.evaluate.linking_images import texts_of_images
    from openmofi.kb import KnowledgeBase
    from openmofi.link.weights import save_link_weights
    from openmofi.progress import progress

    if fusion is None and (set_ or device != "auto"):
        raise SettingsError("--set and --device are for a reader; add --fusion ENCODER.")
    read = [texts_of_images(path) if path.is_dir() else read_linking(path) for path in data]
    knowledge = KnowledgeBase.open(kb)
    encodes = context != "words"
    chosen = f" --context {quoted(context)}" if encodes else ""
    with progress("encode", unit="texts") if encodes else nullcontext() as bar:
        advance = bar.advance if bar else None
        linker = open_linker(knowledge, context, advance=advance)
        if fusion is not None:
            _train_reader(linker, read, fusion, out, set_ or [], device, chosen, as_json)
            return
        fit = fit_on(linker, read)
    save_link_weights(fit.weights, out)
    if as_json:
        print_json(fit)
        return
    print(
        f"wrote {out} (fitted on {fit.mentions:,} mentions, {fit.nil:,} of them without a correct "
        f"candidate; mean log likelihood {fit.before:.3f} -> {fit.after:.3f})"
    )
    say_next(f'openmofi link "A CAPTION" --kb {quoted(kb)} --weights {quoted(out)}' + chosen)


def _train_reader(
    linker: Linker,
    data: list[LinkingData],
    encoder: str,
    out: Path,
    assignments: list[str],
    device: str,
    chosen: str,
    as_json: bool,
) -> None:
    from openmofi.config import parse_assignments
    from openmofi.train.fusion import fit_fusion

    changes = parse_assignments(assignments)
    summary = fit_fusion(linker, data, encoder=encoder, out=out, changes=changes, device=device)
    _say_trained(summary, linker.kb.path, chosen, as_json)


def _say_trained(summary: FusionSummary, kb: Path, chosen: str, as_json: bool) -> None:
    if as_json:
        print_json(summary)
        return
    for name in ("accuracy", "log_likelihood"):
        before, after = summary.before[name], summary.after[name]
        print(
            f"held-out {name.replace('_', ' ')}: {before:.3f} by the linear score, {after:.3f} "
            "with the reader"
        )
    if not summary.after["scale"]:
        print("no step was better than the linear score, so the reader adds nothing to it")
    print(
        f"wrote {summary.out} (step {summary.steps:,}; {summary.mentions:,} mentions, of which "
        f"{summary.nil:,} mean nothing; {summary.held_out:,} held out)"
    )
    say_next(f'openmofi link "A CAPTION" --kb {quoted(kb)} --fusion {quoted(summary.out)}' + chosen)
