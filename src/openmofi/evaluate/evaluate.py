"""The evaluation: a model and labelled images -> scores, one benchmark per file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np

import openmofi
from openmofi.embed import encode_places
from openmofi.errors import InputError
from openmofi.evaluate.data import LabelledImages
from openmofi.evaluate.knn import knn
from openmofi.evaluate.layouts import open_labelled
from openmofi.evaluate.retrieval import retrieval
from openmofi.evaluate.zeroshot import class_vectors, zero_shot
from openmofi.kb import KnowledgeBase
from openmofi.model import MofiModel, load_model
from openmofi.progress import progress


@dataclass(frozen=True)
class Scores:
    """Scores of one model on one dataset."""

    model: str
    dataset: str
    images: int
    classes: int
    unreadable: int
    """Pictures that were left out because they cannot be decoded."""
    metrics: dict[str, float]


def evaluate(
    model: str | Path | MofiModel,
    *,
    data: Mapping[str, Path | str],
    out: Path | str | None = None,
    kb: Path | str | None = None,
    device: str = "auto",
) -> list[Scores]:
    """Measures retrieval mAP and top-1, kNN and zero-shot accuracy on each dataset.

    Args:
        model: a dual encoder, its directory or hub id.
        data: name -> path in one of the layouts of `evaluate.data`.
        out: directory for scores.json; None writes nothing.
        kb: knowledge base with the names and descriptions of the labels.
        device: auto, cpu, cuda or cuda:N.

    Raises:
        InputError: no data, or data in no known layout.
    """
    if not data:
        raise InputError("Nothing to evaluate on; pass --data NAME=PATH.")
    opened = {name: open_labelled(path) for name, path in data.items()}
    encoder = load_model(model, device=device) if isinstance(model, (str, Path)) else model
    knowledge = KnowledgeBase.open(Path(kb)) if kb else None
    source = str(model) if isinstance(model, (str, Path)) else "in memory"
    scores = [_scores(source, encoder, name, images, knowledge) for name, images in opened.items()]
    if out is not None:
        _write(Path(out), scores)
    return scores


def _scores(
    source: str,
    encoder: MofiModel,
    name: str,
    images: LabelledImages,
    knowledge: KnowledgeBase | None,
) -> Scores:
    classes = images.classes
    vectors, readable = _encode(encoder, images, name)
    labels = images.codes(classes)[readable]
    if len(labels) < 2:
        raise InputError(f"Fewer than two pictures of {name!r} can be read.")
    gallery = _gallery(encoder, images, classes, name)
    texts = class_vectors(encoder, *_names(classes, knowledge))
    metrics = dict(
        chain(
            retrieval(vectors, labels),
            knn(vectors, labels, *gallery),
            zero_shot(vectors, labels, texts),
        )
    )
    return Scores(
        source, name, len(labels), len(classes), len(images.labels) - len(labels), metrics
    )


def _encode(encoder: MofiModel, images: LabelledImages, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns (vectors of the readable pictures, their row numbers)."""
    vectors, rows = [np.zeros((0, encoder.dim), np.float32)], [np.zeros(0, np.int64)]
    with progress(f"embed {name}", total=len(images.labels), unit="images") as bar:
        for chunk, part, unreadable in encode_places(encoder, images.places):
            vectors.append(part)
            rows.append(chunk["place"].to_numpy())
            bar.advance(len(chunk) + unreadable.total())
    return np.concatenate(vectors), np.concatenate(rows)


def _gallery(
    encoder: MofiModel, images: LabelledImages, classes: list[str], name: str
) -> tuple[np.ndarray, np.ndarray] | tuple[()]:
    if images.gallery is None:
        return ()
    vectors, readable = _encode(encoder, images.gallery, f"{name} gallery")
    if not len(vectors):
        raise InputError(f"None of the training pictures of {name!r} can be read.")
    return vectors, images.gallery.codes(classes)[readable]


def _names(classes: list[str], knowledge: KnowledgeBase | None) -> tuple[list[str], list[str]]:
    """Returns (names, descriptions); a label that the KB does not know is its own name."""
    names, descriptions = [], []
    for label in classes:
        row = knowledge.row_of(label) if knowledge else None
        if knowledge is None or row is None:
            names.append(label.replace("_", " "))
            descriptions.append("")
        else:
            names.append(knowledge.texts.label[row].as_py())
            descriptions.append(knowledge.texts.description[row].as_py())
    return names, descriptions


def records(scores: list[Scores]) -> Iterator[dict]:
    """Yields scores in the form of CLIP_benchmark's result files."""
    for score in scores:
        yield {
            "dataset": score.dataset,
            "model": score.model,
            "pretrained": score.model,
            "task": "retrieval_knn_zeroshot",
            "metrics": score.metrics,
            "images": score.images,
            "classes": score.classes,
            "unreadable": score.unreadable,
            "openmofi": openmofi.__version__,
        }


def _write(out: Path, scores: list[Scores]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(list(records(scores)), indent=2)
    (out / "scores.json").write_text(text + "\n")
