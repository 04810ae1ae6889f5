"""Labels of real shop photos with confusable names: text first against text and image together.

    python benchmarks/shop_labels.py GROCERY [--seeds 1 2 3] [--steps 500] [--keep FOLDER]

GROCERY is a folder of photos with images.csv (file, class_id) and entities.csv (class_id, name,
coarse, description). Every product also bears the name of its kind, which it shares with others.
Captions are made: most name the product, three in ten only its kind, one in ten another product,
one in twenty nothing. A small encoder is trained from scratch on the captions of one half of the
photos; the other half, whose captions it has not seen, is labelled. Prints JSON per seed: recall at
equal precision for both orders, and the false-label rates asked and true.
"""

import argparse
import csv
import json
import random
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from calibrated_rate import measure, read_truth
from labels_at_equal_precision import recalls

from openmofi.config import LabelSettings, ModelSettings, TrainSettings, override
from openmofi.kb import build_kb
from openmofi.label import label
from openmofi.train import train

_TEMPLATES = ("fresh {} on a shelf", "{} in the shop", "our {}, today's offer", "a box of {}")
_RATES = (0.02, 0.05, 0.1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("grocery", type=Path)
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--keep", type=Path)
    arguments = parser.parse_args()
    for seed in arguments.seeds:
        with tempfile.TemporaryDirectory() as temporary:
            folder = (arguments.keep or Path(temporary)) / str(seed)
            folder.mkdir(parents=True, exist_ok=True)
            result = one_seed(arguments.grocery.resolve(), folder, seed, arguments.steps)
            print(json.dumps({"seed": seed, **result}), flush=True)


def one_seed(grocery: Path, folder: Path, seed: int, steps: int) -> dict:
    entities, photos, rng = open_shop(grocery, folder, seed)
    half = len(photos) // 2
    write_captions(folder / "seen.csv", photos[:half], entities, rng, None)
    write_captions(folder / "new.csv", photos[half:], entities, rng, folder / "truth.parquet")
    write_catalogue(folder / "products.csv", entities)
    build_kb(folder / "products.csv", out=folder / "kb")
    train(settings(steps, seed), data=folder / "seen.csv", out=folder / "run")
    label(
        folder / "new.csv",
        kb=folder / "kb",
        model=folder / "run/model",
        out=folder / "i2e",
        settings=LabelSettings(workers=1),
    )
    shown, named = read_truth(folder / "truth.parquet")
    found = {}
    for order in ("text-first", "joint"):
        rates = {
            f"{r:g}": measure(folder / "i2e", r, order, "labels", shown, named) for r in _RATES
        }
        at_precision = recalls(folder / "i2e", folder / "truth.parquet", order)
        found[order] = {"recall_at_precision": at_precision, "asked": rates}
    return found


def settings(steps: int, seed: int) -> TrainSettings:
    changes = {
        "loss": {"supervised": 0.0, "text": ("caption",), "mask_same_entity": False},
        "steps": steps,
        "batch_size": 128,
        "seed": seed,
    }
    return override(TrainSettings(model=ModelSettings(image_size=64, vocab_size=1500)), changes)


def open_shop(
    grocery: Path, folder: Path, seed: int
) -> tuple[list[dict], list[dict], random.Random]:
    """Links the photos into a folder; returns products, photos in drawn order, and what drew it."""
    entities = list(csv.DictReader((grocery / "entities.csv").open(encoding="utf-8")))
    photos = list(csv.DictReader((grocery / "images.csv").open(encoding="utf-8")))
    rng = random.Random(seed)
    rng.shuffle(photos)
    (folder / "images").unlink(missing_ok=True)
    (folder / "images").symlink_to(grocery / "images")
    return entities, photos, rng


def write_catalogue(path: Path, entities: list[dict]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("id", "name", "aliases", "description"))
        writer.writerows(
            (e["class_id"], e["name"], e["coarse"], e["description"]) for e in entities
        )


def write_captions(
    path: Path, photos: list[dict], entities: list[dict], rng: random.Random, truth: Path | None
) -> None:
    by_id = {entity["class_id"]: entity for entity in entities}
    rows, known = [], []
    for photo in photos:
        file, shown = f"images/{photo['file']}", by_id[photo["class_id"]]
        caption, names_it = make_caption(shown, entities, rng)
        rows.append((file, caption))
        mentioned = [shown["class_id"]] if names_it else []
        known.append({"key": file, "shown": shown["class_id"], "mentioned": mentioned})
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("file", "caption"), *rows])
    if truth:
        pq.write_table(pa.Table.from_pylist(known), truth)


def make_caption(shown: dict, entities: list[dict], rng: random.Random) -> tuple[str, bool]:
    """Returns (caption, whether it names what is shown, be it by its kind)."""
    draw = rng.random()
    if draw < 0.05:
        return "IMG_2041", False
    named = rng.choice(entities) if draw < 0.15 else shown
    name = named["coarse"] if rng.random() < 0.3 else named["name"]
    return rng.choice(_TEMPLATES).format(name), name in (shown["name"], shown["coarse"])


if __name__ == "__main__":
    main()
