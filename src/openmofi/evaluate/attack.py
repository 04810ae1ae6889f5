"""Labelled images -> a folder of typographic attacks on them, the same for every model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from openmofi.errors import InputError, SettingsError
from openmofi.evaluate.layouts import open_labelled
from openmofi.evaluate.metrics import nearest
from openmofi.evaluate.prompts import class_prompts
from openmofi.evaluate.typographic import chosen_words, write_attacks
from openmofi.evaluate.vectors import ModelVectors
from openmofi.files.folders import local_path
from openmofi.kb import KnowledgeBase


@dataclass(frozen=True)
class AttackSummary:
    """What was written."""

    out: Path
    images: int
    classes: int
    refused: dict[str, int]


def attack(
    model: str | Path,
    *,
    data: Path | str,
    out: Path | str,
    kb: Path | str | None = None,
    class_names: str | None = None,
    seed: int | None = None,
    device: str = "auto",
) -> AttackSummary:
    """Writes the name of another class on each image; see `evaluate.typographic`.

    Args:
        model: its mistakes decide which name is written on an image.
        data: labelled images in one of the layouts of `evaluate.layouts`.
        out: folder for images/ and attacks.csv.
        kb: knowledge base with the names and descriptions of the labels.
        class_names: see `evaluate`.
        seed: if given, names are drawn uniformly with it, whatever the model's mistakes.
        device: auto, cpu, cuda or cuda:N.

    Raises:
        InputError: the data is not labelled images or has one class, or the folder is not empty.
        SettingsError: the seed is negative.
    """
    out = local_path(out)
    if out.exists() and any(out.iterdir()):
        raise InputError(f"{str(out)!r} is not empty; choose a new folder for --out.")
    if seed is not None and seed < 0:
        raise SettingsError(f"--seed cannot be {seed}; expected a number from 0 up.")
    images = open_labelled(data)
    source = ModelVectors(model, device=device, cache=None)
    knowledge = KnowledgeBase.open(Path(kb)) if kb else None
    prompts = class_prompts(images.classes, images, knowledge, class_names)
    encoded, texts = source.images(images.places, "plain"), prompts.vectors(source.model)
    if not len(encoded.rows):
        raise InputError(f"None of the images of {str(data)!r} can be read.")
    answers = nearest(encoded.vectors, texts, 1, same=False)[0][:, 0]
    labels = images.codes(images.classes)[encoded.rows]
    words = chosen_words(answers, labels, texts, seed=seed)
    written = write_attacks(images, encoded.rows, words, prompts.names, out=out)
    return AttackSummary(out, written, len(images.classes), encoded.refused)
