"""The labelling job: pairs + knowledge base + encoder -> i2e/, one row per image.

The table keeps every candidate with every term of its score; `select` decides later, in seconds,
what to keep.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import openmofi
from openmofi.config import LabelSettings, as_dict
from openmofi.errors import SettingsError
from openmofi.files.folders import local_path
from openmofi.kb import KnowledgeBase
from openmofi.label.background import BACKGROUND_FILE, write_background
from openmofi.label.earlier import check_onto, older_kb
from openmofi.label.encoder import model_digest
from openmofi.label.engine import (
    PLACEMENT,
    absolute_model,
    absolute_root,
    check_outside,
    find_job_rank,
    open_engine,
)
from openmofi.label.entity_vectors import carry_vectors, place
from openmofi.label.fusion import ENTITIES, check_fusion
from openmofi.label.second_look import SECOND_LOOK_FILE, write_second_look
from openmofi.label.shard_labeller import Job, ShardLabeller
from openmofi.link.crawl_priors import read_crawl_priors
from openmofi.pairs import Input, find_shards
from openmofi.schema import LABELS_VERSION
from openmofi.shards import JobWords, RunTotals, freeze_plan, plan_table


def label(
    source: Path | str,
    *,
    kb: Path | str,
    model: str | Path | None = None,
    then: str | Path | None = None,
    out: Path | str,
    settings: LabelSettings | None = None,
    onto: Path | str | None = None,
) -> RunTotals:
    """Labels every pair of the input with scored candidate entities.

    Args:
        source: tars, Parquet files, a folder or a listing, local or at a URL (see
            `pairs.find_shards`).
        kb: output of `kb.build_kb`.
        model: hub id or directory of any dual encoder; without one, the text alone is scored.
        then: a second, larger encoder, which looks only at images where that may change a label;
            see `second_look`.
        out: the i2e directory; repeating the call continues an interrupted job.
        settings: see `config.LabelSettings`.
        onto: output of an earlier job that differs in nothing but the knowledge base; its images
            are looked at again only where that matters, see `earlier`. The labels are the same.

    Raises:
        InputError: an input is missing or unreadable as a whole.
        SettingsError: a setting is impossible, or needs a model, or both encoders are the same.
        MismatchError: `out` was begun with other inputs or settings, or `onto` was.
        OutputError: `out` cannot be written to, or its disk is full.
        TooManyErrors: more pairs were refused than `settings` allows.
    """
    settings = settings or LabelSettings()
    rank = find_job_rank(settings)
    out, kb, name = local_path(out), Path(kb), None if model is None else str(model)
    needs_model = {
        "--context model": settings.context == "model",
        "--keep-embeddings": settings.keep_embeddings,
        "--then": then is not None,
    }
    for flag, is_given in needs_model.items():
        if is_given and name is None:
            raise SettingsError(f"{flag} needs an encoder; add --model, or leave {flag} out.")
    then = None if then is None else str(then)
    _check_then(name, then, settings, onto)
    context = None if settings.context in ("words", "model") else settings.context
    found = find_shards(source)
    check_outside(out, str(source), found)
    _warn_of_known_captions(name, source)
    knowledge = KnowledgeBase.open(kb)
    priors = _priors_file(settings.priors, knowledge)
    if settings.fusion is not None:
        reader = Path(settings.fusion).resolve()
        check_fusion(reader, standardised=settings.context != "words")
        settings = replace(settings, fusion=str(reader))
    run = _run_description(found, knowledge, kb, name, context, then, settings)
    if onto is not None:
        onto = Path(onto).resolve()
        check_onto(onto, run, plan_table(found.shards))
    freeze_plan(out, found.shards, run)

    precision = settings.precision
    if precision == "auto" and (name or context):
        precision = _auto_precision(settings.device)

    def vectors_of(digest: str) -> Path:
        return place(kb.resolve(), out.resolve(), f"{digest}-{precision}")

    job = Job(
        found.root.resolve(),
        kb.resolve(),
        absolute_model(name) if name else None,
        out.resolve(),
        replace(
            settings,
            context=absolute_model(context) if context else settings.context,
            priors=priors,
        ),
        vectors_of(run["model_sha256"]),
        vectors_of(run["context_sha256"]) if context else None,
        onto,
        absolute_model(then) if then else None,
        vectors_of(run["then_sha256"]) if then else None,
    )
    if onto is not None:
        digests = [name for name in ("model_sha256", "context_sha256") if run.get(name)]
        _carry_vectors(onto, knowledge, [vectors_of(run[name]) for name in digests])
    others = [job.settings.context] if job.context_vectors else []
    if settings.fusion:
        others += [settings.fusion, f"{settings.fusion}/{ENTITIES}"]
    held = {"model": job.model, "then": job.then, "others": others}
    with open_engine(
        partial(ShardLabeller, job), settings, rank, precision=settings.precision, **held
    ) as engine:
        begun = (out / (SECOND_LOOK_FILE if then else BACKGROUND_FILE)).is_file()
        if name and not begun:
            first = engine.make()
            calls = {"draws": first.background_draws, "sample": first.background_sample}
            if not (out / BACKGROUND_FILE).is_file():
                write_background(out, found.shards, settings.background, **calls)
            if then:
                write_second_look(out, *first.learn_second_look())
        return engine.run(found.shards, out, JobWords())


def _check_then(
    model: str | None, then: str | None, settings: LabelSettings, onto: Path | str | None
) -> None:
    """Refuses a second encoder that cannot do anything, and settings of one that is not there."""
    usual = LabelSettings()
    for name in ("then_share", "then_rate"):
        if then is None and getattr(settings, name) != getattr(usual, name):
            flag = f"--{name.replace('_', '-')}"
            raise SettingsError(f"{flag} needs a second encoder; add --then, or leave {flag} out.")
    if then is None:
        return
    if onto is not None:
        raise SettingsError(
            "--onto cannot be combined with --then: which images the second encoder looked at "
            "depends on the earlier knowledge base; leave out one of them."
        )
    if model_digest(then) == model_digest(model):
        raise SettingsError(
            f"--then {then} is the encoder of --model; pass a larger one, or leave --then out."
        )


def _auto_precision(device: str) -> str:
    """Returns in which numbers `auto` computes here: vectors of two kinds share no file."""
    from openmofi.model.mofi import pick_device
    from openmofi.model.precision import dtype_of

    return str(dtype_of("auto", pick_device(device))).removeprefix("torch.")


def _carry_vectors(onto: Path, kb: KnowledgeBase, files: list[Path]) -> None:
    """Copies the vectors of entities whose texts the earlier knowledge base has, too."""
    older = older_kb(onto)
    for path in files:
        for folder in (older.path, onto):
            carry_vectors((older, folder / path.parent.name / path.name), (kb, path))


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


def _run_description(
    found: Input,
    knowledge: KnowledgeBase,
    kb: Path,
    model: str | None,
    context: str | None,
    then: str | None,
    settings: LabelSettings,
) -> dict[str, Any]:
    """Returns what the labels depend on; runs with the same description may share a directory."""
    # Their contents count, not their place; and runs of earlier versions had none.
    left_out = {*PLACEMENT, "priors", "fusion", *(() if settings.fusion else ("read_above",))}
    left_out |= set() if then else {"then_share", "then_rate"}
    return {
        "input": absolute_root(found),
        "kb": knowledge.fingerprint,
        "kb_path": str(kb.resolve()),
        "model": model,
        "model_sha256": model_digest(model),
        **({"then": then, "then_sha256": model_digest(then)} if then else {}),
        **({"context_sha256": model_digest(context)} if context else {}),
        **({"priors_sha256": model_digest(settings.priors)} if settings.priors else {}),
        **({"fusion_sha256": model_digest(settings.fusion)} if settings.fusion else {}),
        "settings": {k: v for k, v in as_dict(settings).items() if k not in left_out},
        "version": openmofi.__version__,
        "labels_version": LABELS_VERSION,
    }
