"""A small world to serve: an index with labels, a map, a selection, a knowledge base, a model."""

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from fastapi.testclient import TestClient

import fruit
from labelled import candidate, pair, write_i2e
from openmofi.config import SelectSettings, ServeSettings
from openmofi.embed import embed
from openmofi.search import Index
from openmofi.search.changes import set_calibration, set_map
from openmofi.search.presence import NullScores, PresenceCalibration
from openmofi.select import select
from openmofi.serve import make_app

ADDRESS = "http://127.0.0.1"
CATALOGUE = """id,name,aliases,description,weight,type
red,Red Apple,apple|pomme,a round red fruit,3,apple
green,Green Apple,apple|Äpfel,a round green fruit,1,apple
lime,Lime,,a small green citrus,2,citrus
plum,Plum,,a small purple fruit,2,stone fruit
"""
IMAGES = 24


@dataclass(frozen=True)
class Orchard:
    """Where everything lies."""

    index: Path
    selection: Path
    images: Path
    report: Path


def write_orchard(folder: Path, model: Path) -> Orchard:
    """Draws images, writes the labels by hand, and makes the rest of them."""
    rows = [_labelled(folder, number) for number in range(IMAGES)]
    rows.append(pair("silent", caption="nothing of note"))
    rows.append(_labelled(folder, 99, z=-3.0))
    i2e = write_i2e(folder, rows, catalogue=CATALOGUE)
    (folder / "weights.json").write_text(json.dumps({"text": 0.9, "clip_z": 4.0, "nil_z": 1.6}))
    settings = SelectSettings(threshold=0.6, min_images=1, weights=str(folder / "weights.json"))
    selection = select(i2e, settings=settings).out
    embed(model, selection, out=folder / "e.parquet")
    index = Index.build(folder / "e.parquet", folder / "index")
    set_map(index, np.random.default_rng(0).random((index.num_rows, 2), np.float32))
    report = folder / "fruit-test" / "report.html"
    report.parent.mkdir()
    report.write_text("<h1>Scores</h1><script>1</script>")
    (report.parent / "results.json").write_text('{"map": 0.5}')
    return Orchard(folder / "index", selection, folder, report)


def _labelled(folder: Path, number: int, z: float = 3.0) -> dict:
    """Returns the labels of an image of red, green or lime, which alone tells which apple."""
    name = fruit.NAMES[number % 3]
    data = fruit.photo(name, number, side=64)
    (folder / f"{number:03d}.jpg").write_bytes(data)
    if name == "lime":
        found = [candidate("lime", text=0.9, z=z, surface="lime ")]
    else:
        other = {"red": "green", "green": "red"}[name]
        text = {"red": 0.7, "green": 0.2}
        found = [
            candidate(name, prior=text[name], text=text[name], z=z),
            candidate(other, prior=text[other], text=text[other], z=-0.4),
        ]
    row = pair(f"{number:03d}", *found, image=data, text=number / 100, boxes=[[0, 0, 0.5, 0.5]])
    caption = f"{'lime' if name == 'lime' else 'apple'} {number}"
    size = {"width": 64, "height": 64}
    return row | size | {"caption": caption, "url": f"https://shop{number % 2}.example/{number}"}


def write_calibration(folder: Path) -> None:
    """Stores a calibration of an index by which no text is found, and no image but a copy."""
    index, entity = Index.open(folder), np.arange(40)
    score = np.full(40, 1e3)  # what absent things score; no cosine reaches that
    null = NullScores(np.tile([1.0, 0.0, 0.0, 0.0], (5, 1)), score, entity % 5, entity)
    mean, covariance = np.zeros(index.meta["dim"]), np.eye(index.meta["dim"])
    nulls = {"text": null, "image": null}
    set_calibration(index, PresenceCalibration(0.05, mean, covariance, nulls))


@contextlib.contextmanager
def client_of(
    index: Path | Index, settings: ServeSettings | None = None, **given
) -> Iterator[TestClient]:
    """Yields a client of an app in this process."""
    given.setdefault("base_url", ADDRESS)
    options = {name: given.pop(name) for name in ("base_url", "headers") if name in given}
    app = make_app(index, settings=settings or ServeSettings(threads=1), **given)
    with TestClient(app, **options) as client:
        yield client


def code_of(answer) -> str:
    """Returns the code of a refusal."""
    return answer.json()["error"]["code"]


def wait_until(holds, seconds: float = 20.0) -> None:
    """Waits for something that other threads or processes bring about."""
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until, "it does not come about"
        time.sleep(0.05)


def together(count: int, work) -> list:
    """Returns work(0) to work(count - 1), each from a thread of its own, begun at once."""
    gate, found = threading.Barrier(count), [None] * count

    def run(number: int) -> None:
        gate.wait()
        found[number] = work(number)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found
