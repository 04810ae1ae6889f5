"""The embedding job: images + encoder -> a folder of tables with vectors, or one Parquet file.

It runs shard by shard like `label`: what is finished is committed, and the same call goes on. A
file `photos.parquet` is joined at the end from the folder `photos.parquet.shards`, which is then
removed.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq
import torch

import openmofi
from openmofi.config import EmbedSettings, as_dict
from openmofi.embed.places import find_selected, is_selection, nothing_read
from openmofi.embed.shard_embedder import REFUSED, EmbedJob, ShardEmbedder
from openmofi.errors import InputError, SettingsError
from openmofi.files.folders import alone_in, check_replaceable, local_file, local_path, replace_file
from openmofi.label.encoder import model_digest
from openmofi.label.engine import (
    PLACEMENT,
    JobEngine,
    absolute_model,
    absolute_root,
    check_outside,
    find_job_rank,
    open_engine,
)
from openmofi.model import MofiModel
from openmofi.model.onnx_encoder import onnx_parts
from openmofi.pairs import Input, find_shards
from openmofi.schema import VECTORS_VERSION
from openmofi.shards import JobWords, RunTotals, commits, committed_files, freeze_plan, is_job
from openmofi.shards.ranks import Rank

WORDS = JobWords("embed", "images", "embedded")
_FILE = ".parquet"
THREADS = 4
"""Cores that one process keeps busy without a GPU: it encodes as many batches at once."""


@dataclass(frozen=True)
class EmbedSummary:
    """What was embedded."""

    out: Path
    rows: int
    dim: int
    refused: dict[str, int]
    shards: RunTotals
    job: Path
    """Directory of the job: `out`, or of a file the folder that it was joined from, which is
    removed unless shards failed or ended early."""


def embed(
    model: str | Path | MofiModel,
    source: Path | str,
    *,
    out: Path | str,
    settings: EmbedSettings | None = None,
) -> EmbedSummary:
    """Embeds every readable image of an input.

    Args:
        model: an encoder of images, its directory or hub id.
        source: tars, Parquet files, a folder or a listing, local or at a URL, or the output of
            `select`, whose entities are carried along.
        out: the directory to write, or a .parquet file to replace at the end; both have rows of
            schema.embeddings. Repeating the call continues an interrupted job.
        settings: see `config.EmbedSettings`.

    Raises:
        InputError: nothing can be read there.
        SettingsError: a setting is impossible.
        MismatchError: the job was begun with another input, encoder or setting.
        OutputError: `out` cannot be written to, or its disk is full.
        TooManyErrors: more images were refused than `settings` allows.
    """
    settings = settings or EmbedSettings()
    rank = find_job_rank(settings)
    is_file = Path(out).suffix == _FILE
    out = local_file(out) if is_file else local_path(out)
    if is_file and rank.size > 1:
        raise SettingsError(
            f"Several ranks cannot write one file; give --out a folder, such as "
            f"{str(out.with_suffix(''))!r}, which every verb reads as well."
        )
    selection = Path(source) if is_selection(Path(source)) else None
    found = find_shards(source) if selection is None else find_selected(selection)
    if selection is None:
        check_outside(out, str(source), found)
    if not is_file:
        _check_folder(out)
    run = _run_description(found, selection, model, settings)
    about = {
        "openmofi.model": run["model"],
        "openmofi.model_sha256": run["model_sha256"],
        "openmofi.root": str(found.root.resolve()),
        "openmofi.selection": run["selection"],
    }
    job = out.with_name(f"{out.name}.shards") if is_file else out
    place = (found.root.resolve(), selection and selection.resolve())
    made = EmbedJob(*place, run["model"], settings, about)
    with alone_in(job) if is_file else nullcontext():
        freeze_plan(job, found.shards, run)
        with _engine(made, model, rank) as engine:
            totals = engine.run(found.shards, job, WORDS)
        if not totals.kept and not totals.left:
            if is_file:
                shutil.rmtree(job)
            raise nothing_read(source, totals.errors | totals.reasons)
        if is_file:
            _join(job, out)
        if is_file and totals.done == totals.shards:
            shutil.rmtree(job)
    dim = _dim(out) if totals.kept else 0
    return EmbedSummary(out, totals.kept, dim, totals.errors, totals, job)


def _run_description(
    found: Input, selection: Path | None, model: str | Path | MofiModel, settings: EmbedSettings
) -> dict[str, Any]:
    """Returns what the vectors depend on; runs with the same description may share a directory."""
    if isinstance(model, (str, Path)):
        name, digest = absolute_model(str(model)), model_digest(str(model))
    else:
        name, digest = "", _weights_digest(model)
    return {
        "input": absolute_root(found),
        "selection": str(selection.resolve()) if selection else "",
        "model": name,
        "model_sha256": digest,
        "settings": {k: v for k, v in as_dict(settings).items() if k not in PLACEMENT},
        "version": openmofi.__version__,
        "vectors_version": VECTORS_VERSION,
    }


def _check_folder(out: Path) -> None:
    """Checks that a job may be begun or continued in a folder.

    Raises:
        InputError: it is a file, or a folder with other content.
    """
    if out.is_file():
        raise InputError(f"--out {str(out)!r} is a file; give a folder, or a name in {_FILE}.")
    check_replaceable(out, is_job, "an output of `embed`")


@contextmanager
def _engine(job: EmbedJob, model: str | Path | MofiModel, rank: Rank) -> Iterator[JobEngine]:
    """Yields what runs the job; a model in memory does so in this process.

    Raises:
        SettingsError: others were asked for.
    """
    settings = job.settings
    if isinstance(model, (str, Path)):
        held = {"model": job.model, "precision": settings.precision, "threads": THREADS}
        with open_engine(partial(ShardEmbedder, job), settings, rank, **held) as engine:
            yield engine
        return
    if settings.engine == "ray" or (settings.workers or 1) > 1:
        raise SettingsError(
            "A model in memory embeds in this process alone; pass its directory or hub id to use "
            "several."
        )
    yield JobEngine("local", 1, partial(ShardEmbedder, job, encoder=model), settings, rank)


def _weights_digest(model: MofiModel) -> str:
    """Returns what identifies a model in memory: a hash of its weights and transform."""
    digest = hashlib.sha256(repr(model.transform).encode())
    for name, weight in sorted(model.network.state_dict().items()):
        digest.update(name.encode())
        digest.update(weight.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    for name, part in onnx_parts(model.network).items():
        digest.update(name.encode())
        if part.file is not None:
            digest.update(model_digest(str(part.file)).encode())
    return digest.hexdigest()[:16]


def _join(job: Path, out: Path) -> None:
    """Writes the vectors of all finished shards into one file, and the refused rows beside it."""
    files = committed_files(job)
    made = pq.read_schema(files[0])
    with (
        replace_file(out) as partial_file,
        pq.ParquetWriter(partial_file, made, compression="zstd") as writer,
    ):
        for file in files:
            writer.write_table(pq.ParquetFile(file).read())
    refused = [job / commit.extra[REFUSED] for commit in commits(job) if REFUSED in commit.extra]
    beside = out.with_suffix(".refused.csv")
    if not refused:
        beside.unlink(missing_ok=True)
        return
    with replace_file(beside) as partial_file:
        csv.write_csv(pa.concat_tables(map(pq.read_table, refused)), partial_file)


def _dim(out: Path) -> int:
    """Returns the length of the vectors in an output."""
    file = committed_files(out)[0] if is_job(out) else out
    return pq.read_schema(file).field("vector").type.list_size
