"""The verb `kb fit`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from openmofi.cli.app import Json, Out, kb_app
from openmofi.cli.link import open_encoder
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
    model: str | None = None,
    as_json: Annotated[bool, Json] = False,
) -> None:
    """Fit the weights of the linker's score to texts that were linked by hand.

    Example: openmofi kb fit wikidata_mel_train.jsonl --kb kb --out weights.json

    Args:
        data: Files in the format of MELBench, ELEVANT or ZELDA, as for `evaluate linking`; all have
            the same weight. Only ELEVANT's annotate every mention and thus teach NIL.
        out: JSON file to write; `openmofi link --weights` takes it.
        kb: Knowledge base directory.
        model: Dual encoder whose text tower compares texts; the default compares words. Use the
            weights only with the encoder that they were fitted with.
        as_json: Print JSON.
    """
    from openmofi.evaluate.linking_data import read_linking
    from openmofi.evaluate.linking_fit import fit_on
    from openmofi.kb import KnowledgeBase
    from openmofi.link import Linker
    from openmofi.link.weights import save_link_weights

    knowledge = KnowledgeBase.open(kb)
    linker = Linker(knowledge, encoder=open_encoder(knowledge, model))
    fit = fit_on(linker, [read_linking(path) for path in data])
    save_link_weights(fit.weights, out)
    if as_json:
        print_json(fit)
        return
    print(
        f"wrote {out} (fitted on {fit.mentions:,} mentions, {fit.nil:,} of them without a correct "
        f"candidate; mean log likelihood {fit.before:.3f} -> {fit.after:.3f})"
    )
    say_next(f'openmofi link "A CAPTION" --kb {quoted(kb)} --weights {quoted(out)}')
