"""The verbs that link: link, kb count, kb fit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from openmofi.cli.app import Flags, Json, Out, app, kb_app
from openmofi.cli.linking import open_detector, open_encoder
from openmofi.cli.output import print_json, print_table, quoted, say_next
from openmofi.config import LinkSettings

if TYPE_CHECKING:
    from openmofi.kb import KnowledgeBase

_BATCH = 16_384
_COLOURS = ("green", "cyan", "magenta", "yellow", "blue")
_TERMS = ("prior", "context", "coherence", "type", "linkability", "case", "detected", "score")


@app.command
def link(
    text: str,
    /,
    *,
    kb: Path = Path("kb"),
    model: str | None = None,
    detector: str = "gazetteer",
    all_candidates: bool = False,
    settings: Annotated[LinkSettings, Flags] = LinkSettings(),
    as_json: Annotated[bool, Json] = False,
) -> None:
    """Link the mentions of one caption to entities, and show every term of the score.

    Example: openmofi link "a flag of Georgia over Tbilisi" --kb kb

    Parameters
    ----------
    text
        The caption.
    kb
        Knowledge base directory.
    model
        Dual encoder whose text tower compares the caption with the candidates' descriptions; the
        default compares their words.
    detector
        What says how sure a mention is one: gazetteer (nothing but the names), spacy or
        spacy:PIPELINE, gliner or gliner:MODEL, or hf:MODEL, a token classifier.
    all_candidates
        Show every candidate of a mention, not only the best.
    as_json
        Print JSON.
    """
    from openmofi.kb import KnowledgeBase
    from openmofi.link import Linker

    knowledge = KnowledgeBase.open(kb)
    linker = Linker(
        knowledge,
        encoder=open_encoder(knowledge, model),
        detector=open_detector(detector),
        settings=settings,
    )
    found = linker.link([text], all_candidates=all_candidates).to_pylist()
    if as_json:
        print_json(found)
        return
    if not found:
        print("This caption hardly means anything that the knowledge base knows.")
        if not all_candidates:
            say_next(f"openmofi link {quoted(text)} --kb {quoted(kb)} --all-candidates")
        return
    _print_caption(text, found)
    _print_terms(knowledge, found)
    if not all_candidates:
        say_next(f"openmofi link {quoted(text)} --kb {quoted(kb)} --all-candidates")


def _colours(found: list[dict[str, Any]]) -> dict[int, str]:
    starts = list(dict.fromkeys(row["start"] for row in found))
    return {start: _COLOURS[i % len(_COLOURS)] for i, start in enumerate(starts)}


def _print_caption(text: str, found: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.text import Text

    caption = Text(text)
    for start, colour in _colours(found).items():
        end = next(row["end"] for row in found if row["start"] == start)
        caption.stylize(f"bold underline {colour}", start, end)
    Console(soft_wrap=True).print(caption)


def _print_terms(knowledge: KnowledgeBase, found: list[dict[str, Any]]) -> None:
    """Prints a row per candidate; a term that was not computed has no column."""
    shown = [name for name in _TERMS if any(row[name] is not None for row in found)]
    colours, rows, styles, last = _colours(found), [], [], None
    texts = knowledge.texts
    for row, entity in zip(found, knowledge.rows_of([row["id"] for row in found]), strict=True):
        label, described = texts.label[entity].as_py(), texts.description[entity].as_py()
        numbers = ["" if row[name] is None else f"{row[name]:.3g}" for name in shown]
        surface = row["surface"] if row["start"] != last else ""
        rows.append((surface, row["id"], label, *numbers, described))
        styles.append(colours[row["start"]] if row["rank"] == 0 else "dim")
        last = row["start"]
    print_table(("mention", "id", "label", *shown, "description"), rows, styles)


@kb_app.command(name="count")
def kb_count(
    captions: list[Path],
    /,
    *,
    kb: Path = Path("kb"),
    as_json: Annotated[bool, Json] = False,
) -> None:
    """Count how names are written in your captions, to tell names from common words.

    Example: openmofi kb count shards/ --kb kb

    Parameters
    ----------
    captions
        Image-caption pairs as `label` takes them, or text files (.txt, also .gz, .bz2, .zst) with
        one caption a line.
    kb
        Knowledge base directory; the counts are kept in it.
    as_json
        Print JSON.
    """
    from openmofi.kb import KnowledgeBase
    from openmofi.link.linkability import count_names, read_linkability

    knowledge = KnowledgeBase.open(kb)
    summary = count_names(knowledge, _captions(captions))
    counts = read_linkability(knowledge)
    assert counts is not None
    names = counts.most_frequent(knowledge, 20)
    if as_json:
        print_json({"summary": summary, "most_frequent": names})
        return
    print(
        f"counted {summary.mentions:,} mentions of {summary.names:,} names in "
        f"{summary.captions:,} captions; kept in {kb}"
    )
    rows = [(n.name, f"{n.seen:,}", f"{n.linkability:.2f}") for n in names]
    print_table(("most frequent", "seen", "linkability"), rows)
    say_next(f'openmofi link "A CAPTION" --kb {quoted(kb)}')


def _captions(paths: list[Path]) -> Iterator[list[str]]:
    from openmofi.pairs import read_captions
    from openmofi.progress import progress

    with progress("counting names", unit="captions") as bar:
        for path in paths:
            for batch in read_captions(path, _BATCH):
                yield batch
                bar.advance(len(batch))


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

    Parameters
    ----------
    data
        Files in the format of MELBench, ELEVANT or ZELDA, as `evaluate linking` reads them; all
        count the same. Only ELEVANT's annotate every mention, and so teach what means nothing.
    out
        JSON file to write; `openmofi link --weights` takes it.
    kb
        Knowledge base directory.
    model
        Dual encoder whose text tower compares texts; the default compares words. Weights are good
        for the encoder that they were fitted with.
    as_json
        Print JSON.
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
        f"wrote {out} (fitted on {fit.mentions:,} mentions, {fit.nil:,} of them without a right "
        f"candidate; mean log likelihood {fit.before:.3f} -> {fit.after:.3f})"
    )
    say_next(f'openmofi link "A CAPTION" --kb {quoted(kb)} --weights {quoted(out)}')
