"""The verb `evaluate linking`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from openmofi.cli.app import Json, Out, evaluate_app
from openmofi.cli.link import open_detector, open_linker
from openmofi.cli.output import print_json, print_table, quoted, say_next
from openmofi.config import LinkSettings

if TYPE_CHECKING:
    from openmofi.evaluate.linking import LinkingResult


@evaluate_app.command(name="linking")
def evaluate_linking(
    *,
    kb: Path,
    data: list[Path],
    out: Annotated[Path | None, Out] = None,
    context: str = "words",
    fusion: Path | None = None,
    read_above: float = LinkSettings.read_above,
    weights: str | None = None,
    priors: str | None = None,
    detector: str = "gazetteer",
    as_json: Annotated[bool, Json] = False,
) -> None:
    """Measure how well texts are linked, on benchmarks of entity linking.

    Example: openmofi evaluate linking --kb kb --data derczynski.jsonl --out scores

    Args:
        kb: Knowledge base directory.
        data: File of MELBench, ELEVANT, ZELDA or OVEN (.jsonl, also .gz); repeatable.
        out: Directory for linking.json.
        context: What compares the text with the candidates' descriptions: words (those they share),
            or the directory or hub id of a text encoder.
        fusion: Folder of a reader of hard mentions, as `openmofi kb fit --fusion` writes it.
        read_above: The reader reads the mentions that the linear score gets wrong with a larger
            probability than this.
        weights: JSON file with other weights of the score's terms, as `openmofi kb fit` writes
            them.
        priors: File with what a crawl taught, as `openmofi kb count --priors` writes it.
        detector: Mention detector: gazetteer, spacy or spacy:PIPELINE, gliner or
            gliner:MODEL, or hf:MODEL, a token classifier.
        as_json: Print JSON.
    """
    from openmofi.evaluate.linking import evaluate_linking as run_linking
    from openmofi.evaluate.linking_data import read_linking
    from openmofi.evaluate.linking_report import write_linking
    from openmofi.kb import KnowledgeBase

    read = [read_linking(path) for path in data]
    knowledge = KnowledgeBase.open(kb)
    settings = LinkSettings(weights=weights, priors=priors, read_above=read_above)
    linker = open_linker(knowledge, context, fusion=fusion, settings=settings)
    finder = open_detector(detector)
    results = [run_linking(linker, one, detector=finder) for one in read]
    path = None if out is None else write_linking(results, out)
    if as_json:
        print_json(results)
        return
    for result in results:
        _say(result)
    if path is not None:
        print(f"wrote {path} ({len(results)} datasets)")
    say_next(f'openmofi link "A CAPTION" --kb {quoted(kb)} --all-candidates')


def _say(result: LinkingResult) -> None:
    print(
        f"{result.dataset} ({result.format}): {result.documents:,} documents, "
        f"{result.mentions:,} mentions with an entity, {result.nil:,} without, "
        f"{result.not_in_kb:,} not in the knowledge base of {result.entities:,} entities and "
        f"{result.names:,} names; {_number(result.verbatim)} written like the entity's name"
    )
    if result.refused:
        counts = ", ".join(f"{reason} {count:,}" for reason, count in result.refused.items())
        print(f"left out: {counts}")
    heads = ("figure", "mentions", "recall@1", "@5", "@30", "accuracy", "P", "R", "F1")
    rows = [_row("all", result.mentions, result)]
    for slices, unit in ((result.by_frequency, "sitelinks"), (result.by_ambiguity, "candidates")):
        for name, part in slices.items():
            title = f"{name} {unit}" if name[0].isdigit() else name.replace("_", " ")
            rows.append(_row(title, part.mentions, part))
    print_table(heads, rows)
    more = {
        "accuracy in the KB": result.in_kb_accuracy,
        "F1 in the KB": result.in_kb_end_to_end.f1,
        "F1 of overlapping spans": result.overlap.f1,
        **{f"accuracy {name}": value for name, value in result.splits.items()},
    }
    print("; ".join(f"{name} {_number(value)}" for name, value in more.items()))
    if result.published:
        print("published systems, which link to all of Wikipedia, unlike a small KB:")
    for metric, source in dict.fromkeys((p.metric, p.source) for p in result.published):
        scores = [
            f"{p.system} {_number(p.score)}"
            for p in result.published
            if (p.metric, p.source) == (metric, source)
        ]
        print(f"  {metric}: {', '.join(scores)} ({source})")
    print()


def _row(name: str, mentions: int, figures: Any) -> tuple[str, ...]:
    recall = [_number(figures.recall_at.get(k, math.nan)) for k in ("1", "5", "30")]
    ends = figures.end_to_end
    ends = [_number(value) for value in (ends.precision, ends.recall, ends.f1)]
    return (name, f"{mentions:,}", *recall, _number(figures.accuracy), *ends)


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"
