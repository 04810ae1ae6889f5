"""Does a teacher help a student, and what does it cost?

    python benchmarks/reinforcement.py WORLD --out RESULTS [--steps 160] [--batch-size 64]
        [--teacher-steps 640] [--seeds 0 1 2] [--recipe multitask] [--ways alone taught ...]
    python benchmarks/reinforcement.py --photos PHOTOS --encoders ENCODERS --out RESULTS
        [--preset s0] [--image-size 64] ...

WORLD is what `openmofi demo` leaves: a selection, kb/ and test/. The teacher is the same small
network, trained by the same recipe from another seed for more steps of 128 images; `reinforce`
stores its vectors once for each way of changing images, and all seeds learn from these. Students
have equal steps:

    alone             no teacher
    taught            loss.teachers
    alone, repeats    images unchanged in the first epoch
    taught, repeats
    alone, rand       and two operations of RandAugment beside crops and colours
    taught, rand

PHOTOS is a folder of real photos for each class, such as Caltech-101's; ENCODERS what
examples/package_encoders.py leaves. A third of each class is for testing; the captions name the
class, in templates. There the teacher is EfficientNet-Lite2 and MiniLM, paired on the other two
thirds, and a student's texts are captions and names. --teacher-form names another folder beside
its model/, such as what `openmofi compile` made of it, which then stores the vectors.

Scores are of the test images. Prints a line of JSON per way and seed, then the means and
the teacher's cost; RESULTS keeps what is finished, and the same command goes on. One thread, CPU
seconds of the process.
"""

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from real_world import NAMES, TEMPLATES, write_listing

from openmofi.config import ReinforceSettings, TrainSettings, override
from openmofi.evaluate import evaluate
from openmofi.kb import build_kb
from openmofi.pairs import find_shards, read_shard
from openmofi.schema import VOCABULARY
from openmofi.train import pair, train
from openmofi.train.recipe import read_recipe
from openmofi.train.reinforce import reinforce

RECIPES = Path(__file__).parents[1] / "src/openmofi/demo/recipes"
CHANGES: dict[str, dict[str, Any]] = {
    "": {},
    "repeats": {"augment": {"when": "repeats"}},
    "rand": {"augment": {"rand_ops": 2}},
}
"""Ways of changing images -> settings."""
WAYS = [f"{who}{', ' if how else ''}{how}" for how in CHANGES for who in ("alone", "taught")]
TEACHER_SEED = 100
METRICS = ("retrieval_map", "zero_shot")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("world", type=Path, nargs="?")
    parser.add_argument("--photos", type=Path, help="a folder of photos per class, in its place")
    parser.add_argument("--encoders", type=Path, help="real ones, for the photos' teacher")
    parser.add_argument("--preset", default="nano", help="of the students")
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=160)
    parser.add_argument("--teacher-steps", type=int, default=640)
    parser.add_argument("--batch-size", type=int, default=64, help="of the students")
    parser.add_argument("--augmentations", type=int, default=5)
    parser.add_argument("--teacher-form", default="model", help="folder of the teacher to use")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--recipe", default="multitask")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.photos:
        arguments.world = made_world(arguments.photos, arguments.out / "world")
    teacher = arguments.out / "teacher"
    costs = {"teacher": kept(teacher, lambda: make_teacher(arguments, teacher))}
    print(json.dumps(costs), flush=True)
    found: dict[str, list[dict[str, float]]] = {way: [] for way in arguments.ways}
    for seed in arguments.seeds:
        for way in arguments.ways:
            who, _, how = way.partition(", ")
            changes = {"seed": seed, "batch_size": arguments.batch_size} | CHANGES[how]
            if who == "taught":
                vectors = arguments.out / f"vectors {how}".strip()
                costs[vectors.name] = kept(vectors, lambda v=vectors, h=how: store(arguments, v, h))
                changes["loss"] = {"teachers": [str(vectors)]}
            run = arguments.out / f"{arguments.recipe} {way} {seed}"
            row = kept(run, lambda r=run, c=changes: learn(arguments, r, c))
            found[way].append(row)
            print(json.dumps({"seed": seed, "way": way} | row), flush=True)
    for way, rows in found.items():
        print(json.dumps({"way": way} | summary(rows, found.get("alone", []))))
    print(json.dumps(costs))


def kept(place: Path, work: Callable[[], dict[str, float]]) -> dict[str, float]:
    """Returns what `work` found, now or before, with the CPU seconds that it took."""
    file = place.with_name(f"{place.name}.json")
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(work()))
    return json.loads(file.read_text())


def settings_of(arguments: argparse.Namespace, changes: dict[str, Any]) -> TrainSettings:
    model = {"image_size": arguments.image_size, "preset": arguments.preset}
    same: dict[str, Any] = {"model": model, "threads": 1, "device": "cpu"}
    if arguments.photos:
        same["loss"] = {"text": ["caption", "name"]}
    return override(override(read_recipe(RECIPES / f"{arguments.recipe}.yaml"), same), changes)


def selection(arguments: argparse.Namespace) -> Path:
    return arguments.world / "i2e" / "select" / "joint"


def learn(
    arguments: argparse.Namespace, run: Path, changes: dict[str, Any], *, is_teacher: bool = False
) -> dict[str, float]:
    """Trains a model; returns its scores on the test images."""
    steps = arguments.teacher_steps if is_teacher else arguments.steps
    changes = {"seed": TEACHER_SEED} | changes | {"steps": steps}
    began = time.process_time()
    resume = (run / "config.yaml").is_file()
    train(settings_of(arguments, changes), data=selection(arguments), out=run, resume=resume)
    seconds = time.process_time() - began
    return measured(arguments, run / "model") | {"cpu_seconds": seconds}


def measured(arguments: argparse.Namespace, model: Path) -> dict[str, float]:
    """Returns a model's scores on the test images."""
    data = {"test": arguments.world / "test.csv" if arguments.photos else arguments.world}
    [scores] = evaluate(str(model), data=data, kb=arguments.world / "kb")
    return {name: scores.metrics[name] for name in METRICS}


def make_teacher(arguments: argparse.Namespace, place: Path) -> dict[str, float]:
    if not arguments.photos:
        return learn(arguments, place, {}, is_teacher=True)
    began = time.process_time()
    encoders = arguments.encoders / "lite2", arguments.encoders / "minilm"
    pair(*encoders, data=arguments.world / "train.csv", out=place, device="cpu")
    seconds = time.process_time() - began
    return measured(arguments, place / "model") | {"cpu_seconds": seconds}


def made_world(photos: Path, out: Path) -> Path:
    """Writes captions, test labels, a knowledge base and a selection of photos by class."""
    classes = sorted(folder.name for folder in photos.iterdir() if folder.is_dir())
    names = [NAMES.get(shown, shown.replace("_", " ")) for shown in classes]
    rng, learnt, held = random.Random(0), [], []
    for number, shown in enumerate(classes):
        files = sorted((photos / shown).glob("*.jpg"))
        rng.shuffle(files)
        for place, file in enumerate(files):
            caption = rng.choice(TEMPLATES).format(names[number])
            row = {"file": str(file.resolve()), "caption": caption, "label": f"E{number}"}
            (learnt if place % 3 else held).append(row)
    out.mkdir(parents=True, exist_ok=True)
    write_listing(out / "train.csv", learnt)
    lines = [f"{row['file']},{row['label']}" for row in held]
    (out / "test.csv").write_text("\n".join(["file,label", *lines, ""]))
    lines = [f"E{number},{name}," for number, name in enumerate(names)]
    (out / "things.csv").write_text("\n".join(["id,name,description", *lines, ""]))
    if not (out / "kb").is_dir():
        build_kb(out / "things.csv", out=out / "kb")
    write_selection(out, names, [int(row["label"][1:]) for row in learnt])
    return out


def write_selection(out: Path, names: list[str], shown: list[int]) -> None:
    """Writes train.csv with its classes as `select` would, for here they are known."""
    folder = out / "i2e" / "select" / "joint"
    folder.mkdir(parents=True, exist_ok=True)
    source = find_shards(out / "train.csv")
    table = pa.concat_tables(read_shard(source.root, shard).table for shard in source.shards)
    classes = pa.array([[number] for number in shown], pa.list_(pa.int32()))
    pq.write_table(table.append_column("classes", classes), folder / "keep.parquet")
    ids = [f"E{number}" for number in range(len(names))]
    images = [shown.count(number) for number in range(len(names))]
    texts = {"id": ids, "label": names, "description": [""] * len(names), "images": images}
    pq.write_table(pa.table(texts, schema=VOCABULARY), folder / "vocabulary.parquet")
    (folder / "card.json").write_text(json.dumps({"input": str(source.root)}))


def store(arguments: argparse.Namespace, vectors: Path, how: str) -> dict[str, float]:
    """Stores the teacher's vectors of one way of changing images."""
    # In a process of this one's own, so that its CPU time counts.
    settings = ReinforceSettings(augmentations=arguments.augmentations, workers=1, device="cpu")
    began = time.process_time()
    found = reinforce(
        arguments.out / "teacher" / arguments.teacher_form,
        data=selection(arguments),
        recipe=settings_of(arguments, CHANGES[how]),
        out=vectors,
        settings=settings,
    )
    return {"images": found.images, "cpu_seconds": time.process_time() - began}


def summary(rows: list[dict[str, float]], alone: list[dict[str, float]]) -> dict[str, Any]:
    """Returns means and deviations, and the differences from the same seeds alone."""
    said: dict[str, Any] = {}
    for name in (*METRICS, "cpu_seconds"):
        values = [row[name] for row in rows]
        said[name] = round(statistics.mean(values), 4)
        if len(values) > 1:
            said[f"{name} deviation"] = round(statistics.stdev(values), 4)
        if len(alone) == len(rows) and name in METRICS:
            gains = [row[name] - other[name] for row, other in zip(rows, alone, strict=True)]
            said[f"{name} gains"] = [round(gain, 4) for gain in gains]
    return said


if __name__ == "__main__":
    main()
