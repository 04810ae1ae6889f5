"""The verb `kb fit`."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from openmofi.cli.app import Json, Out, kb_app
from openmofi.cli.link import open_linker
from openmofi.cli.output import print_json, quoted, say_next

if TYPE_CHECKING:
    pass


@kb_app.command(name="fit")
def kb_fit(
    data: list[Path],
    /,
    *,
    out: Annotated[Path, Out],
    kb: Path = Path("kb"),
    context: str = "words",
    as_json: Annotated[bool, Json] = False,
) -> None:
    """Fit the weights of the linker's score to texts that were linked by hand.

    Example: openmofi kb fit wikidata_mel_train.jsonl --kb kb --out weights.json

    Args:
        data: Files in the format of MELBench, ELEVANT or ZELDA, as for `evaluate linking`; all have
            the same weight. Only ELEVANT's annotate every mention and thus teach NIL.
        out: JSON file to write; `openmofi link --weights` takes it.
        kb: Knowledge base directory.
        context: What compares texts with the candidates' descriptions: words (those they share), or
            the directory or hub id of a text encoder. Link with the one that was fitted.
        as_json: Print JSON.
    """
    from openmofi.evaluate.linking_data import read_linking
    from openmofi.evaluate.linking_fit import fit_on
    from openmofi.kb import KnowledgeBase
    from openmofi.link.weights import save_link_weights
    from openmofi.progress import progress

    read = [read_linking(path) for path in data]
    knowledge = KnowledgeBase.open(kb)
    encodes = context != "words"
    with progress("encode", unit="texts") if encodes else nullcontext() as bar:
        advance = bar.advance if bar else None
        fit = fit_on(open_linker(knowledge, context, advance=advance), read)
    save_link_weights(fit.weights, out)
    if as_json:
        print_json(fit)
        return
    print(
        f"wrote {out} (fitted on {fit.mentions:,} mentions, {fit.nil:,} of them without a correct "
        f"candidate; mean log likelihood {fit.before:.3f} -> {fit.after:.3f})"
    )
    chosen = f" --context {quoted(context)}" if encodes else ""
    say_next(f'openmofi link "A CAPTION" --kb {quoted(kb)} --weights {quoted(out)}' + chosen)
