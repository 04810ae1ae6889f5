"""Looking at images without a GPU: which form of an encoder costs least, and what does it change?

    pip install 'openmofi[real,onnx]' && python examples/package_encoders.py ENCODERS
    python benchmarks/encoder_runtime.py PHOTOS --demo DEMO --encoders ENCODERS --out FOLDER

PHOTOS has a folder of images per class, such as Caltech-101's; DEMO is the output of `openmofi
demo`. Forms: fp32, auto (`--precision auto`), onnx (`openmofi compile`), int8 (`compile --int8`).
Prints JSON, one thread, CPU-seconds:

  verbs    a CLIP of B/32's size with random weights: images a CPU-second of encoding alone, `embed`
           and `label`, medians of three rounds in which the forms take turns; FastEmbed's way of
           encoding the same 32-bit file, in 32 bits; and the first answer of a search by text in a
           process of its own, with the start of the program
  serve    the same network in `openmofi serve`: images a CPU-second of the server that are posted
           to it on loopback by four clients; not in 32 bits, for `serve` has `auto` or a file
  photos   EfficientNet-Lite0 and -Lite2: retrieval mAP of the photos by their class, their rate
  labels   photos labelled by -Lite0 and -Lite2, paired with MiniLM as in second_look.py: F1 at
           an asked rate of .05, also of forms that `compile` refuses, with what it says
  demo     the demo's own encoder: F1 of labels by the joint order at an asked rate of .05
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
import transformers
from calibrated_rate import read_truth
from second_look import caltech_material, judged

from openmofi.compile import compile_model
from openmofi.config import CompileSettings, EmbedSettings, LabelSettings, SelectSettings
from openmofi.embed import embed
from openmofi.embeddings import read_embeddings
from openmofi.errors import InputError
from openmofi.evaluate.metrics import average_precisions, label_scores
from openmofi.kb import build_kb
from openmofi.label import label
from openmofi.model import MofiModel, load_model, save_model
from openmofi.model.tokenizer import special_tokens, train_tokenizer
from openmofi.model.transform import Transform
from openmofi.search import Index
from openmofi.select import select

FORMS = ("fp32", "auto", "onnx", "int8")
ROUNDS = 3
CLIENTS = 4
RATE = 0.05


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("--demo", type=Path, required=True)
    parser.add_argument("--encoders", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--images", type=int, default=160, help="of the verbs' timing")
    parser.add_argument("--fastembed", help="interpreter that has the package fastembed, a rival")
    parser.add_argument("--wordnet", type=Path, default=Path("/usr/share/wordnet"))
    parser.add_argument("--names", nargs="+", default=["lite0", "lite2"], help="of real encoders")
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=FORMS, help="of labels")
    parser.add_argument("--only", choices=("verbs", "serve", "photos", "labels", "demo"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.out.mkdir(parents=True, exist_ok=True)
    parts: dict[str, Callable[[], Any]] = {
        "verbs": lambda: verbs(
            arguments.photos, arguments.images, arguments.out, arguments.fastembed
        ),
        "serve": lambda: serve(arguments.photos, arguments.images, arguments.out),
        "photos": lambda: photos(arguments),
        "labels": lambda: labels(arguments),
        "demo": lambda: demo(arguments.demo, arguments.out),
    }
    chosen = [arguments.only] if arguments.only else parts
    print(json.dumps({name: parts[name]() for name in chosen}, indent=1))


def forms_of(
    model: Path, images: Path, out: Path, *, loss: float = 0.2, sample: int = 1000
) -> dict[str, tuple]:
    """Returns {form: (model directory, precision)}; compiles what is not there yet."""
    made = {"fp32": (model, "fp32"), "auto": (model, "auto")}
    for form in ("onnx", "int8"):
        folder = out / f"{model.name}-{form}"
        if not folder.is_dir():
            settings = CompileSettings(int8=form == "int8", max_loss=loss, sample=sample)
            compile_model(model, out=folder, settings=settings, images=images)
        made[form] = (folder, "fp32")
    return made


# ---------------------------------------------------------------- what it costs


def verbs(images: Path, count: int, out: Path, fastembed: str | None) -> dict[str, Any]:
    folder = some_photos(images, count, out / "some")
    (out / "things.csv").write_text("id,name,description\nE0,flag,a piece of cloth\n")
    kb = build_kb(out / "things.csv", out=out / "kb").out
    model = clip_b32(out / "b32")
    # Random weights find next to nothing.
    forms = forms_of(model, images, out, loss=100, sample=100)
    loaded = {
        form: load_model(place, device="cpu", precision=precision)
        for form, (place, precision) in forms.items()
    }
    pixels = np.stack([loaded["fp32"].transform.pixels(p) for p in sorted(folder.glob("*.jpg"))])
    seconds: dict[str, dict[str, list[float]]] = {}
    for _ in range(ROUNDS):
        for form, (place, precision) in forms.items():
            runs = {
                "encode": lambda form=form: loaded[form].encode_pixels(pixels),
                "embed": lambda place=place, precision=precision: embed(
                    place,
                    folder,
                    out=fresh(out / "vectors"),
                    settings=EmbedSettings(workers=1, precision=precision),
                ),
                "label": lambda place=place, precision=precision: label(
                    folder,
                    kb=kb,
                    model=place,
                    out=fresh(out / "i2e"),
                    settings=LabelSettings(workers=1, precision=precision, background=1),
                ),
            }
            for name, run in runs.items():
                began = time.process_time()
                run()
                spent = time.process_time() - began
                seconds.setdefault(name, {}).setdefault(form, []).append(spent)
        if fastembed:
            spent = fastembed_seconds(fastembed, forms["onnx"][0], folder, out / "fastembed")
            seconds["embed"].setdefault("fastembed", []).append(spent)
    rates = {
        name: {form: round(count / statistics.median(times), 1) for form, times in found.items()}
        for name, found in seconds.items()
    }
    return {"images": count, "images_per_cpu_second": rates, "first_answer": first_answers(forms)}


def fresh(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    return folder


def some_photos(images: Path, count: int, folder: Path) -> Path:
    """Copies photos, each with a caption that names something, so that it is looked at."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    found = sorted(images.rglob("*.jpg"))
    for i, row in enumerate(np.random.default_rng(0).permutation(len(found))[:count]):
        shutil.copyfile(found[row], folder / f"{i:04d}.jpg")
        (folder / f"{i:04d}.txt").write_text(f"a flag, number {i}")
    return folder


def clip_b32(folder: Path) -> Path:
    """Writes a CLIP of ViT-B/32's size with random weights, and a tokenizer of a few words."""
    if (folder / "config.json").is_file():
        return folder
    torch.manual_seed(0)
    words = train_tokenizer(["a flag on a photo"], vocab_size=400, context_length=77)
    ids = special_tokens(words)
    text = {"eos_token_id": ids.eos, "bos_token_id": ids.bos, "pad_token_id": ids.pad}
    network = transformers.CLIPModel(transformers.CLIPConfig(text_config=text)).eval()
    save_model(MofiModel(network, words, Transform(224)), folder, card="# random\n")
    return folder


def fastembed_seconds(python: str, model: Path, folder: Path, work: Path) -> float:
    """Returns CPU-seconds in which FastEmbed embeds a folder with the same 32-bit file."""
    work.mkdir(exist_ok=True)
    shutil.copyfile(model / "image_encoder.onnx", work / "model.onnx")
    processor = json.loads((model / "preprocessor_config.json").read_text())
    processor["image_processor_type"] = "CLIPImageProcessor"
    (work / "preprocessor_config.json").write_text(json.dumps(processor))
    code = (
        "import sys, time, pathlib; from fastembed import ImageEmbedding;"
        "files = sorted(map(str, pathlib.Path(sys.argv[2]).glob('*.jpg')));"
        "model = ImageEmbedding('Qdrant/clip-ViT-B-32-vision', specific_model_path=sys.argv[1],"
        " threads=1); list(model.embed(files[:8])); began = time.process_time();"
        "n = len(list(model.embed(files))); print(n, time.process_time() - began)"
    )
    line = [python, "-c", code, str(work), str(folder)]
    done = subprocess.run(line, check=True, capture_output=True, text=True).stdout.split()
    assert int(done[-2]) == len(list(folder.glob("*.jpg")))
    return float(done[-1])


def first_answers(forms: dict[str, tuple]) -> dict[str, dict[str, float]]:
    """Returns seconds on the clock and CPU-seconds until a text is encoded, from the start."""
    code = (
        "import sys, time; from openmofi.model import load_model; import torch;"
        "torch.set_num_threads(1);"
        "m = load_model(sys.argv[1], device='cpu', precision=sys.argv[2]);"
        "m.encode_texts('a flag'); print(time.process_time())"
    )
    found = {}
    for form, (place, precision) in forms.items():
        clock, cpu = [], []
        for _ in range(ROUNDS):
            began = time.monotonic()
            line = [sys.executable, "-c", code, str(place), precision]
            done = subprocess.run(line, check=True, capture_output=True, text=True)
            clock.append(time.monotonic() - began)
            cpu.append(float(done.stdout.split()[-1]))
        found[form] = {
            "seconds": round(statistics.median(clock), 2),
            "cpu_seconds": round(statistics.median(cpu), 2),
        }
    return found


def serve(images: Path, count: int, out: Path) -> dict[str, Any]:
    folder = some_photos(images, count + CLIENTS, out / "some")
    posted = [file.read_bytes() for file in sorted(folder.glob("*.jpg"))]
    forms = forms_of(clip_b32(out / "b32"), images, out, loss=100, sample=100)
    vectors = fresh(out / "vectors")
    embed(forms["onnx"][0], folder, out=vectors, settings=EmbedSettings(workers=1))
    index = fresh(out / "index")
    Index.build(vectors, index)
    seconds: dict[str, list[float]] = {}
    for _ in range(ROUNDS):
        for form, (place, _) in forms.items():
            if form == "fp32":
                continue
            spent = server_seconds(index, place, posted)
            seconds.setdefault(form, []).append(spent)
    rates = {form: round(count / statistics.median(times), 1) for form, times in seconds.items()}
    return {"images": count, "images_per_cpu_second": rates}


def server_seconds(index: Path, model: Path, posted: list[bytes]) -> float:
    """Returns CPU-seconds that a server takes for images; the first ones make it load its model."""
    line = [sys.executable, "-m", "openmofi", "serve", str(index), "--model", str(model)]
    one_thread = os.environ | {"OMP_NUM_THREADS": "1"}
    server = subprocess.Popen(
        [*line, "--port", "0"], stderr=subprocess.PIPE, text=True, env=one_thread
    )
    assert server.stderr is not None
    try:
        said = server.stderr.readline()
        address = next(word for word in said.split() if word.startswith("http://"))

        def post(image: bytes) -> None:
            url, head = f"{address.rstrip('/')}/api/uploads", {"content-type": "image/jpeg"}
            request = urllib.request.Request(url, data=image, headers=head)
            with urllib.request.urlopen(request, timeout=120) as answer:
                assert answer.status == 200

        with ThreadPoolExecutor(CLIENTS) as clients:
            list(clients.map(post, posted[:CLIENTS]))
            began = cpu_seconds(server.pid)
            list(clients.map(post, posted[CLIENTS:]))
            return cpu_seconds(server.pid) - began
    finally:
        server.terminate()
        server.wait(timeout=60)


def cpu_seconds(process: int) -> float:
    """Returns the CPU time that a process has taken, on Linux."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# ---------------------------------------------------------------- what it changes


def photos(arguments: argparse.Namespace) -> dict[str, Any]:
    images, out = arguments.photos, arguments.out
    found: dict[str, Any] = {}
    for name in arguments.names:
        found[name] = {}
        for form, (place, precision) in forms_of(arguments.encoders / name, images, out).items():
            began = time.process_time()
            settings = EmbedSettings(workers=1, precision=precision)
            file = out / f"{name}-{form}.parquet"
            file.unlink(missing_ok=True)
            summary = embed(place, images, out=file, settings=settings)
            spent = time.process_time() - began
            made = read_embeddings(file)
            classes = [Path(path).parent.name for path in made.rows["path"].to_pylist()]
            labels = np.unique(classes, return_inverse=True)[1]
            scores = average_precisions(made.vectors, labels, include_self=False)
            found[name][form] = {
                "map": round(100 * float(np.nanmean(scores)), 2),
                "images_per_cpu_second_of_embed": round(summary.rows / spent, 1),
            }
    return found


def labels(arguments: argparse.Namespace) -> dict[str, Any]:
    material = caltech_material(arguments, seed=1)
    found: dict[str, Any] = {}
    models = {"lite0": material.small, "lite2": material.large}
    for name in arguments.names:
        model, place = models[name], Path(models[name]).parent
        images = place.parent / "paired.csv"
        try:
            forms = forms_of(Path(model), images, place)
        except InputError as refusal:
            found[name] = str(refusal)
            forms = forms_of(Path(model), images, place, loss=100, sample=100)
        for form in arguments.forms:
            encoder, precision = forms[form]
            i2e = place / f"i2e-{form}"
            shutil.rmtree(i2e, ignore_errors=True)
            settings = LabelSettings(workers=1, background=material.background, precision=precision)
            label(material.source, kb=material.kb, model=str(encoder), out=i2e, settings=settings)
            found[f"{name} {form}"] = judged(material, i2e, RATE)
    return found


def demo(folder: Path, out: Path) -> dict[str, Any]:
    kb = build_kb([folder / "dump.json.gz", folder / "signals.csv"], out=out / "demo_kb").out
    shown, named = read_truth(folder / "truth.parquet")
    model = folder / "runs" / "clip" / "model"
    found = {}
    for form, (place, precision) in forms_of(model, folder / "shards", out, sample=6000).items():
        i2e = out / f"demo-{form}"
        shutil.rmtree(i2e, ignore_errors=True)
        settings = LabelSettings(workers=1, precision=precision)
        label(folder / "shards", kb=kb, model=str(place), out=i2e, settings=settings)
        chosen = SelectSettings(min_images=1, false_label_rate=RATE)
        kept = select(i2e, name="joint", settings=chosen).out
        ids = pq.read_table(kept / "vocabulary.parquet")["id"].to_pylist()
        rows = pq.read_table(kept / "keep.parquet", columns=["key", "classes"]).to_pylist()
        labels = {(row["key"], ids[c]) for row in rows for c in row["classes"]}
        scores = label_scores(labels, set(shown.items()), named)
        found[form] = {name: round(value, 4) for name, value in scores.items()}
    return found


if __name__ == "__main__":
    main()
