"""A tiny world: a catalogue of fruit in which two apples share a name, and captioned images."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from conftest import write_tar

CATALOGUE = """id,name,aliases,description,weight
red,Red Apple,apple|pomme,a round red fruit,3
green,Green Apple,apple,a round green fruit,1
lime,Lime,,a small green citrus,2
plum,Plum,,a small purple fruit,2
"""
COLOURS = {"red": (220, 30, 30), "green": (40, 200, 40), "lime": (150, 220, 40)}
CAPTIONS = {"red": "a red apple", "green": "one apple", "lime": "lime on a table"}
NAMES = tuple(COLOURS)


def write_catalogue(folder: Path, text: str = CATALOGUE) -> Path:
    path = folder / "fruit.csv"
    path.write_text(text)
    return path


def photo(name: str, number: int = 0, side: int = 24, kind: str = "JPEG", mode="RGB") -> bytes:
    """A noisy patch of the fruit's colour."""
    noise = np.random.default_rng(number).integers(-25, 26, (side, side, 3))
    pixels = np.clip(np.array(COLOURS[name]) + noise, 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, kind)
    return buffer.getvalue()


def write_pairs(folder: Path, *, shards: int = 2, per_shard: int = 12) -> Path:
    """Writes tars in which red, green and lime take turns; a third of the captions is ambiguous."""
    folder.mkdir(parents=True, exist_ok=True)
    for shard in range(shards):
        members = {}
        for i in range(per_shard):
            name, number = NAMES[i % 3], shard * per_shard + i
            members[f"{number:03d}.jpg"] = photo(name, number)
            members[f"{number:03d}.txt"] = CAPTIONS[name].encode()
        write_tar(folder / f"{shard}.tar", members)
    return folder


def write_listing(folder: Path, *, images: int = 12) -> Path:
    """Writes images as files, with captions.csv and test.csv (their labels)."""
    folder.mkdir(parents=True, exist_ok=True)
    captions, labels = ["file,caption"], ["file,label"]
    for i in range(images):
        name = NAMES[i % 3]
        (folder / f"{i:03d}.jpg").write_bytes(photo(name, i))
        captions.append(f"{i:03d}.jpg,{CAPTIONS[name]}")
        labels.append(f"{i:03d}.jpg,{name}")
    (folder / "captions.csv").write_text("\n".join(captions) + "\n")
    (folder / "test.csv").write_text("\n".join(labels) + "\n")
    return folder


def bomb(side: int = 30_000) -> bytes:
    """A PNG of a hundred bytes whose header claims side x side pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    parts = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(b"\0" * 64)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def needle() -> bytes:
    """An image one pixel wide and very high."""
    buffer = io.BytesIO()
    Image.new("RGB", (1, 5000)).save(buffer, "PNG")
    return buffer.getvalue()


def animation(kind: str) -> bytes:
    """Three frames of different colours; the first one counts."""
    first, *others = (Image.open(io.BytesIO(photo(name, side=8))) for name in NAMES)
    buffer = io.BytesIO()
    first.save(buffer, kind, save_all=True, append_images=others, duration=100)
    return buffer.getvalue()


GOOD = {
    "one_pixel": photo("red", side=1, kind="PNG"),
    "cmyk": photo("red", mode="CMYK"),
    "grey": photo("green", mode="L"),
    "palette": photo("green", kind="GIF", mode="P"),
    "animated_gif": animation("GIF"),
    "animated_png": animation("PNG"),
}
BAD = {
    "zero_byte": (b"", "corrupt_image"),
    "text": (b"not an image", "corrupt_image"),
    "cut_off": (photo("lime", side=64)[:400], "corrupt_image"),
    "bomb": (bomb(), "image_too_large"),
    "large": (bomb(10_000), "image_too_large"),
    "needle": (needle(), "image_too_narrow"),
}

_CAPTIONS = {
    "latin.txt": b"caf\xe9 apple",
    "blank.txt": b" \n",
    "mega.txt": b"apple pie " * 100_000,
    "deep.json": b"[" * 100_000,
    "half.json": b'{"caption": "apple \\ud800"}',
}


def damaged_members() -> dict[str, bytes]:
    """Files of a tar: good images, bad images, bad captions, and a caption alone."""
    members = {"whole.jpg": photo("red"), "whole.txt": b"apple"}
    for name, data in GOOD.items():
        members |= {f"{name}.jpg": data, f"{name}.txt": b"a red apple"}
    for name, (data, _) in BAD.items():
        members |= {f"{name}.jpg": data, f"{name}.txt": b"a red apple"}
    for name, data in _CAPTIONS.items():
        members |= {name.split(".")[0] + ".jpg": photo("lime"), name: data}
    return members | {"alone.txt": b"apple"}


def damaged_keys() -> set[str]:
    """Keys of the samples in `damaged_members`."""
    return {name.split(".")[0] for name in damaged_members()}
