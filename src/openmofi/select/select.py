"""The decision: i2e/labels -> i2e/select/<name>/{keep, refused, vocabulary}.parquet, card.json.

Reads the labels, never touches them; with other thresholds it takes seconds to redo.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import openmofi
from openmofi.config import SelectSettings, as_dict
from openmofi.errors import InputError, SettingsError
from openmofi.folders import new_folder
from openmofi.kb import KnowledgeBase
from openmofi.progress import track
from openmofi.schema import KEEP, REFUSED, VOCABULARY
from openmofi.select.calibrate import Calibration, calibrate
from openmofi.select.choose import Choice, choose
from openmofi.shards import committed_files, planned_shards


@dataclass(frozen=True)
class SelectSummary:
    """What was kept, what was not, and why."""

    out: Path
    images: int
    """Pairs in the labels."""
    kept: int
    labels: int
    classes: int
    refused: dict[str, int]
    threshold: float | None
    calibration: Calibration | None
    missing_shards: int
    """Shards of the input that are not labelled yet, or failed."""


@dataclass(frozen=True)
class _Labels:
    """Kept labels as flat arrays: one element per (image, entity)."""

    file: np.ndarray
    row: np.ndarray
    entity: np.ndarray
    score: np.ndarray


def select(
    i2e: Path | str, *, name: str = "default", settings: SelectSettings | None = None
) -> SelectSummary:
    """Decides which labels and images to keep.

    Args:
        i2e: output of `label`.
        name: of this selection; an existing one of that name is replaced.
        settings: see `config.SelectSettings`.

    Raises:
        InputError: there are no labels, or nothing of them passes.
    """
    settings = settings or SelectSettings()
    i2e = Path(i2e)
    _check_name(name)
    files = committed_files(i2e)
    if not files:
        raise InputError(f"{str(i2e)!r} holds no finished shard; run `openmofi label` first.")
    choices = [choose(file, settings.order) for file in track(files, "select", unit="shards")]
    calibration, threshold = _threshold(choices, settings)
    ids, agreed = _agreed(choices, threshold, settings.max_entities)
    counts = np.bincount(agreed.entity, minlength=len(ids))
    frequent = counts[agreed.entity] >= settings.min_images
    kept = _Labels(*(getattr(agreed, f)[frequent] for f in ("file", "row", "entity", "score")))
    mentions = sum(len(choice.row) for choice in choices)
    if not mentions:
        raise InputError(
            f"No caption of {str(i2e)!r} names an entity of the knowledge base; label with one "
            "that holds the things your captions speak of."
        )
    if not len(kept.row):
        raise InputError(
            f"No label of {str(i2e)!r} passes: of {mentions:,} names in captions "
            f"{len(agreed.row):,} agree with their picture, and no entity has "
            f"{settings.min_images} images; lower --min-images or raise --false-label-rate."
        )
    out = i2e / "select" / name
    run = json.loads((i2e / "run.json").read_text())
    with new_folder(out) as partial:
        class_of = _write_vocabulary(partial, ids, kept, Path(run["kb_path"]))
        images, refused = _write_rows(partial, files, choices, agreed, kept, class_of)
        summary = SelectSummary(
            out,
            images=images,
            kept=images - sum(refused.values()),
            labels=len(kept.row),
            classes=int((class_of >= 0).sum()),
            refused=dict(refused.most_common()),
            threshold=threshold,
            calibration=calibration,
            missing_shards=planned_shards(i2e) - len(files),
        )
        _write_card(partial, summary, settings, run, i2e)
    return summary


def _check_name(name: str) -> None:
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise SettingsError(
            f"A selection cannot be called {name!r}; use letters, digits, '-', '_' and '.'."
        )


def _threshold(
    choices: list[Choice], settings: SelectSettings
) -> tuple[Calibration | None, float | None]:
    """Returns (how the threshold was found, the threshold); None where nothing is refused."""
    if settings.order == "caption-match":
        return None, None
    if settings.threshold is not None:
        return None, settings.threshold
    calibration = calibrate(
        np.concatenate([choice.clip_z for choice in choices]),
        np.concatenate([choice.clip_z_other for choice in choices]),
        false_label_rate=settings.false_label_rate,
    )
    return calibration, calibration.threshold


def _agreed(
    choices: list[Choice], threshold: float | None, max_entities: int
) -> tuple[list[str], _Labels]:
    """Returns the labels that the picture does not contradict, best first within an image."""
    ids = sorted({entity for choice in choices for entity in choice.ids.to_pylist()})
    number = {entity: i for i, entity in enumerate(ids)}
    parts = []
    for file, choice in enumerate(choices):
        keep = np.ones(len(choice.row), bool) if threshold is None else choice.clip_z >= threshold
        entity = np.array([number[i] for i in choice.ids.to_pylist()], dtype=np.int64)[keep]
        parts.append((np.full(len(entity), file), choice.row[keep], entity, choice.score[keep]))
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    file, row, entity, score = columns
    order = np.lexsort((-score, entity, row, file))
    labels = _take(columns, order[_first_of_each(file[order], row[order], entity[order])])
    order = np.lexsort((labels.entity, -labels.score, labels.row, labels.file))
    place = _place_within(labels.file[order], labels.row[order])
    columns = [labels.file, labels.row, labels.entity, labels.score]
    return ids, _take(columns, order[place < max_entities])


def _take(columns: list[np.ndarray], index: np.ndarray) -> _Labels:
    return _Labels(*(column[index] for column in columns))


def _first_of_each(*keys: np.ndarray) -> np.ndarray:
    """Returns where a new combination of sorted keys begins."""
    if not len(keys[0]):
        return np.zeros(0, dtype=bool)
    changed = np.zeros(len(keys[0]) - 1, dtype=bool)
    for key in keys:
        changed |= key[1:] != key[:-1]
    return np.r_[True, changed]


def _place_within(*keys: np.ndarray) -> np.ndarray:
    """Returns each element's place within its run of equal keys, from 0."""
    begins = np.flatnonzero(_first_of_each(*keys))
    lengths = np.diff(np.r_[begins, len(keys[0])])
    return np.arange(len(keys[0])) - np.repeat(begins, lengths)


def _write_vocabulary(out: Path, ids: list[str], kept: _Labels, kb: Path) -> np.ndarray:
    """Writes vocabulary.parquet, most images first; returns the class of each entity, or -1."""
    counts = np.bincount(kept.entity, minlength=len(ids))
    order = sorted(np.flatnonzero(counts), key=lambda entity: (-counts[entity], ids[entity]))
    class_of = np.full(len(ids), -1)
    class_of[order] = np.arange(len(order))
    knowledge = KnowledgeBase.open(kb)
    chosen = [ids[entity] for entity in order]
    rows, texts = pa.array(knowledge.rows_of(chosen), pa.int64()), knowledge.texts
    table = pa.table(
        {
            "id": chosen,
            "label": texts.label.take(rows).cast(pa.string()),
            "description": texts.description.take(rows).cast(pa.string()),
            "images": counts[order],
        },
        schema=VOCABULARY,
    )
    pq.write_table(table, out / "vocabulary.parquet")
    return class_of


def _write_rows(
    out: Path,
    files: list[Path],
    choices: list[Choice],
    agreed: _Labels,
    kept: _Labels,
    class_of: np.ndarray,
) -> tuple[int, Counter[str]]:
    """Writes keep.parquet and refused.parquet; returns (images seen, refused by reason)."""
    images, refused = 0, Counter()
    with (
        pq.ParquetWriter(out / "keep.parquet", KEEP) as keep_file,
        pq.ParquetWriter(out / "refused.parquet", REFUSED) as refused_file,
    ):
        for number, (path, choice) in enumerate(zip(files, choices, strict=True)):
            columns = [name for name in KEEP.names if name not in ("row", "classes", "scores")]
            table = pq.read_table(path, columns=[*columns, "status", "error"])
            mine = kept.file == number
            keep_file.write_table(_kept_rows(table.select(columns), kept, mine, class_of))
            reasons = _reasons(table, choice, agreed.row[agreed.file == number], kept.row[mine])
            refused.update(reason for reason in reasons if reason)
            refused_file.write_table(_refused_rows(table, reasons))
            images += len(table)
    return images, refused


def _kept_rows(table: pa.Table, kept: _Labels, mine: np.ndarray, class_of: np.ndarray) -> pa.Table:
    row, classes, scores = kept.row[mine], class_of[kept.entity[mine]], kept.score[mine]
    begins = np.flatnonzero(_first_of_each(row))
    offsets = pa.array(np.r_[begins, len(row)], pa.int32())
    rows = row[begins]
    columns = {name: table[name].take(pa.array(rows)) for name in table.column_names}
    columns["row"] = pa.array(rows, pa.int64())
    columns["classes"] = pa.ListArray.from_arrays(offsets, pa.array(classes, pa.int32()))
    columns["scores"] = pa.ListArray.from_arrays(offsets, pa.array(scores, pa.float32()))
    return pa.table(columns, schema=KEEP)


def _reasons(table: pa.Table, choice: Choice, agreed: np.ndarray, kept: np.ndarray) -> list[str]:
    """Returns for each row why it was refused, or "" if it was kept."""
    reasons = np.full(len(table), "no_mention", dtype=object)
    reasons[choice.row] = "picture_disagrees"
    reasons[agreed] = "entity_too_rare"
    reasons[kept] = ""
    errors = np.array(table["error"].to_pylist(), dtype=object)
    return np.where(errors != "", errors, reasons).tolist()


def _refused_rows(table: pa.Table, reasons: list[str]) -> pa.Table:
    rows = np.flatnonzero([bool(reason) for reason in reasons])
    taken = table.take(pa.array(rows))
    return pa.table(
        {
            "key": taken["key"],
            "shard": taken["shard"],
            "row": rows,
            "caption": taken["caption"],
            "reason": [reasons[row] for row in rows],
        },
        schema=REFUSED,
    )


def _write_card(
    out: Path, summary: SelectSummary, settings: SelectSettings, run: dict, i2e: Path
) -> None:
    calibration = asdict(summary.calibration) if summary.calibration else None
    card = {
        "openmofi": openmofi.__version__,
        "input": run["input"],
        "i2e": str(i2e.resolve()),
        "kb": run["kb_path"],
        "model": run["model"],
        "settings": as_dict(settings),
        "threshold": summary.threshold,
        "calibration": calibration,
        "missing_shards": summary.missing_shards,
        "funnel": {
            "pairs": summary.images,
            "refused": summary.refused,
            "kept_images": summary.kept,
            "kept_labels": summary.labels,
            "entities": summary.classes,
        },
    }
    (out / "card.json").write_text(json.dumps(card, indent=2, ensure_ascii=False) + "\n")
