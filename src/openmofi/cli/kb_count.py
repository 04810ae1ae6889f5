"""The verb `kb count`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from openmofi.cli.app import Json, Out, kb_app
from openmofi.cli.output import print_json, print_table, quoted, say_next

if TYPE_CHECKING:
    from openmofi.link.crawl_priors import CrawlPriors
    from openmofi.link.learn_priors import CaptionSample

_BATCH = 16_384
_SIDES = ("before", "after")


@kb_app.command(name="count")
def kb_count(
    captions: list[Path],
    /,
    *,
    kb: Path = Path("kb"),
    priors: Annotated[Path | None, Out] = None,
    as_json: Annotated[bool, Json] = False,
) -> None:
    """Count how names are written in your captions, to tell names from common words.

    Example: openmofi kb count shards/ --kb kb

    Args:
        captions: Image-caption pairs as `label` takes them, or text files (.txt, also .gz, .bz2,
            .zst) with one caption per line.
        kb: Knowledge base directory, which also stores the counts.
        priors: File to write, with what the captions teach about the meanings of names; `link`,
            `label` and `evaluate linking` take it as --priors.
        as_json: Print JSON.
    """
    from openmofi.kb import KnowledgeBase
    from openmofi.link import Linker, WordEncoder
    from openmofi.link.learn_priors import CaptionSample, learn_priors
    from openmofi.link.linkability import count_names, read_linkability

    knowledge = KnowledgeBase.open(kb)
    sample = CaptionSample(knowledge)
    summary = count_names(knowledge, _captions(captions, sample if priors else None))
    learnt = None
    if priors:
        learnt = learn_priors(Linker(knowledge, encoder=WordEncoder(knowledge)), sample.captions)
        learnt.save(priors)
    counts = read_linkability(knowledge)
    assert counts is not None
    names = counts.most_frequent(knowledge, 20)
    if as_json:
        also = {"priors": {**learnt.about, "trust": learnt.company.trust}} if learnt else {}
        print_json({"summary": summary, "most_frequent": names, **also})
        return
    print(
        f"counted {summary.mentions:,} mentions of {summary.names:,} names in "
        f"{summary.captions:,} captions; stored in {kb}"
    )
    rows = [(n.name, f"{n.seen:,}", f"{n.linkability:.2f}") for n in names]
    print_table(("most frequent", "seen", "linkability"), rows)
    if learnt:
        _say_learnt(learnt, priors)
    chosen = f" --priors {quoted(priors)}" if priors else ""
    say_next(f'openmofi link "A CAPTION" --kb {quoted(kb)}' + chosen)


def _say_learnt(learnt: CrawlPriors, path: Path | None) -> None:
    if learnt.off:
        print(f"wrote {path}, which changes nothing: {learnt.off}")
        return
    about = learnt.about
    one, several = about["mentions"].values()
    print(
        f"wrote {path} (learnt from {about['captions']:,} captions: {one:,} mentions of names with "
        f"one kind of meaning, {several:,} of others; company counts {learnt.company.trust:.2f} "
        "times)"
    )
    groups = [(", ".join(g["types"][:4]), f"{g['tilt']:.2f}") for g in about["groups"]]
    print_table(("types that keep the same company", "meant more often by"), groups)
    moved = [
        (
            name["name"],
            f"{name['mentions']:,}",
            *(f"{of['label']} ({of['id']}, {of['prior']:.2f})" for of in map(name.get, _SIDES)),
        )
        for name in about["moved"]
    ]
    print_table(("name", "mentions", "before", "now"), moved)


def _captions(paths: list[Path], sample: CaptionSample | None) -> Iterator[list[str]]:
    from openmofi.pairs import read_captions
    from openmofi.progress import progress

    with progress("counting names", unit="captions") as bar:
        for path in paths:
            for batch in read_captions(path, _BATCH):
                if sample:
                    sample.add(batch)
                yield batch
                bar.advance(len(batch))
