"""The verb `kb count`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from openmofi.cli.app import Json, kb_app
from openmofi.cli.output import print_json, print_table, quoted, say_next

if TYPE_CHECKING:
    pass

_BATCH = 16_384


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

    Args:
        captions: Image-caption pairs as `label` takes them, or text files (.txt, also .gz, .bz2,
            .zst) with one caption per line.
        kb: Knowledge base directory, which also stores the counts.
        as_json: Print JSON.
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
        f"{summary.captions:,} captions; stored in {kb}"
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
