"""Fits the linker's weights on benchmark files: gold mentions -> `LinkWeights`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa

from openmofi.errors import InputError
from openmofi.evaluate.linking_answers import with_kb_ids
from openmofi.evaluate.linking_data import Format, GoldDocument, LinkingData
from openmofi.link.fit import GOLD, LinkExamples, LinkFit, examples_of, fit_link_weights
from openmofi.link.linker import Linker

# ELEVANT's annotators mark every mention, those without an entity included. MELBench marks what the
# image shows, ZELDA what several annotators agreed on, and neither says what is not a mention:
# «Official Discussion: The Cloverfield Paradox [SPOILERS]» has one mention, SPOILERS.
_COMPLETE: tuple[Format, ...] = ("elevant",)
# Annotated elsewhere: subject and object of one relation, two mentions in every sentence (Röder et
# al. 2014, N3, LREC); Bill Clinton and Uganda beside them are not marked.
_PARTIAL = "rss-500"


def fit_on(linker: Linker, data: Sequence[LinkingData]) -> LinkFit:
    """Fits the weights of a linker's terms, each file being a group; see `link.fit`.

    Args:
        linker: its weights are the start.
        data: files with gold spans.

    Raises:
        InputError: a file has no spans (OVEN), or there are too few mentions.
    """
    groups = [examples_in(linker, one) for one in data]
    return fit_link_weights(groups, start=linker.weights, data=", ".join(one.name for one in data))


def examples_in(linker: Linker, data: LinkingData) -> LinkExamples:
    """Returns what a linker offers for the mentions of a file.

    Raises:
        InputError: the file has no spans (OVEN).
    """
    if data.format == "oven":
        raise InputError(f"{data.name} asks questions and has no mentions to fit to; pass others.")
    documents = with_kb_ids(data, linker.kb)
    gold = [(row, *span) for row, document in enumerate(documents) for span in _spans(document)]
    columns = zip(*gold, strict=True) if gold else [()] * len(GOLD)
    arrays = [pa.array(column, field.type) for column, field in zip(columns, GOLD, strict=True)]
    return examples_of(
        linker,
        [document.text for document in documents],
        pa.Table.from_arrays(arrays, schema=GOLD),
        complete=data.format in _COMPLETE and _PARTIAL not in data.name,
    )


def _spans(document: GoldDocument) -> Iterator[tuple[int, int, str | None, bool]]:
    """Yields start, end, id and optional of every mention, and of what is not annotated."""
    for mention in document.mentions:
        yield mention.start, mention.end, mention.id, mention.optional
    if document.evaluated is not None:
        start, end = document.evaluated
        for first, last in ((0, start), (end, len(document.text))):
            if first < last:
                yield first, last, None, True
