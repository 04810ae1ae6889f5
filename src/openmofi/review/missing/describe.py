"""Findings -> rows for the catalogue, with the images that speak for them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from openmofi.kb import KnowledgeBase
from openmofi.review.missing.images import RefusedImages
from openmofi.review.missing.phrases import as_written
from openmofi.review.missing.proposals import Example, Nearest, Proposal, proposal_ids
from openmofi.review.missing.propose import Finding, NamedImages
from openmofi.select.selection import Selection

_EXAMPLES = 24
_SHOWN_NEAREST = 3


def describe(
    selection: Selection,
    images: RefusedImages,
    chosen: np.ndarray,
    table: pa.Table,
    evidence: NamedImages,
    findings: list[Finding],
) -> list[Proposal]:
    """Returns the rows of findings, with their examples.

    Args:
        selection: whose images they are.
        images: its refused images.
        chosen: those that were looked at.
        table: rows of schema.KEEP of these.
        evidence: what the findings were made from.
        findings: what was found.
    """
    kb, files = selection.kb, selection.shards["file"].to_pylist()
    texts, made = evidence.bearers.text, []
    ids = proposal_ids([texts[one.phrase] for one in findings], kb)
    for one, id_ in zip(findings, ids, strict=True):
        rows = table.take(pa.array(one.images[: 4 * _EXAMPLES])).to_pylist()
        captions = [row["caption"] for row in rows]
        places = chosen[one.images[:_EXAMPLES]]
        examples = [
            Example(
                files[images.file[p]],
                int(images.row[p]),
                row["key"] or "",
                row["shard"],
                row["caption"],
            )
            for p, row in zip(places.tolist(), rows, strict=False)
        ]
        aliases = [_written(table, evidence, phrase) for phrase in one.others]
        nearest = [
            Nearest(
                e := evidence.known.ids[number], _label(kb, e), round(cosine, 3), round(apart, 3)
            )
            for number, cosine, apart in one.nearest[:_SHOWN_NEAREST]
        ]
        text = texts[one.phrase]
        made.append(
            Proposal(
                id_,
                as_written(captions, text),
                aliases,
                round(one.share * float(evidence.everywhere[one.phrase]) / max(images.drawn, 1e-9)),
                len(one.images),
                round(one.share, 3),
                round(one.look.purity, 3),
                round(one.look.cohesion, 3),
                round(one.look.evidence, 1),
                round(one.value, 1),
                nearest,
                kb.lookup([text])["id"].to_pylist()[:5],
                examples,
            )
        )
    return made


def list_members(
    selection: Selection,
    images: RefusedImages,
    chosen: np.ndarray,
    table: pa.Table,
    findings: list[Finding],
    made: list[Proposal],
) -> pa.Table:
    """Returns a row for each image of each proposal."""
    own = np.concatenate([np.zeros(0, np.int64), *(one.images for one in findings)])
    proposal = np.repeat(np.arange(len(findings)), [len(one.images) for one in findings])
    labels = pa.array(selection.shards["file"].to_pylist(), pa.string())
    places = chosen[own]
    return pa.table(
        {
            "proposal": pa.array([one.id for one in made], pa.string()).take(pa.array(proposal)),
            "labels": labels.take(pa.array(images.file[places])),
            "row": pa.array(images.row[places], pa.int64()),
            **{n: table[n].take(pa.array(own)) for n in ("key", "shard", "caption")},
        }
    )


def _written(table: pa.Table, evidence: NamedImages, phrase: int) -> str:
    rows = evidence.bearers.of(phrase)[:_EXAMPLES]
    captions = table["caption"].take(pa.array(rows)).to_pylist()
    return as_written(captions, evidence.bearers.text[phrase])


def _label(kb: KnowledgeBase, identifier: str) -> str:
    row = kb.row_of(identifier)
    return identifier if row is None else kb.texts.label[row].as_py()
