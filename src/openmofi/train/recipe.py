"""Recipes: a YAML file -> TrainSettings, and which settings may change when a run is resumed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

import openmofi
from openmofi.config import TrainSettings, as_dict, override
from openmofi.errors import InputError, MismatchError, SettingsError
from openmofi.files.folders import replace_file
from openmofi.train.data import TrainData

_FREE_TO_CHANGE = frozenset(
    {
        "steps", "epochs", "examples", "threads", "workers", "device", "parallel", "compile",
        "grad_checkpointing", "micro_batch_size", "log_every", "checkpoint_every",
        "keep_checkpoints", "max_skipped", "loggers", "evaluation.every", "evaluation.max_images",
        "optim.learning_rate", "head.learning_rate", "data",
    }
)  # fmt: skip
"""Settings that may differ when a run is resumed; the data is compared by its content."""


def built_in_recipes() -> dict[str, Path]:
    """Returns the recipes of the package, by name."""
    package = Path(openmofi.__file__).parent
    folders = (package / "recipes", package.parents[1] / "recipes")  # in a wheel, in a checkout
    return {path.stem: path for folder in folders for path in sorted(folder.glob("*.yaml"))}


def read_recipe(recipe: Path | str) -> TrainSettings:
    """Returns the settings of a recipe.

    Args:
        recipe: a YAML file, or the name of a recipe of the package.

    Raises:
        InputError: there is no such recipe, or it is not YAML.
        SettingsError: it names a setting that does not exist.
    """
    path = Path(recipe)
    if not path.is_file():
        known = built_in_recipes()
        if str(recipe) not in known:
            raise InputError(
                f"There is no recipe {str(recipe)!r}; expected a YAML file or one of "
                f"{', '.join(known)}, as in `openmofi train finetune`."
            )
        path = known[str(recipe)]
    try:
        changes = yaml.safe_load(path.read_text()) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        first_line = str(error).splitlines()[0]
        raise InputError(f"The recipe {str(path)!r} is not YAML: {first_line}.") from None
    if not isinstance(changes, dict):
        raise InputError(f"The recipe {str(path)!r} must list settings, as in `steps: 500`.")
    return override(TrainSettings(), changes)


def with_steps(settings: TrainSettings, *, images: int) -> TrainSettings:
    """Returns settings with epochs or examples converted to steps.

    Raises:
        SettingsError: both are given.
    """
    if settings.epochs is not None and settings.examples is not None:
        raise SettingsError("epochs and examples are both set; give one of them.")
    wanted = settings.examples
    if settings.epochs is not None:
        wanted = round(settings.epochs * images)
    if wanted is None:
        return settings
    return replace(settings, steps=max(math.ceil(wanted / settings.batch_size), 1))


def check(settings: TrainSettings, data: TrainData) -> None:
    """Checks that the settings can be trained on the data.

    Raises:
        SettingsError: the settings contradict each other.
        InputError: the settings do not fit the data.
    """
    if settings.loss.supervised <= 0 and settings.loss.contrastive <= 0:
        raise SettingsError("loss.supervised and loss.contrastive are both 0; give one a weight.")
    if settings.loss.supervised > 0 and data.vocabulary is None:
        raise InputError(
            "This recipe needs entities and the data is raw pairs; run `openmofi label` and "
            "`openmofi select` first, or set loss.supervised=0."
        )
    if settings.balance > 0 and data.vocabulary is None:
        raise InputError("The data is raw pairs, which have no rare entities; set balance=0.")
    if settings.loss.teachers and settings.loss.contrastive <= 0:
        raise SettingsError("loss.teachers is set, but loss.contrastive is 0; give it a weight.")
    if settings.model.init is not None and settings.model.image_size is not None:
        raise SettingsError(
            "model.image_size has no effect with model.init, whose size is its own; leave it out."
        )
    evaluation = settings.evaluation
    if settings.wise_ft and (settings.model.init is None or not evaluation.holdout):
        raise SettingsError(
            "wise_ft averages the weights of model.init with the last ones by how they do on "
            "held-out images; set model.init and evaluation.holdout, or leave wise_ft out."
        )
    if settings.wise_ft and settings.loss.supervised > 0 and settings.head.start == "random":
        raise SettingsError(
            "wise_ft would average trained class rows with random ones; set head.start=means."
        )
    if evaluation.holdout_entities and data.vocabulary is None:
        raise InputError(
            "The data is raw pairs, which have no entities to hold out; leave out "
            "evaluation.holdout_entities."
        )
    if len(data) < settings.batch_size:
        raise InputError(
            f"The data has {len(data)} images, fewer than a batch; lower it with "
            f"--set batch_size={max(len(data) // 4, 1)}."
        )


def check_place(out: Path, settings: TrainSettings, *, resume: bool) -> None:
    """Checks that a directory is new, or belongs to the run to resume.

    Raises:
        MismatchError: it holds another run, or it holds a run and `resume` is false.
        InputError: its config.yaml holds no settings.
    """
    config = out / "config.yaml"
    if not config.is_file():
        return
    if not resume:
        raise MismatchError(
            f"{str(out)!r} already holds a run; add --resume to continue, or choose another --out."
        )
    held = yaml.safe_load(config.read_text())
    if not isinstance(held, dict):
        raise InputError(f"{str(config)!r} holds no settings; delete it, or choose another --out.")
    # A setting that the run did not know yet had no effect on it, which its default has not either.
    before = dict(_flat(as_dict(TrainSettings()))) | dict(_flat(held))
    now = dict(_flat(as_dict(settings)))
    changed = sorted(
        name
        for name in (before.keys() | now.keys()) - _FREE_TO_CHANGE
        if before.get(name) != now.get(name)
    )
    if changed:
        raise MismatchError(
            f"{str(out)!r} was started with other settings ({', '.join(changed)}); resume with "
            "the same ones, or choose another --out."
        )


def write_config(out: Path, settings: TrainSettings, data: Path) -> None:
    """Writes the settings of a run, including all defaults."""
    resolved = {**as_dict(settings), "data": str(data)}
    with replace_file(out / "config.yaml") as partial:
        partial.write_text(yaml.safe_dump(resolved, sort_keys=False))


def _flat(settings: dict[str, Any], where: str = "") -> Iterator[tuple[str, Any]]:
    """Yields ("loss.text", value) for nested settings."""
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{where}{name}.")
        else:
            yield f"{where}{name}", value
