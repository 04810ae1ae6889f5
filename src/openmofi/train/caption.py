"""The captioning job: images + an image-to-text model -> a folder of tables with captions.

It runs shard by shard like `embed`: what is finished is committed, and the same call goes on. The
folder is what `loss.synthetic` takes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pyarrow.parquet as pq

import openmofi
from openmofi.config import CaptionSettings, as_dict
from openmofi.embed.places import find_selected, is_selection, nothing_read
from openmofi.files.folders import check_replaceable, local_path
from openmofi.label.encoder import model_digest
from openmofi.label.engine import (
    PLACEMENT,
    absolute_model,
    absolute_root,
    check_outside,
    find_job_rank,
    open_engine,
)
from openmofi.pairs import find_shards
from openmofi.schema import CAPTIONS_VERSION
from openmofi.shards import JobWords, RunTotals, committed_files, freeze_plan, is_job
from openmofi.train.captioner import CaptionJob, ShardCaptioner, check_captions

WORDS = JobWords("caption", "images", "captioned")


@dataclass(frozen=True)
class CaptionSummary:
    """What was written."""

    out: Path
    images: int
    captions: int
    refused: dict[str, int]
    shards: RunTotals


def caption(
    model: str | Path,
    source: Path | str,
    *,
    out: Path | str,
    settings: CaptionSettings | None = None,
) -> CaptionSummary:
    """Writes captions of every readable image of an input.

    Args:
        model: directory or hub id of an image-to-text model that needs no instruction.
        source: tars, Parquet files, a folder or a listing, local or at a URL, or the output of
            `select`.
        out: directory to write; repeating the call continues an interrupted job.
        settings: see `config.CaptionSettings`.

    Raises:
        InputError: nothing can be read there, or the model writes no captions.
        SettingsError: a setting is impossible.
        MismatchError: the job was begun with another input, model or setting.
        OutputError: `out` cannot be written to, or its disk is full.
        TooManyErrors: more images were refused than `settings` allows.
    """
    settings, out = settings or CaptionSettings(), local_path(out)
    rank = find_job_rank(settings)
    selection = Path(source) if is_selection(Path(source)) else None
    found = find_shards(source) if selection is None else find_selected(selection)
    if selection is None:
        check_outside(out, str(source), found)
    check_replaceable(out, is_job, "an output of `caption`")
    check_captions(str(model))
    place = selection.resolve() if selection else None
    job = CaptionJob(found.root.resolve(), place, absolute_model(str(model)), settings)
    run = {
        "input": absolute_root(found),
        "selection": str(place or ""),
        "captioner": job.model,
        "captioner_sha256": model_digest(str(model)),
        "settings": {k: v for k, v in as_dict(settings).items() if k not in PLACEMENT},
        "version": openmofi.__version__,
        "captions_version": CAPTIONS_VERSION,
    }
    freeze_plan(out, found.shards, run)
    held = {"model": None, "precision": "fp32", "others": [job.model]}
    with open_engine(partial(ShardCaptioner, job), settings, rank, **held) as engine:
        totals = engine.run(found.shards, out, WORDS)
    if not (totals.kept or totals.left or totals.failed):
        raise nothing_read(source, totals.errors | totals.reasons)
    lists = [
        pq.read_table(file, columns=["synthetic"])["synthetic"] for file in committed_files(out)
    ]
    texts = sum(len(column.combine_chunks().flatten()) for column in lists)
    return CaptionSummary(out, totals.kept, texts, totals.errors, totals)
