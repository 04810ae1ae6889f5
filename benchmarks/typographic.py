"""Does a filter on text regions help a model to look instead of to read?

    python benchmarks/typographic.py --encoder other-demo/runs/clip/model --out DIR [--seed N]

Draws a demo world with a name of the caption printed into a share of its training photos, labels it
with the encoder given (which must not have seen this world: the `clip` model of a demo of another
seed), and trains the same recipe for the same number of steps on two selections that differ in
--max-text-area alone; the threshold of the first holds for both. A third model learns from the
filtered photos, which are fewer, and changes them from their second showing on (`augment.when:
repeats`), as "Less is More" does. Printed as JSON: how well the detector finds the printed photos,
what was selected, and how the models stand a typographic attack on test photos, none of which is
printed: with red names as ImageNet-Atr writes them, with names printed as the training photos' are,
and with the letters of such names shuffled, which hide as much and say nothing. The images of the
attack are the same for all models.
`reads` is the share of names on an empty background that a model answers rightly; where it is that
of guessing (1 / classes), an attack hides a part of the image and is nothing more. With --style
varied, the names are printed in many ways, which the small encoder does not learn to read; with
--style bar always in the same way, and the first two models see their photos uncropped.

A finished step is not done again. About 20 minutes a seed in one thread.
"""

import argparse
import io
import json
import random
from dataclasses import replace
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from openmofi.config import LabelSettings, SelectSettings, override
from openmofi.demo.backgrounds import draw_background
from openmofi.demo.printed import print_bar, print_text
from openmofi.demo.world import PHOTO_SIZE, draw_world
from openmofi.evaluate.data import LabelledImages
from openmofi.evaluate.layouts import open_labelled
from openmofi.evaluate.typographic import chosen_words, typographic, write_on
from openmofi.evaluate.vectors import ModelVectors
from openmofi.kb import KnowledgeBase, build_kb
from openmofi.label import label
from openmofi.model import MofiModel
from openmofi.select import select
from openmofi.shards import committed_files
from openmofi.train import train
from openmofi.train.recipe import read_recipe

_READINGS = 6
"""Printings of each name on an empty background."""
_AREAS = (0.0, 0.01, 0.02, 0.05, 0.1)


def main() -> None:
    """Prints one JSON object."""
    arguments = _arguments()
    out = arguments.out
    if not (out / "truth.parquet").is_file():
        printer = print_bar if arguments.style == "bar" else print_text
        draw_world(
            out,
            size=arguments.size,
            seed=arguments.seed,
            printed=arguments.printed,
            printer=printer,
        )
    if not (out / "kb/meta.json").is_file():
        build_kb([out / "dump.json.gz", out / "signals.csv"], out=out / "kb")
    settings = LabelSettings(text_regions=True, workers=arguments.workers)
    label(
        out / "shards", kb=out / "kb", model=arguments.encoder, out=out / "i2e", settings=settings
    )
    areas = _areas(out)
    selections = _select_both(out, arguments)
    all_photos, no_text = selections
    models = {all_photos: all_photos, no_text: no_text, f"{no_text}-augmented": no_text}
    for name, selection in models.items():
        _train(out, name, selection, arguments)
    result = {
        "world": {"seed": arguments.seed, "size": arguments.size, "printed": arguments.printed},
        "steps": arguments.steps,
        "recipe": arguments.recipe,
        "order": arguments.order,
        "style": arguments.style,
        "max_text_area": arguments.max_text_area,
        "detection": [_detection(areas, threshold) for threshold in _AREAS],
        "selections": selections,
        "models": _attack(out, arguments, list(models)),
    }
    print(json.dumps(result, indent=2))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--encoder", required=True, help="model that labels")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--size", default="full")
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--printed", type=float, default=0.3)
    parser.add_argument("--steps", type=int, default=700)
    parser.add_argument("--recipe", default="multitask")
    parser.add_argument("--order", default="joint", choices=["joint", "caption-match"])
    parser.add_argument("--max-text-area", type=float, default=0.02)
    parser.add_argument("--style", default="varied", choices=["varied", "bar"])
    parser.add_argument("--workers", type=int, default=1)
    return parser.parse_args()


def _truth(out: Path) -> dict[str, dict[str, Any]]:
    rows = pq.read_table(out / "truth.parquet", filters=[("split", "=", "train")]).to_pylist()
    return {row["key"]: row for row in rows}


def _areas(out: Path) -> dict[bool, np.ndarray]:
    """Returns the text areas of printed and of other photos, of those that were opened."""
    truth, areas = _truth(out), {True: [], False: []}
    for path in committed_files(out / "i2e"):
        for row in pq.read_table(path, columns=["key", "text_area"]).to_pylist():
            if row["text_area"] is not None:
                areas[truth[row["key"]]["printed"]].append(row["text_area"])
    return {printed: np.array(values) for printed, values in areas.items()}


def _detection(areas: dict[bool, np.ndarray], threshold: float) -> dict[str, float]:
    return {
        "max_text_area": threshold,
        "printed_refused": round(float((areas[True] > threshold).mean()), 4),
        "others_refused": round(float((areas[False] > threshold).mean()), 4),
    }


def _select_both(out: Path, arguments: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Selects with and without the filter, by one threshold."""
    order, names = arguments.order, [f"{arguments.order}-{end}" for end in ("all", "no-text")]
    summary = select(out / "i2e", name=names[0], settings=SelectSettings(order=order))
    threshold = None
    if summary.threshold is not None:
        # A label's score is a probability, its threshold in the summary the log odds of one.
        threshold = float(1 / (1 + np.exp(-summary.threshold)))
    filtered = SelectSettings(
        order=order, threshold=threshold, max_text_area=arguments.max_text_area
    )
    select(out / "i2e", name=names[1], settings=filtered)
    return {name: _contents(out, name) for name in names}


def _contents(out: Path, name: str) -> dict[str, Any]:
    """Returns how many photos were kept, the printed ones' share and the right labels' share."""
    folder, truth = out / "i2e/select" / name, _truth(out)
    ids = pq.read_table(folder / "vocabulary.parquet")["id"].to_pylist()
    keep = pq.read_table(folder / "keep.parquet", columns=["key", "classes"]).to_pylist()
    right = [ids[c] == truth[row["key"]]["shown"] for row in keep for c in row["classes"]]
    printed = [truth[row["key"]]["printed"] for row in keep]
    return {
        "images": len(keep),
        "classes": len(ids),
        "printed": round(float(np.mean(printed)), 4),
        "precision": round(float(np.mean(right)), 4),
    }


def _run(out: Path, name: str, arguments: argparse.Namespace) -> Path:
    return out / "runs" / f"{arguments.recipe}-{name}"


def _train(out: Path, name: str, selection: str, arguments: argparse.Namespace) -> None:
    run = _run(out, name, arguments)
    with as_file(files("openmofi.demo") / "recipes" / f"{arguments.recipe}.yaml") as path:
        recipe = replace(read_recipe(path), steps=arguments.steps, seed=arguments.seed)
    if name != selection:
        recipe = override(recipe, {"augment": {"when": "repeats"}})
    elif arguments.style == "bar":
        recipe = override(recipe, {"augment": {"crop": 1.0, "colour": 0.0}})
    resume = (run / "config.yaml").is_file()
    train(recipe, data=out / "i2e/select" / selection, out=run, resume=resume)


def _attack(out: Path, arguments: argparse.Namespace, names: list[str]) -> dict[str, Any]:
    """Returns the scores of each selection's model under each style of attack."""
    test, kb = open_labelled(out), KnowledgeBase.open(out / "kb")
    prompts = kb.entity_text(kb.rows_of(test.classes))
    labels = [kb.texts.label[row].as_py() for row in kb.rows_of(test.classes)]
    words = _words(arguments.encoder, test, prompts)
    scores: dict[str, Any] = {name: {} for name in names}
    for name in names:
        source = ModelVectors(_run(out, name, arguments) / "model", device="auto", cache=None)
        encoded, texts = source.images(test.places, name), source.texts(prompts)
        style = arguments.style
        styles = {
            "protocol": write_on,
            "as_printed": _Printer(style),
            "scrambled": _Printer(style, True),
        }
        for kind, write in styles.items():
            found = typographic(
                source, test, encoded, texts=texts, names=labels, words=words, write=write
            )
            scores[name][kind] = {key: round(value, 4) for key, value in found}
        scores[name]["reads"] = round(_reading(source.model, test.classes, kb, style), 4)
    return scores


def _words(reference: str, test: LabelledImages, prompts: list[str]) -> np.ndarray:
    """Returns what is written on each image, by the mistakes of a model of another world."""
    source = ModelVectors(reference, device="auto", cache=None)
    encoded, texts = source.images(test.places, "reference"), source.texts(prompts)
    answers = (encoded.vectors @ texts.T).argmax(axis=1)
    return chosen_words(answers, test.codes(test.classes)[encoded.rows], texts)


def _reading(model: MofiModel, classes: list[str], kb: KnowledgeBase, style: str) -> float:
    """Returns how often a name printed on an empty background is answered with its entity."""
    rows, rng, written = kb.rows_of(classes), np.random.default_rng(0), []
    printer = _Printer(style)
    for row in rows:
        for _ in range(_READINGS):
            empty = np.clip(draw_background(rng, size=PHOTO_SIZE), 0, 255).astype(np.uint8)
            written.append(printer(Image.fromarray(empty), kb.texts.label[row].as_py()))
    texts = model.encode_texts(kb.entity_text(rows))
    answers = (model.encode_images(written) @ texts.T).argmax(axis=1)
    return float((answers == np.arange(len(rows)).repeat(_READINGS)).mean())


class _Printer:
    """Prints names as the training photos' captions are, the same way every time.

    With `scrambled` their letters are shuffled: they hide as much of the image, and say nothing.
    """

    def __init__(self, style: str, scrambled: bool = False) -> None:
        self._rng, self._scrambled = np.random.default_rng(0), scrambled
        self._print = print_bar if style == "bar" else print_text

    def __call__(self, image: Image.Image, name: str) -> bytes:
        if self._scrambled:
            name = "".join(random.Random(name).sample(name, len(name)))
        stream = io.BytesIO()
        image.save(stream, "JPEG", quality=95)
        return self._print(stream.getvalue(), name, self._rng)


if __name__ == "__main__":
    main()
