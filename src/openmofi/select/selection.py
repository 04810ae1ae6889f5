"""Reads a finished selection: its tables, and the labels behind their rows."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from openmofi.arrays.runs import run_numbers
from openmofi.errors import InputError, MismatchError
from openmofi.kb import KnowledgeBase
from openmofi.label.score import ScoreWeights, joint_score, load_weights
from openmofi.select.corrections import Corrections
from openmofi.select.image_priors import ImagePriors, read_image_priors


class Selection:
    """The output of `select`; rows are read on demand."""

    def __init__(self, i2e: Path, name: str):
        self.i2e, self.folder = i2e, i2e / "select" / name
        if not (self.folder / "card.json").is_file():
            raise InputError(
                f"{str(i2e)!r} has no selection {name!r}; run `openmofi select {i2e} --name {name}`"
                "."
            )
        self.card: dict[str, Any] = json.loads((self.folder / "card.json").read_text())
        self.shards = pq.read_table(self.folder / "shards.parquet")
        self.vocabulary = pq.read_table(self.folder / "vocabulary.parquet")
        self.kb = KnowledgeBase.open(Path(self.card["kb"]))

    @property
    def files(self) -> list[Path]:
        """The labels files that were selected from."""
        return [self.i2e / name for name in self.shards["file"].to_pylist()]

    def reasons(self) -> np.ndarray:
        """Returns the reason of each row of refused.parquet, as its position in the funnel."""
        with pq.ParquetFile(self.folder / "refused.parquet", read_dictionary=["reason"]) as file:
            column = file.read(["reason"])["reason"].unify_dictionaries()
        place = {reason: i for i, reason in enumerate(self.card["funnel"]["refused"])}
        parts = [np.zeros(0, int)]
        for chunk in column.chunks:
            of_chunk = np.array([place[name] for name in chunk.dictionary.to_pylist()], int)
            parts.append(of_chunk[chunk.indices.to_numpy()])
        return np.concatenate(parts)

    def first_classes(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns (each kept image's first class, its score)."""
        with pq.ParquetFile(self.folder / "keep.parquet") as file:
            table = file.read(["classes", "scores"])
        return _first(table["classes"]), _first(table["scores"])

    def kept(self, rows: Sequence[int]) -> list[dict[str, Any]]:
        """Returns the labels (schema.LABELS) of rows of keep.parquet, with `classes`, `place`."""
        own = rows_at(self.folder / "keep.parquet", rows, ["row", "classes"])
        return self._labels(rows, own, self._kept_ends)

    def refused(self, rows: Sequence[int]) -> list[dict[str, Any]]:
        """Returns the labels (schema.LABELS) of rows of refused.parquet, with `reason`, `place`."""
        own = rows_at(self.folder / "refused.parquet", rows, ["row", "reason"])
        return self._labels(rows, own, self._refused_ends)

    @cached_property
    def _kept_ends(self) -> np.ndarray:
        return np.cumsum(self.shards["kept"].to_numpy())

    @cached_property
    def _refused_ends(self) -> np.ndarray:
        return np.cumsum(self.shards["pairs"].to_numpy()) - self._kept_ends

    def _labels(
        self, rows: Sequence[int], own: list[dict[str, Any]], ends: np.ndarray
    ) -> list[dict[str, Any]]:
        """Returns the labels of rows of a table, given the row at which each labels file ends."""
        files = np.searchsorted(ends, np.asarray(rows, np.int64), "right").tolist()
        found: dict[int, dict[str, Any]] = {}
        for number in sorted(set(files)):
            mine = [i for i, file in enumerate(files) if file == number]
            labels = self.read(number, [own[i]["row"] for i in mine])
            for i, label in zip(mine, labels, strict=True):
                found[i] = own[i] | label | {"place": (number, own[i]["row"])}
        return [found[i] for i in range(len(own))]

    def read(self, file: int, rows: Sequence[int]) -> list[dict[str, Any]]:
        """Returns rows of a labels file, in the given order.

        Raises:
            MismatchError: the file was replaced after the selection.
        """
        path = self.files[file]
        if not path.is_file():
            raise MismatchError(
                f"{path} is gone: its shard was labelled again; run `openmofi select {self.i2e} "
                f"--name {self.folder.name}` again."
            )
        return [self._scored(row) for row in rows_at(path, rows, None)]

    def _scored(self, row: dict[str, Any]) -> dict[str, Any]:
        """Replaces the candidates' scores by those that the selection used."""
        weights = self.card["weights"]
        if weights and row["entities"] and row["entities"][0]["clip_z"] is not None:
            names = ("text_score", "clip_z", "start", "prior")
            text, clip_z, start, prior = (np.array([e[n] for e in row["entities"]]) for n in names)
            mention = run_numbers(start)
            if self.priors:
                named = [(entity["surface"], entity["id"]) for entity in row["entities"]]
                text = self.priors.texts_of(named, text, prior, mention)
            shift = None
            if self.corrections:
                shift = self.corrections.shift_of(
                    [(entity["surface"], entity["id"]) for entity in row["entities"]]
                )
            scores = joint_score(text, clip_z, mention, ScoreWeights(**weights), shift).tolist()
            for entity, score in zip(row["entities"], scores, strict=True):
                entity["score"] = score
        return row

    @cached_property
    def priors(self) -> ImagePriors | None:
        """What the images taught about names, if the selection asked them."""
        return read_image_priors(self.folder, self.kb, self.i2e)

    @cached_property
    def corrections(self) -> Corrections | None:
        """What people had said, if anything."""
        return Corrections.read(self.folder, self.kb)

    @property
    def weights(self) -> ScoreWeights:
        """The weights of the joint score that the selection used, or the shipped ones."""
        return ScoreWeights(**self.card["weights"]) if self.card["weights"] else load_weights()

    def spread_files(self) -> Iterator[int]:
        """Yields the numbers of all files, the first few spread over all of them."""
        count = len(self.shards)
        step = next((s for s in (7919, 104729, 1) if np.gcd(s, count) == 1), 1)
        yield from ((i * step) % count for i in range(count))


def _first(lists: pa.ChunkedArray) -> np.ndarray:
    """Returns the first element of each list, none of which may be empty."""
    parts = [chunk.values.to_numpy()[chunk.offsets.to_numpy()[:-1]] for chunk in lists.chunks]
    return np.concatenate(parts) if parts else np.zeros(0)


def rows_at(path: Path, rows: Sequence[int], columns: list[str] | None) -> list[dict[str, Any]]:
    """Returns rows of a Parquet file in the given order; reads only their row groups."""
    wanted = np.asarray(rows, np.int64)
    found: dict[int, dict[str, Any]] = {}
    with pq.ParquetFile(path) as file:
        sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
        ends = np.cumsum(sizes)
        groups = np.searchsorted(ends, wanted, "right")
        for group in np.unique(groups).tolist():
            mine = np.unique(wanted[groups == group])
            table = file.read_row_group(group, columns).take(
                pa.array(mine - (ends[group] - sizes[group]))
            )
            found |= dict(zip(mine.tolist(), table.to_pylist(), strict=True))
    return [dict(found[row]) for row in wanted.tolist()]
