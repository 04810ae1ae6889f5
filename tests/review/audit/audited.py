"""A small selection to audit: 60 labels of three entities, two sources, with images."""

from pathlib import Path

import fruit
from labelled import candidate, pair, write_i2e
from openmofi.config import SelectSettings
from openmofi.select import select

BY_SCORE = SelectSettings(order="text-first", threshold=1.0, min_images=1)


def write_selection(folder: Path, *, images: int = 60, caption: str = "apple") -> Path:
    """Selects labels of red, green and lime, in numbers of 36, 18 and 6 of 60."""
    names = ["red"] * 6 + ["green"] * 3 + ["lime"]
    rows = []
    for i in range(images):
        name = names[i % 10]
        row = pair(
            f"{i:03d}", candidate(name, z=3.0, text=0.5 + i / 200), image=b"%d" % i, caption=caption
        )
        rows.append(row | {"url": f"https://{'a' if i % 3 else 'b'}.example/{i}.jpg"})
        (folder / f"{i:03d}.jpg").write_bytes(fruit.photo(name, i))
    return select(write_i2e(folder, rows), settings=BY_SCORE).out


def answer_by(wrong: set[str]):
    """Answers no to the entities named, and yes to all others."""
    return lambda draw, audited: "no" if draw.entity in wrong else "yes"
