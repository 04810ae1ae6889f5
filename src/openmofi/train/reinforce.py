"""Stores a teacher's vectors of a dataset: a model and a dataset -> the folder of teacher.py.

MobileCLIP's dataset reinforcement (arXiv 2311.17049, section 3): every image is augmented K times
and encoded by a teacher, and so are its texts; students then learn from the vectors at the cost of
reading them.

The teacher sees an image in its own resolution: as its own transform decodes it, then changed by
the same random numbers as the student's copy. These are shares of an image's sides and levels, so
both see the same crop and the same colours.

It is a job over shards like `embed`: each shard is a range of the images or of the entities, what
is finished is committed, and the same call goes on.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
from transformers import AutoConfig

import openmofi
from openmofi.arrays.random_keys import Purpose, random_key
from openmofi.config import ReinforceSettings, TrainSettings, override
from openmofi.embed.embed import THREADS
from openmofi.embed.places import is_selection, nothing_read
from openmofi.errors import InputError
from openmofi.files.folders import check_replaceable, local_path
from openmofi.label.encoder import model_digest
from openmofi.label.engine import absolute_model, check_outside, find_job_rank, open_engine
from openmofi.model.open_clip import is_open_clip
from openmofi.model.sides import refuse_model
from openmofi.pairs import find_shards
from openmofi.shards import JobWords, RunTotals, committed_files, freeze_plan, is_job
from openmofi.train.data import TrainData
from openmofi.train.datacompdr import is_reinforced
from openmofi.train.import_reinforced import import_reinforced
from openmofi.train.recipe import read_recipe
from openmofi.train.shard_reinforcer import (
    PAIRS,
    ShardReinforcer,
    TeacherJob,
    open_learnt,
    teacher_shards,
)
from openmofi.train.teacher import (
    STORE_VERSION,
    check_not_older,
    check_versions,
    read_card,
    what_was_seen,
)
from openmofi.train.texts import check_kinds

WORDS = JobWords("reinforce", "images", "encoded")


@dataclass(frozen=True)
class ReinforceSummary:
    """What was stored of a teacher."""

    out: Path
    images: int
    augmentations: int
    """Number of augmentations of each image."""
    texts: int
    dim: int
    unreadable: dict[str, int]
    """Number of images that could not be read, by reason; a student never sees them."""
    shards: RunTotals
    imported: bool = False
    """Whether they came with a dataset; `unreadable` then counts samples that were not used."""


def reinforce(
    teacher: str | Path,
    *,
    data: Path | str,
    recipe: Path | str | TrainSettings,
    out: Path | str,
    changes: dict | None = None,
    settings: ReinforceSettings | None = None,
) -> ReinforceSummary:
    """Stores a teacher's vectors of the images and texts that `train` uses with a recipe and data.

    Args:
        teacher: directory or hub id of a dual encoder, which may be one of open_clip's; or the tars
            of a reinforced dataset, see datacompdr.py, whose vectors are brought to these images.
        data: the student's training data.
        recipe: the student's recipe; its evaluation.holdout, seed and augment determine what the
            student sees, its precision is that of the teacher.
        out: directory to write; the same call continues where an earlier one was stopped.
        changes: settings that override the recipe's, as nested dicts.
        settings: see `config.ReinforceSettings`.

    Raises:
        InputError: there are no images, none can be read, the teacher does not read texts, or `out`
            holds something else or lies inside the data.
        SettingsError: a setting is impossible.
        MismatchError: the job was begun with another teacher, data or setting.
        OutputError: `out` cannot be written to, or its disk is full.
        TooManyErrors: more images were refused than `settings` allows.
    """
    settings, out = settings or ReinforceSettings(), local_path(out)
    rank = find_job_rank(settings)
    chosen = recipe if isinstance(recipe, TrainSettings) else read_recipe(recipe)
    chosen = override(chosen, changes or {})
    if is_reinforced(Path(teacher)):
        check_not_older(out)
        check_replaceable(out, _is_ours, "an output of `reinforce`")
        return _import(Path(teacher), data=data, recipe=chosen, out=out, settings=settings)
    check_versions(chosen.augment, settings.augmentations)
    if chosen.loss.synthetic is not None:  # for workers in other folders
        synthetic = str(Path(chosen.loss.synthetic).absolute())
        chosen = override(chosen, {"loss": {"synthetic": synthetic}})
    check_not_older(out)
    check_replaceable(out, _is_ours, "an output of `reinforce`")
    if not is_selection(Path(data)):
        check_outside(out, str(data), find_shards(data))
    digest = model_digest(str(teacher))
    _check_reads_texts(str(teacher))
    key = random_key(chosen.seed, Purpose.TEACHER)
    model, place = absolute_model(str(teacher)), absolute_model(str(data))
    images = open_learnt(place, out=out.absolute(), recipe=chosen)
    check_kinds(images, chosen.loss.text)
    counts = len(images), len(images.entity_ids)
    shards = teacher_shards(*counts)
    seen = what_was_seen(images, chosen.augment)
    job = TeacherJob(place, out.absolute(), model, chosen, key, settings, seen)
    run = seen | {
        "augmentations": settings.augmentations,
        "seed": key,
        "teacher": model,
        "digest": digest,
        "precision": chosen.precision,
        "version": openmofi.__version__,
        "store_version": STORE_VERSION,
    }
    freeze_plan(out, shards, run)
    held = {"model": model, "precision": chosen.precision, "threads": THREADS}
    with open_engine(partial(ShardReinforcer, job), settings, rank, **held) as engine:
        totals = engine.run(shards, out, WORDS)
    if not (totals.kept or totals.left or totals.failed):
        raise nothing_read(data, totals.errors)
    return ReinforceSummary(
        out=out,
        images=counts[0],
        augmentations=settings.augmentations,
        texts=counts[0] + 2 * counts[1] + _num_synthetic(images),
        dim=_dim(out),
        unreadable=totals.errors,
        shards=totals,
    )


def _import(
    tars: Path, *, data: Path | str, recipe: TrainSettings, out: Path, settings: ReinforceSettings
) -> ReinforceSummary:
    found = import_reinforced(tars, data=data, recipe=recipe, out=out, settings=settings)
    left = {"image_not_reinforced": found.images - found.shards.kept}
    return ReinforceSummary(
        out=out,
        images=found.images,
        augmentations=settings.augmentations,
        texts=found.texts,
        dim=found.dim,
        unreadable=found.shards.errors | {name: count for name, count in left.items() if count > 0},
        shards=found.shards,
        imported=True,
    )


def _num_synthetic(images: TrainData) -> int:
    places = np.arange(len(images))
    if images.synthetic is None:
        return 0
    return int(images.synthetic.counts[images.rows.of(places)].sum())


def _check_reads_texts(teacher: str) -> None:
    """Refuses a model that has no side for texts, without loading it.

    Raises:
        InputError: it has none, or there is no such model.
    """
    if is_open_clip(teacher):
        return  # which all have one
    try:
        config = None if teacher.endswith(".onnx") else AutoConfig.from_pretrained(teacher)
    except (OSError, ValueError) as error:
        refuse_model(teacher, error)
    if getattr(config, "text_config", None) is None:
        raise InputError(
            f"{teacher!r} does not encode both images and texts, which a teacher must; make a dual "
            "encoder of it with `openmofi pair`, or pass one such as openai/clip-vit-base-patch32."
        )


def _is_ours(out: Path) -> bool:
    """Returns whether a folder is one of ours, be it one that was only begun."""
    if (out / "run.json").is_file():
        return bool(read_card(out))
    return is_job(out) or (out / f".{PAIRS}.lock").is_file()


def _dim(out: Path) -> int:
    """Returns the length of the vectors; 0 before there are any."""
    for file in committed_files(out):
        with pa.memory_map(str(file)) as opened:
            fields = pa.ipc.open_file(opened).schema
        return fields.field(len(fields) - 1).type.list_size
    return 0
