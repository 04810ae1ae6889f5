"""Labels of a world with fruit that the catalogue lacks: kiwi and fig.

Photos of kiwis and figs are refused since their captions name nothing known; one in eight captions
names another fruit than the photo shows. Vectors are drawn by hand: one direction for each fruit.
"""

import io
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from labelled import candidate, pair, write_i2e
from openmofi.config import SelectSettings
from openmofi.select import select

COLOURS = {
    "kiwi": (120, 80, 30),
    "fig": (80, 20, 90),
    "plum": (20, 20, 200),
    "other": (128, 128, 128),
}
TEMPLATES = (
    "{}",
    "a ripe {} on a plate",
    "{} for sale",
    "my {} - stock photo",
    "old {} (2004)",
    "fresh {}, picture 3",
)
EACH = 24


@dataclass(frozen=True)
class Unknown:
    """Where everything lies, and what is true."""

    i2e: Path
    vectors: Path
    shown: dict[str, str]
    """What each image shows, by key."""


def write_unknown(folder: Path, *, photos: bool = False) -> Unknown:
    """Writes labels in two shards, a selection, and the vectors of all images."""
    draw, rng = random.Random(0), np.random.default_rng(0)
    rows, shown = [], {}
    for fruit in ("kiwi", "fig", "plum", "other"):
        for number in range(EACH):
            key = f"{fruit}{number:03d}"
            shown[key] = fruit
            known = [candidate("plum", z=3.0, surface="plum ")] if fruit == "plum" else []
            named = "kiwi" if fruit == "fig" and number % 8 == 0 else fruit
            named = f"view {number}" if fruit == "other" else named
            caption = draw.choice(TEMPLATES).format(named)
            rows.append(pair(key, *known, image=key.encode(), caption=caption))
    draw.shuffle(rows)
    i2e = write_i2e(folder, rows[::2], rows[1::2])
    select(i2e, settings=SelectSettings(threshold=0.5, min_images=1))
    keys = [row["key"] for row in rows]
    vectors = np.stack([_vector(shown[key], rng) for key in keys]).astype(np.float32)
    table = {"id": keys, "vector": list(vectors)}
    pq.write_table(pa.table(table), folder / "vectors.parquet")
    if photos:
        for number, key in enumerate(keys):
            (folder / f"{key}.jpg").write_bytes(_photo(shown[key], number))
    return Unknown(i2e, folder / "vectors.parquet", shown)


def _vector(fruit: str, rng: np.random.Generator) -> np.ndarray:
    """Returns a direction of its own for each fruit, with noise; of others noise alone."""
    centre = np.zeros(32)
    if fruit != "other":
        centre[list(COLOURS).index(fruit)] = 2.0
    vector = centre + rng.normal(size=32) * (0.2 if fruit != "other" else 1.0)
    return vector / np.linalg.norm(vector)


def _photo(fruit: str, number: int) -> bytes:
    noise = np.random.default_rng(number).integers(-20, 21, (24, 24, 3))
    pixels = np.clip(np.array(COLOURS[fruit]) + noise, 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()
