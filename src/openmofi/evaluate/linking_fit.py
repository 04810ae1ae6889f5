"""Fits the linker's weights on benchmark files: gold mentions -> `LinkWeights`."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from openmofi.errors import InputError
from openmofi.evaluate.linking_answers import with_kb_ids
from openmofi.evaluate.linking_data import Format, LinkingData
from openmofi.link.fit import GOLD, LinkExamples, LinkFit, examples_of, fit_link_weights
from openmofi.link.linker import Linker

# ELEVANT's annotators mark every mention, even those without an entity. MELBench marks only what
# the image shows, ZELDA what several annotators agreed on, so unmarked words may be mentions too:
# "Official Discussion: The Cloverfield Paradox [SPOILERS]" has one marked mention, SPOILERS.
_COMPLETE: tuple[Format, ...] = ("elevant",)
# The exception: subject and object of one relation are marked, two mentions in every sentence
# (Röder et al. 2014, N3, LREC), but not Bill Clinton or Uganda next to them.
_PARTIAL = "rss-500"


def fit_on(linker: Linker, data: Sequence[LinkingData]) -> LinkFit:
    """Fits the weights of a linker's terms, with each file as a group; see `link.fit`.

    Args:
        linker: its weights are the starting point.
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
        raise InputError(
            f"{data.name} asks questions and has no mentions to fit to; pass other data."
        )
    documents = with_kb_ids(data, linker.kb)
    gold: list[tuple[int, int, int, str | None, bool, float]] = []  # as in GOLD
    for row, document in enumerate(documents):
        own = document.mentions
        gold += [(row, m.start, m.end, m.id, m.optional, m.probability) for m in own]
        if document.evaluated is not None:
            # What is not annotated counts as an optional mention of no entity.
            low, high = document.evaluated
            outside = ((0, low), (high, len(document.text)))
            gold += [(row, start, end, None, True, 1.0) for start, end in outside if start < end]
    columns = zip(*gold, strict=True) if gold else [()] * len(GOLD)
    arrays = [pa.array(column, field.type) for column, field in zip(columns, GOLD, strict=True)]
    return examples_of(
        linker,
        [document.text for document in documents],
        pa.Table.from_arrays(arrays, schema=GOLD),
        complete=data.format in _COMPLETE and _PARTIAL not in data.name,
    )
