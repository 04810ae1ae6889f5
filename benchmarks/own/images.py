"""Images: rows of own_code.py."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from own.rivals import Finding, brings, ratios, rival
from PIL import Image, ImageOps
from reading import image


def jpeg_header(folder: Path) -> Iterator[Finding]:
    from openmofi.images.jpeg import PlainJpeg, plain_jpeg

    def header(data: bytes) -> PlainJpeg:
        found = plain_jpeg(data)
        assert found
        return found

    def drafted(data: bytes) -> Image.Image:
        image = Image.open(io.BytesIO(data))
        image.draft("L", (image.width // 2, image.height // 2))
        image.load()
        return image

    def opened(data: bytes) -> Image.Image:
        image = Image.open(io.BytesIO(data))
        image.load()
        return image

    simple = rival("simplejpeg")
    for side in (96, 1024):
        data = [image(number, side) for number in range(100 if side < 500 else 8)]
        ours = [header(d).decode(d).tobytes() for d in data]
        same = ours == [opened(d).tobytes() for d in data]
        jobs = {
            "header alone": (header, lambda d: Image.open(io.BytesIO(d)).size),
            "decoded": (lambda d: header(d).decode(d), opened),
            "grey at half the size": (lambda d: header(d).decode(d, scale=2, grey=True), drafted),
        }
        for what, (mine, theirs) in jobs.items():
            repeats = range(20 if what == "header alone" else 1)
            found = ratios(
                lambda f=mine, n=repeats, some=data: [f(d) for _ in n for d in some],
                {"r": lambda f=theirs, n=repeats, some=data: [f(d) for _ in n for d in some]},
            )
            note = f"same pixels: {same}" if what == "decoded" else ""
            yield Finding(f"Pillow, {side} px, {what}", found["r"], note)
        if simple:
            found = ratios(
                lambda some=data: [header(d).decode(d) for d in some],
                {"r": lambda some=data: [simple.decode_jpeg(d) for d in some]},
            )
            theirs = [simple.decode_jpeg(d).tobytes() for d in data]
            note = f"same pixels: {theirs == ours} {brings('simplejpeg')}"
            yield Finding(f"simplejpeg, {side} px, decoded", found["r"], note)
            half = {"min_height": side // 2, "min_width": side // 2, "colorspace": "GRAY"}
            found = ratios(
                lambda some=data: [header(d).decode(d, scale=2, grey=True) for d in some],
                {"r": lambda some=data, h=half: [simple.decode_jpeg(d, **h) for d in some]},
            )
            yield Finding(f"simplejpeg, {side} px, grey at half the size", found["r"])


def orientation(folder: Path) -> Iterator[Finding]:
    from openmofi.images.decode import decode_image

    def jpeg(entry: bytes) -> bytes:
        turned = b"\x12\x01\x03\0\x01\0\0\0\x06\0\0\0"
        block = b"Exif\0\0II*\0\x08\0\0\0\x02\0" + turned + entry + b"\0\0\0\0"
        buffer = io.BytesIO()
        Image.new("RGB", (96, 64), (90, 90, 200)).save(buffer, "JPEG", exif=block)
        return buffer.getvalue()

    good, odd = jpeg(b"\x1b\x01\x03\0\x01\0\0\0\x48\0\0\0"), jpeg(b"\x1a\x01\x02\0\x04\0\0\0abc\0")

    def pillow(data: bytes) -> tuple[int, int]:
        return ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB").size

    def ours(data: bytes) -> tuple[int, int]:
        image = decode_image(data)
        return (image[0] if isinstance(image, tuple) else image).size

    assert ours(good) == pillow(good) == (64, 96)
    try:
        came = f"{pillow(odd)}"
    except Exception as error:
        came = f"{type(error).__name__}, the image is lost"
    found = ratios(
        lambda: [ours(good) for _ in range(200)], {"r": lambda: [pillow(good) for _ in range(200)]}
    )
    note = f"a resolution written as text: ours {ours(odd)}; Pillow {came}"
    yield Finding("Pillow's exif_transpose", found["r"], note)


def phash(folder: Path) -> Iterator[Finding]:
    from openmofi.demo.entities import WORLD
    from openmofi.demo.flags import draw_flag
    from openmofi.demo.photograph import photograph
    from openmofi.images.phash import distance, perceptual_hash

    if not (theirs := rival("imagehash", "imagehash")):
        return
    rng = np.random.default_rng(0)
    drawn = [draw_flag(entity, 192) for entity in WORLD]
    flags = [flag.convert("RGB") for flag in drawn]
    photos = [photograph(flag, rng, size=192) for flag in drawn for _ in range(4)]

    def again(image: Image.Image) -> Image.Image:
        buffer = io.BytesIO()
        image.resize((image.width * 2 // 3, image.height * 2 // 3)).save(buffer, "JPEG", quality=60)
        return Image.open(buffer)

    def number(image: Image.Image) -> int:
        return int(str(theirs.phash(image)), 16)

    def told(hashed: Callable[[Image.Image], int | None], images: list[Image.Image]) -> str:
        first, second = ([hashed(image) for image in some] for some in (images, copies(images)))
        known = [h for h in first if h is not None]
        same = sum(
            distance(a, b) <= 4
            for a, b in zip(first, second, strict=True)
            if a is not None and b is not None
        )
        mixed = sum(distance(a, b) <= 4 for i, a in enumerate(known) for b in known[:i])
        flat = f", {len(first) - len(known)} called too flat" if len(known) < len(first) else ""
        return f"{same} of {len(first)} found again{flat}, {mixed} false pairs"

    def copies(images: list[Image.Image]) -> list[Image.Image]:
        return [again(image) for image in images]

    shots = [Image.open(io.BytesIO(data)).convert("RGB") for data in photos]
    found = ratios(
        lambda: [perceptual_hash(i) for i in shots], {"r": lambda: [number(i) for i in shots]}
    )
    notes = [
        f"{what}: ours {told(perceptual_hash, images)}; it {told(number, images)}"
        for what, images in (("photos of flags", shots), ("flags alone", flags))
    ]
    yield Finding("imagehash", found["r"], f"{'; '.join(notes)} {brings('imagehash')}")


def duplicates(folder: Path) -> Iterator[Finding]:
    import faiss

    from openmofi.select.duplicates import near_duplicates

    faiss.omp_set_num_threads(1)
    rng = np.random.default_rng(0)

    def made(num: int) -> np.ndarray:
        hashes = rng.integers(0, 1 << 63, num, dtype=np.uint64)
        again = rng.integers(0, num, num // 10)
        flips = np.uint64(1) << rng.integers(0, 63, (3, num // 10), dtype=np.uint64)
        copies = hashes[again] ^ np.bitwise_xor.reduce(flips)
        return rng.permutation(np.concatenate([hashes, copies]))

    def pairs(index: Any, codes: np.ndarray) -> list[tuple[int, int]]:
        index.add(codes)
        limits, _, found = index.range_search(codes, 5)  # less than 5 bits
        limits = np.asarray(limits).astype(np.int64)
        of = np.repeat(np.arange(len(codes)), np.diff(limits))
        return list(zip(of[of > found].tolist(), found[of > found].tolist(), strict=True))

    def left(removed: set[int], near: list[tuple[int, int]]) -> str:
        both = sum(a not in removed and b not in removed for a, b in near)
        return f"{both} of {len(near):,} near pairs are left, {len(removed):,} hashes removed"

    hashes = made(60_000)
    codes = hashes.view(np.uint8).reshape(-1, 8)
    rivals = {
        "faiss IndexBinaryFlat": lambda: pairs(faiss.IndexBinaryFlat(64), codes),
        "faiss IndexBinaryMultiHash": lambda: pairs(faiss.IndexBinaryMultiHash(64, 5, 12), codes),
    }
    timed = ratios(lambda: near_duplicates(hashes, 4), rivals, 3)
    ours = set(np.flatnonzero(near_duplicates(hashes, 4) >= 0).tolist())
    exact = rivals["faiss IndexBinaryFlat"]()
    for name, run in rivals.items():
        note = f"ours: {left(ours, exact)}; it lists {len(run()):,} pairs, of which to choose"
        yield Finding(f"{name}, 66,000 hashes", timed[name], note)
    if not (sketch := rival("datasketch")):
        return
    few = made(2000)

    def by_minhash() -> set[int]:
        lsh, removed = sketch.MinHashLSH(threshold=0.8, num_perm=128), set()
        for i, word in enumerate(few.tolist()):
            bits = sketch.MinHash(num_perm=128)
            bits.update_batch([b"%d %d" % (bit, word >> bit & 1) for bit in range(64)])
            if lsh.query(bits):
                removed.add(i)
            else:
                lsh.insert(i, bits)
        return removed

    timed = ratios(lambda: near_duplicates(few, 4), {"r": by_minhash}, 1)
    exact = pairs(faiss.IndexBinaryFlat(64), few.view(np.uint8).reshape(-1, 8))
    ours, theirs = set(np.flatnonzero(near_duplicates(few, 4) >= 0).tolist()), by_minhash()
    note = f"ours: {left(ours, exact)}; it: {left(theirs, exact)} {brings('datasketch')}"
    yield Finding("datasketch MinHashLSH, 2,200 hashes", timed["r"], note)
