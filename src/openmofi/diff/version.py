"""One of the two versions that are compared: labels, or a selection from them -> their rows.

A row is a pair: where it lies, what tells it from other pairs, which labels it has, why it has no
others, and its candidates with all their terms. Rows are read shard by shard.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from enum import IntEnum
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from openmofi.arrays.runs import run_starts
from openmofi.diff.rules import Rule, Terms, hashes, joined, rule_of_labels, rule_of_selection
from openmofi.errors import InputError, MismatchError
from openmofi.kb import KnowledgeBase
from openmofi.select.corrections import Corrections
from openmofi.select.denied_types import denied_entities
from openmofi.select.selection import Selection
from openmofi.shards import commits_of, is_job


class Step(IntEnum):
    """Where a label is lost, in the order of the flow; a label that passes all of them is kept."""

    ABSENT = 0
    """The pair is not there."""
    DAMAGED = 1
    NOT_A_CANDIDATE = 2
    NOT_CHOSEN = 3
    """Another candidate of the mention is."""
    TEXT_IN_PICTURE = 4
    EVALUATION_DUPLICATE = 5
    TYPE_DENIED = 6
    CORRECTED = 7
    PICTURE_DISAGREES = 8
    TOO_MANY_ENTITIES = 9
    DUPLICATE = 10
    ENTITY_TOO_RARE = 11
    ENTITY_HAS_ENOUGH = 12
    KEPT = 13

    @property
    def reason(self) -> str:
        """Its name in tables."""
        return self.name.lower()


_STEPS = {
    "text_in_picture": Step.TEXT_IN_PICTURE,
    "evaluation_duplicate": Step.EVALUATION_DUPLICATE,
    "type_denied": Step.TYPE_DENIED,
    "corrected": Step.CORRECTED,
    "picture_disagrees": Step.PICTURE_DISAGREES,
    "duplicate_exact": Step.DUPLICATE,
    "duplicate_near": Step.DUPLICATE,
    "entity_too_rare": Step.ENTITY_TOO_RARE,
    "entity_has_enough": Step.ENTITY_HAS_ENOUGH,
}
"""Of the reasons for which `select` refuses images that have candidates."""

ROWS = pa.schema(
    [
        ("file", pa.int32()),  # index into the version's files
        ("row", pa.int64()),
        ("key", pa.string()),
        ("shard", pa.string()),
        ("damaged", pa.bool_()),
        ("step", pa.int8()),  # at which the image was refused
        # Hashes: of the caption, and of what tells the pair from others if its place does not.
        ("caption", pa.uint64()),
        ("text", pa.uint64()),
        ("image", pa.uint64()),  # the first bytes of its sha256; null: not opened
        ("labels", pa.list_(pa.struct([("entity", pa.uint64()), ("score", pa.float32())]))),
        (
            "candidates",
            pa.list_(
                pa.struct(
                    [
                        ("id", pa.string()),
                        ("start", pa.int32()),
                        ("surface", pa.string()),
                        ("text_score", pa.float32()),
                        ("prior", pa.float32()),
                        ("kb_prior", pa.float32()),
                        ("clip", pa.float32()),
                        ("clip_z", pa.float32()),
                    ]
                )
            ),
        ),
    ]
)
_CANDIDATE = ROWS.field("candidates").type.value_type


@dataclass(frozen=True)
class VersionShard:
    """The labels of a shard, and its part of a selection's tables."""

    name: str
    file: str
    """Relative to the output of `label`."""
    pairs: int
    first_kept: int = 0
    kept: int = 0
    first_refused: int = 0


@dataclass
class LabelVersion:
    """Labels, and how they were decided; tables are read as needed."""

    path: Path
    i2e: Path
    selection: Selection | None
    run: dict[str, Any]
    rule: Rule
    shards: list[VersionShard]
    _open: dict[str, _RowRanges] = field(default_factory=dict)

    @cached_property
    def kb(self) -> KnowledgeBase:
        """The knowledge base of the labels."""
        return KnowledgeBase.open(Path(self.run["kb_path"]))

    @property
    def num_pairs(self) -> int:
        """Pairs of all shards."""
        return sum(shard.pairs for shard in self.shards)

    @property
    def settings(self) -> dict[str, Any]:
        """The selection's settings; empty for labels that nobody selected from."""
        return self.selection.card["settings"] if self.selection else {}

    @property
    def corrections(self) -> Corrections | None:
        """What people had said of the labels."""
        return self.selection.corrections if self.selection else None

    @property
    def looked(self) -> bool:
        """Whether an encoder looked at the images."""
        return self.run.get("model") is not None

    @cached_property
    def classes(self) -> np.ndarray:
        """Hashes of the ids of the selection's vocabulary."""
        assert self.selection is not None
        return hashes(self.selection.vocabulary["id"].combine_chunks())

    @cached_property
    def denied(self) -> np.ndarray:
        """Hashes of the entities whose types the selection denies."""
        types = self.settings.get("deny_types") or []
        if not types:
            return np.zeros(0, np.uint64)
        denied = pa.array(denied_entities(self.kb, types))
        return hashes(self.kb.ids.cast(pa.string()).filter(denied))

    def read(self, number: int, rows: pa.Table) -> pa.Table:
        """Adds to what `read_rows` gave of a shard how this version decided."""
        shard = self.shards[number]
        rows = _with_column(rows, "file", pa.array(np.full(len(rows), number, np.int32)))
        if self.selection is None:
            return _with_column(rows, "labels", self._best_labels(rows))
        kept = self._table("keep", ["row", "classes", "scores"], shard.first_kept, shard.kept)
        count = shard.pairs - shard.kept
        lost = self._table("refused", ["row", "reason"], shard.first_refused, count)
        row = kept["row"].to_numpy()
        lists = kept["classes"].combine_chunks()
        lengths = np.zeros(shard.pairs, np.int64)
        lengths[row] = lists.value_lengths().to_numpy()
        entity = self.classes[lists.flatten().to_numpy()]
        score = kept["scores"].combine_chunks().flatten().to_numpy()
        step = np.full(shard.pairs, Step.KEPT, np.int8)
        reason = lost["reason"].combine_chunks().dictionary_encode()
        steps = [_STEPS.get(name, Step.NOT_A_CANDIDATE) for name in reason.dictionary.to_pylist()]
        step[lost["row"].to_numpy()] = np.array(steps, np.int8)[reason.indices.to_numpy()]
        rows = _with_column(rows, "labels", _labels(lengths, entity, score))
        return _with_column(rows, "step", pa.array(step))

    def _table(self, name: str, columns: list[str], begin: int, count: int) -> pa.Table:
        assert self.selection is not None
        if name not in self._open:
            path = self.selection.folder / f"{name}.parquet"
            self._open[name] = _RowRanges(path, columns)
        return self._open[name].read(begin, begin + count)

    def _best_labels(self, rows: pa.Table) -> pa.Array:
        """Returns the chosen entities of labels that nobody selected from, each once per pair."""
        terms = terms_of(rows)
        choices = self.rule.decide(terms)
        row, entity = terms.row[choices.best], terms.entity[choices.best]
        order = np.lexsort((-choices.score, entity, row))
        order = order[run_starts(row[order], entity[order])]
        lengths = np.bincount(row[order], minlength=len(rows))
        return _labels(lengths, entity[order], choices.score[order])


class _RowRanges:
    """Reads ranges of rows of a Parquet file, fast if they follow each other."""

    def __init__(self, path: Path, columns: list[str]):
        self._file = pq.ParquetFile(path)
        self._columns = columns
        sizes = [
            self._file.metadata.row_group(i).num_rows for i in range(self._file.num_row_groups)
        ]
        self._ends = np.cumsum(sizes, dtype=np.int64)
        self._last: tuple[int, pa.Table] | None = None

    def read(self, begin: int, end: int) -> pa.Table:
        """Returns rows [begin, end)."""
        parts = [self._file.schema_arrow.empty_table().select(self._columns)]
        first = int(np.searchsorted(self._ends, begin, "right"))
        for group in range(first, len(self._ends)):
            low = int(self._ends[group - 1]) if group else 0
            if low >= end:
                break
            table = self._group(group)
            parts.append(table.slice(max(begin - low, 0), end - max(begin, low)))
        return pa.concat_tables(parts)

    def _group(self, number: int) -> pa.Table:
        if self._last is None or self._last[0] != number:
            self._last = number, self._file.read_row_group(number, self._columns)
        return self._last[1]


def open_version(path: Path | str) -> LabelVersion:
    """Opens the output of `label`, or a selection from it.

    Raises:
        InputError: the folder is neither.
        MismatchError: the labels were made again after the selection.
    """
    path = Path(path)
    if (path / "keep.parquet").is_file() and path.resolve().parent.name == "select":
        whole = path.resolve()
        selection = Selection(whole.parents[1], whole.name)
        if lost := [file for file in selection.files if not file.is_file()]:
            raise MismatchError(
                f"{lost[0]} is gone: its shard was labelled again; run `openmofi select "
                f"{selection.i2e} --name {selection.folder.name}` again."
            )
        tables = selection.shards.to_pylist()
        kept = np.cumsum([0] + [row["kept"] for row in tables]).tolist()
        pairs = np.cumsum([0] + [row["pairs"] for row in tables]).tolist()
        shards = [
            VersionShard(
                row["shard"], row["file"], row["pairs"], kept[i], row["kept"], pairs[i] - kept[i]
            )
            for i, row in enumerate(tables)
        ]
        run = json.loads((selection.i2e / "run.json").read_text())
        rule = rule_of_selection(selection)
        return LabelVersion(path, selection.i2e, selection, run, rule, shards)
    if not is_job(path):
        raise InputError(
            f"{str(path)!r} is neither an output folder of `openmofi label` nor a selection in it; "
            "expected a folder such as i2e, or i2e/select/default."
        )
    shards = [VersionShard(c.shard, c.file, c.rows) for c in commits_of(path, "labels")]
    run = json.loads((path / "run.json").read_text())
    return LabelVersion(path, path, None, run, rule_of_labels(), shards)


def read_rows(path: Path, *, whole: bool, named: bool) -> pa.Table:
    """Returns ROWS of a labels file, without what a version decided.

    Args:
        path: the file.
        whole: whether to read what two jobs' labels of a pair may differ in besides.
        named: whether to read the names that the candidates are of.
    """
    with pq.ParquetFile(path) as file:
        schema = file.schema_arrow.field("entities").type.value_type
        names = [f.name for f in _CANDIDATE if schema.get_field_index(f.name) >= 0]
        left_out = {*(() if whole else ("clip", "kb_prior")), *(() if named else ("surface",))}
        names = [name for name in names if name not in left_out]
        columns = ["key", "shard", "error", *(f"entities.list.element.{n}" for n in names)]
        if whole:
            columns += ["path", "caption", "url", "sha256"]
        table = file.read(columns)
    count, entities = len(table), table["entities"].combine_chunks()
    offsets, flat = _offsets(entities), entities.flatten()
    parts = [
        flat.field(f.name) if f.name in names else pa.nulls(len(flat), f.type) for f in _CANDIDATE
    ]
    candidates = pa.StructArray.from_arrays(parts, fields=list(_CANDIDATE))
    found: dict[str, Any] = {
        "file": pa.nulls(count, pa.int32()),
        "row": np.arange(count),
        "key": table["key"],
        "shard": table["shard"],
        "damaged": pc.not_equal(table["error"], ""),
        "step": pa.array(np.full(count, Step.KEPT, np.int8)),
        "caption": pa.nulls(count, pa.uint64()),
        "text": pa.nulls(count, pa.uint64()),
        "image": pa.nulls(count, pa.uint64()),
        "labels": pa.nulls(count, ROWS.field("labels").type),
        "candidates": pa.ListArray.from_arrays(offsets, candidates),
    }
    if whole:
        caption = table["caption"].fill_null("").combine_chunks()
        found["caption"] = hashes(caption)
        found["image"] = _image_words(table["sha256"].combine_chunks())
        key, path = (table[n].fill_null("").combine_chunks() for n in ("key", "path"))
        told = joined(found["caption"], hashes(table["url"].fill_null("").combine_chunks()))
        found["text"] = joined(np.where(_is_counted(key, path), 0, hashes(key)), told)
    return pa.table(found, schema=ROWS)


def _offsets(lists: pa.ListArray) -> pa.Array:
    """Returns where each list begins; null is an empty one."""
    lengths = lists.value_lengths().fill_null(0).to_numpy()
    return pa.array(np.r_[0, np.cumsum(lengths)], pa.int32())


def _image_words(digests: pa.FixedSizeBinaryArray) -> pa.Array:
    """Returns the first 64 bits of each image's sha256; null where none was opened."""
    data = digests.buffers()[1]
    words = np.frombuffer(data, np.uint64).reshape(-1, 4) if len(digests) else np.zeros((0, 4))
    words = words[digests.offset : digests.offset + len(digests), 0].astype(np.uint64)
    return pa.array(words, mask=~digests.is_valid().to_numpy(zero_copy_only=False))


def _is_counted(key: pa.Array, path: pa.Array) -> np.ndarray:
    """Returns which keys are only the numbers of rows, as pairs/rows.py makes them."""
    if not pc.any(pc.starts_with(path, "row:")).as_py():
        return np.zeros(len(key), bool)
    number = pc.utf8_slice_codeunits(path, 4)
    suffix = pc.binary_join_element_wise("", pc.utf8_lpad(number, 9, "0"), "-")
    ends = pc.equal(pc.utf8_slice_codeunits(key, -10), suffix)
    return pc.and_(pc.starts_with(path, "row:"), ends).to_numpy(zero_copy_only=False)


def _labels(lengths: np.ndarray, entity: np.ndarray, score: np.ndarray) -> pa.Array:
    kind = ROWS.field("labels").type
    arrays = [pa.array(entity, pa.uint64()), pa.array(score, pa.float32())]
    values = pa.StructArray.from_arrays(arrays, fields=list(kind.value_type))
    offsets = pa.array(np.r_[0, np.cumsum(lengths)], pa.int32())
    return pa.ListArray.from_arrays(offsets, values)


def _with_column(table: pa.Table, name: str, values: Any) -> pa.Table:
    return table.set_column(ROWS.get_field_index(name), ROWS.field(name), values)


def labels_of(rows: pa.Table) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns (row, entity, score) of every label of ROWS."""
    lists = rows["labels"].combine_chunks()
    row = np.repeat(np.arange(len(rows)), lists.value_lengths().fill_null(0).to_numpy())
    values = lists.flatten()
    return row, values.field("entity").to_numpy(), values.field("score").to_numpy()


def terms_of(rows: pa.Table) -> Terms:
    """Returns the candidates of ROWS."""
    lists = rows["candidates"].combine_chunks()
    flat = lists.flatten()
    number = {
        name: flat.field(name).to_numpy(zero_copy_only=False).astype(np.float32, copy=False)
        for name in ("text_score", "prior", "kb_prior", "clip", "clip_z")
    }
    kb_prior = np.where(np.isnan(number["kb_prior"]), number["prior"], number["kb_prior"])
    ids = flat.field("id")
    return Terms(
        np.repeat(np.arange(len(rows)), lists.value_lengths().fill_null(0).to_numpy()),
        flat.field("start").to_numpy(zero_copy_only=False),
        hashes(ids),
        number["text_score"],
        number["prior"],
        kb_prior,
        number["clip"],
        number["clip_z"],
        ids,
        None if flat.field("surface").null_count else flat.field("surface"),
    )
