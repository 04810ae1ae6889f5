"""Proposals for an orchard, written by hand: two fruit that its catalogue lacks."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from openmofi.review.missing import missing_folder
from openmofi.review.missing.proposals import Example, Nearest, Proposal, write_proposals
from orchard import Orchard


def write_proposed(orchard: Orchard) -> Path:
    """Writes the proposals where the server looks for them; returns the folder."""
    i2e = orchard.selection.parents[1]
    file = pq.read_table(orchard.selection / "shards.parquet")["file"][0].as_py()
    shown = [Example(file, row, f"{row:03d}", "", f"durian {row}") for row in (0, 1)]
    gone = Example("labels/gone.parquet", 0, "x", "", "a durian")
    numbers = {"share": 0.9, "purity": 0.97, "cohesion": 0.5, "evidence": 40.0, "value": 20.0}
    like = [Nearest("lime", "Lime", 0.4, 0.95)]
    made = [
        Proposal(
            "new:durian",
            "durian",
            ["king of fruit"],
            images=22,
            looked=20,
            nearest=like,
            meanings=["plum"],
            examples=[*shown, gone],
            **numbers,
        ),
        Proposal(
            "new:fig",
            "fig",
            [],
            images=9,
            looked=9,
            nearest=[Nearest("plum", "Plum", 0.9, 0.5)],
            meanings=[],
            examples=shown[:1],
            **numbers,
        ),
    ]
    folder = missing_folder(i2e, orchard.selection.name)
    folder.mkdir(parents=True)
    write_proposals(folder, made, pa.table({"proposal": pa.array([], pa.string())}))
    return folder
