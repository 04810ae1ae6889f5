"""The labelling job: pairs + knowledge base + encoder -> i2e/, one row per image.

The table keeps every candidate with every term of its score; `select` decides later, in seconds,
what to keep.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import openmofi
from openmofi.config import LabelSettings, as_dict
from openmofi.errors import InputError, SettingsError
from openmofi.files.folders import local_path
from openmofi.kb import KnowledgeBase
from openmofi.label.background import BACKGROUND_FILE, write_background
from openmofi.label.encoder import default_workers, model_digest, start_encoders
from openmofi.label.entity_vectors import place
from openmofi.label.fusion import ENTITIES, check_fusion
from openmofi.label.shard_labeller import Job, ShardLabeller
from openmofi.link.crawl_priors import read_crawl_priors
from openmofi.pairs import Input, find_shards
from openmofi.schema import LABELS_VERSION
from openmofi.shards import RunTotals, freeze_plan, run_shards
from openmofi.shards.job import Engine, parse_retry
from openmofi.shards.ranks import Rank, choose_rank

_PLACEMENT = (
    *("workers", "engine", "rank", "world_size", "device", "batch_size"),
    *("ray_address", "encoders", "retry", "fail_if_error_rate"),
)
"""Settings that change where and when the work is done, but not its result."""


def label(
    source: Path | str,
    *,
    kb: Path | str,
    model: str | Path | None = None,
    out: Path | str,
    settings: LabelSettings | None = None,
) -> RunTotals:
    """Labels every pair of the input with scored candidate entities.

    Args:
        source: tars, Parquet files, a folder or a listing, local or at a URL (see
            `pairs.find_shards`).
        kb: output of `kb.build_kb`.
        model: hub id or directory of any dual encoder; without one, the text alone is scored.
        out: the i2e directory; repeating the call continues an interrupted job.
        settings: see `config.LabelSettings`.

    Raises:
        InputError: an input is missing or unreadable as a whole.
        SettingsError: a setting is impossible, or needs a model.
        MismatchError: `out` was begun with other inputs or settings.
        OutputError: `out` cannot be written to, or its disk is full.
        TooManyErrors: more pairs were refused than `settings` allows.
    """
    settings = settings or LabelSettings()
    rank = Rank(0, 1, "alone")
    if settings.engine == "rank":
        rank = choose_rank(settings.rank, settings.world_size, os.environ)
    elif settings.rank is not None or settings.world_size is not None:
        raise SettingsError("--rank and --world-size need --engine rank.")
    out, kb, name = local_path(out), Path(kb), None if model is None else str(model)
    parse_retry(settings.retry)
    needs_model = {
        "--context model": settings.context == "model",
        "--keep-embeddings": settings.keep_embeddings,
    }
    for flag, is_given in needs_model.items():
        if is_given and name is None:
            raise SettingsError(f"{flag} needs an encoder; add --model, or leave {flag} out.")
    context = None if settings.context in ("words", "model") else settings.context
    found = find_shards(source)
    _check_place(out, str(source), found)
    _warn_of_known_captions(name, source)
    knowledge = KnowledgeBase.open(kb)
    priors = _priors_file(settings.priors, knowledge)
    if settings.fusion is not None:
        reader = Path(settings.fusion).resolve()
        check_fusion(reader, standardised=settings.context != "words")
        settings = replace(settings, fusion=str(reader))
    run = _run_description(found, knowledge, kb, name, context, settings)
    freeze_plan(out, found.shards, run)

    def vectors_of(digest: str) -> Path:
        return place(kb.resolve(), out.resolve(), f"{digest}-{settings.precision}")

    job = Job(
        found.root.resolve(),
        kb.resolve(),
        _absolute(name),
        out.resolve(),
        replace(settings, context=_absolute(context) or settings.context, priors=priors),
        vectors_of(run["model_sha256"]),
        vectors_of(run["context_sha256"]) if context else None,
    )
    with _engine(job) as (engine, workers, make_labeller):
        if name and not (out / BACKGROUND_FILE).is_file():
            first = make_labeller()
            calls = {"draws": first.background_draws, "sample": first.background_sample}
            write_background(out, found.shards, settings.background, **calls)
        return run_shards(
            make_labeller,
            found.shards,
            out=out,
            engine=engine,
            workers=workers,
            rank=rank.number,
            world_size=rank.size,
            retry=settings.retry,
            fail_if_error_rate=settings.fail_if_error_rate,
        )


def _priors_file(path: str | None, kb: KnowledgeBase) -> str | None:
    """Returns the absolute path of a crawl's priors; says so if they change nothing.

    Raises:
        InputError: the file does not hold such priors.
        MismatchError: they are for another knowledge base.
    """
    if path is None:
        return None
    if off := read_crawl_priors(path, kb).off:
        print(f"{path} changes nothing: {off}", file=sys.stderr)
    return str(Path(path).resolve())


def _absolute(model: str | None) -> str | None:
    """Returns a directory's absolute path: other machines do not share the working directory."""
    return str(Path(model).resolve()) if model and Path(model).is_dir() else model


def _warn_of_known_captions(model: str | None, source: Path | str) -> None:
    """Says so if `openmofi pair` made the encoder out of these very captions."""
    card = Path(model or "").parent / "pair.json"
    if model is None or not card.is_file():
        return
    if json.loads(card.read_text()).get("data") == str(Path(source).resolve()):
        print(
            f"{model} was paired on these very captions, so wrong ones look right to it; pair on "
            "one half of the data and label the other.",
            file=sys.stderr,
        )


@contextmanager
def _engine(job: Job) -> Iterator[tuple[Engine, int, Any]]:
    """Yields (engine, workers, a function that makes each process's labeller)."""
    settings = job.settings
    if settings.engine != "ray":
        models = [job.model] if job.model else []
        models += [settings.context] if job.context_vectors else []
        models += [settings.fusion, f"{settings.fusion}/{ENTITIES}"] if settings.fusion else []
        workers = settings.workers or default_workers(models, settings.device)
        yield "local", workers, partial(ShardLabeller, job, workers=workers)
        return
    from openmofi.shards.ray_tasks import connected, import_ray

    with connected(settings.ray_address):
        resources = import_ray().cluster_resources()
        workers = settings.workers or int(resources.get("CPU", 1))
        count = settings.encoders
        if count is None:
            count = int(resources.get("GPU", 0)) if settings.device != "cpu" else 0
        remote = None
        if job.model and count:
            options = {"device": settings.device, "precision": settings.precision}
            remote = start_encoders(job.model, **options, count=count)
        yield "ray", workers, partial(ShardLabeller, job, workers=workers, encoder=remote)


def _check_place(out: Path, source: str, found: Input) -> None:
    """Rejects an output inside the input, where its tables would be read as input later."""
    tars = all(shard.kind == "tar" for shard in found.shards)
    folder = Path(source)
    if folder.is_dir() and not tars and out.resolve().is_relative_to(folder.resolve()):
        raise InputError(
            f"--out {str(out)!r} lies inside the input {source!r}, where its tables would "
            "be taken for shards the next time; choose a folder outside it."
        )


def _run_description(
    found: Input,
    knowledge: KnowledgeBase,
    kb: Path,
    model: str | None,
    context: str | None,
    settings: LabelSettings,
) -> dict[str, Any]:
    """Returns what the labels depend on; runs with the same description may share a directory."""
    root = str(found.root)
    # Their contents count, not their place; and runs of earlier versions had none.
    left_out = {*_PLACEMENT, "priors", "fusion", *(() if settings.fusion else ("read_above",))}
    return {
        "input": root if "://" in root else os.path.realpath(root),
        "kb": knowledge.fingerprint,
        "kb_path": str(kb.resolve()),
        "model": model,
        "model_sha256": model_digest(model),
        **({"context_sha256": model_digest(context)} if context else {}),
        **({"priors_sha256": model_digest(settings.priors)} if settings.priors else {}),
        **({"fusion_sha256": model_digest(settings.fusion)} if settings.fusion else {}),
        "settings": {k: v for k, v in as_dict(settings).items() if k not in left_out},
        "version": openmofi.__version__,
        "labels_version": LABELS_VERSION,
    }
