"""Writes the demo world: shards of photos with captions, the truth about them, and knowledge.

Out, below one folder:
  shards/000000.tar …  training photos as img2dataset writes them: key.jpg, key.txt, key.json in a
                       plain tar, and 000000.parquet with one row per photo
  test/000000.tar …    other photos of the same entities, sorted by entity
  truth.parquet        what every photo shows and what every caption names
  dump.json.gz         countries and their namesakes in the form of a Wikidata dump
  signals.csv          the signal flags as a catalogue
The same seed gives the same bytes.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from openmofi.demo.captions import Caption, draw_caption
from openmofi.demo.dump import write_catalogue, write_dump
from openmofi.demo.entities import WORLD, DemoEntity
from openmofi.demo.flags import aspect, draw_flag
from openmofi.demo.photograph import photograph
from openmofi.demo.printed import Printer, print_text, text_to_print
from openmofi.demo.senses import SENSES
from openmofi.errors import InputError, SettingsError
from openmofi.progress import track

PHOTO_SIZE = 64
_SHARD_SIZE = 500
_FLAG_HEIGHT = 128
# img2dataset's keys are five digits of the shard and four of the row; test shards follow 90000.
_KEYS_PER_SHARD = 10_000
_FIRST_TEST_SHARD = 90_000

Split = Literal["train", "test"]
SizeName = Literal["small", "short", "full"]

# Entities of the small world: names with several senses, similar flags, and a few that are neither.

_SMALL = (
    *("TR", "GE", "JO", "TD", "JE", "IN", "PE", "CU", "RO", "FR", "JP", "CA"),
    *("I", "L", "Q", "G", "H", "O", "U", "Z"),
)
# Half of the world: all of these, every name with several senses, and more similar flags.
_SHORT = (
    *_SMALL,
    *("GR", "ID", "MC", "PL", "IE", "CI", "NL", "LU", "IT", "BE", "DE", "US", "GB", "AU", "NZ"),
    *("BR", "UA", "CH"),
    *("J", "K", "M", "N", "P", "R", "S", "T", "V", "W", "X", "Y"),
)


@dataclass(frozen=True)
class WorldSize:
    """The part of the world that is drawn."""

    codes: tuple[str, ...] | None
    """ISO codes and letters of its entities; None: all."""
    num_train: int
    """Photos per entity in shards/."""
    num_test: int
    """Photos per entity in test/."""


SIZES: dict[SizeName, WorldSize] = {
    "small": WorldSize(_SMALL, num_train=12, num_test=4),
    "short": WorldSize(_SHORT, num_train=60, num_test=10),
    "full": WorldSize(None, num_train=80, num_test=10),
}

SIDECAR = pa.schema(
    [
        ("key", pa.string()),
        ("caption", pa.string()),
        ("url", pa.string()),
        ("status", pa.string()),
        ("error_message", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("original_width", pa.int32()),
        ("original_height", pa.int32()),
        ("sha256", pa.string()),
    ]
)

TRUTH = pa.schema(
    [
        ("key", pa.string()),
        ("split", pa.string()),  # train | test
        ("shown", pa.string()),  # id of what the photo shows
        ("caption_kind", pa.string()),  # see captions.py
        ("mentioned", pa.list_(pa.string())),  # ids of what the caption names
        ("printed", pa.bool_()),  # whether a name from the caption is printed into the photo
    ]
)


@dataclass(frozen=True)
class WorldSummary:
    """What draw_world has written."""

    num_entities: int
    num_train: int
    num_test: int
    num_shards: int
    num_dump_entities: int
    num_signals: int
    caption_kinds: dict[str, int]
    """Number of training captions by kind."""
    num_printed: int = 0
    """Number of training photos with a name from their caption printed into them."""


@dataclass(frozen=True)
class _Sample:
    shown: str
    jpeg: bytes
    caption: Caption
    url: str
    printed: bool


def draw_world(
    out: Path,
    *,
    size: SizeName,
    seed: int,
    printed: float = 0.0,
    printer: Printer = print_text,
) -> WorldSummary:
    """Draws a world into the folder `out`; returns its size.

    Args:
        out: the folder.
        size: size of the world.
        seed: seed of every draw; photos and captions do not depend on `printed`.
        printed: share of the training photos into which a name from their caption is printed,
            right or wrong; test photos stay plain.
        printer: function that prints it.

    Raises:
        SettingsError: the size, the share or the seed is invalid.
        InputError: the folder contains shards of a larger world.
    """
    if size not in SIZES:
        raise SettingsError(f"The demo world has no size {size!r}; use {' or '.join(SIZES)}.")
    check_seed(seed)
    if not 0 <= printed <= 1:
        raise SettingsError(f"A share of {printed} photos cannot be printed; give 0 to 1.")
    wanted = SIZES[size]
    entities = [e for e in WORLD if wanted.codes is None or e.iso in wanted.codes]
    _refuse_other_shards(out / "shards", len(entities) * wanted.num_train)
    _refuse_other_shards(out / "test", len(entities) * wanted.num_test)
    train = list(_samples(entities, "train", count=wanted.num_train, seed=seed))
    if printed:
        train = list(_printed(train, wanted.num_train, seed, printed, printer))
    test = list(_samples(entities, "test", count=wanted.num_test, seed=seed))
    order = np.random.default_rng([seed, 2]).permutation(len(train))
    train = [train[index] for index in order]
    truth = [
        *_write_shards(out / "shards", train, "train"),
        *_write_shards(out / "test", test, "test"),
    ]
    pq.write_table(pa.Table.from_pylist(truth, TRUTH), out / "truth.parquet")
    countries = [e for e in entities if e.kind == "country"]
    signals = [e for e in entities if e.kind == "signal"]
    return WorldSummary(
        num_entities=len(entities),
        num_train=len(train),
        num_test=len(test),
        num_shards=_num_shards(len(train)),
        num_dump_entities=write_dump(out / "dump.json.gz", countries=countries, senses=SENSES),
        num_signals=write_catalogue(out / "signals.csv", signals=signals),
        caption_kinds=dict(Counter(sample.caption.kind for sample in train)),
        num_printed=sum(sample.printed for sample in train),
    )


def check_seed(seed: int) -> None:
    """Rejects a seed that numpy does not accept.

    Raises:
        SettingsError: the seed is negative.
    """
    if seed < 0:
        raise SettingsError(f"--seed cannot be {seed}; expected a number from 0 up.")


def _samples(
    entities: Sequence[DemoEntity], split: Split, *, count: int, seed: int
) -> Iterator[_Sample]:
    """Yields `count` photos of each entity, in the entities' order."""
    for entity in track(entities, f"drawing {split} photos", total=len(entities), unit="entities"):
        flag = draw_flag(entity, round(_FLAG_HEIGHT * aspect(entity.flag)))
        number = WORLD.index(entity)
        for index in range(count):
            # A generator per photo, so that photos do not depend on each other.
            rng = np.random.default_rng([seed, int(split == "test"), number, index])
            jpeg = photograph(flag, rng, size=PHOTO_SIZE)
            caption = draw_caption(entity, rng, others=entities)
            url = f"https://example.org/{rng.bytes(6).hex()}.jpg"
            yield _Sample(entity.id, jpeg, caption, url, printed=False)


def _printed(
    samples: Sequence[_Sample], count: int, seed: int, share: float, printer: Printer
) -> Iterator[_Sample]:
    """Yields the photos, a share of them, chosen by the seed, with a printed name."""
    numbers = {entity.id: number for number, entity in enumerate(WORLD)}
    for place, sample in enumerate(samples):
        rng = np.random.default_rng([seed, 3, numbers[sample.shown], place % count])
        if rng.random() < share:
            jpeg = printer(sample.jpeg, text_to_print(sample.caption), rng)
            sample = replace(sample, jpeg=jpeg, printed=True)
        yield sample


def _write_shards(folder: Path, samples: Sequence[_Sample], split: Split) -> Iterator[dict]:
    """Writes tars with their sidecars; yields the rows of the truth."""
    folder.mkdir(parents=True, exist_ok=True)
    first = _FIRST_TEST_SHARD if split == "test" else 0
    for shard in range(_num_shards(len(samples))):
        members = samples[shard * _SHARD_SIZE : (shard + 1) * _SHARD_SIZE]
        start = (first + shard) * _KEYS_PER_SHARD
        keys = [f"{start + row:09d}" for row in range(len(members))]
        rows = [
            {
                "key": key,
                "caption": sample.caption.text,
                "url": sample.url,
                "status": "success",
                "error_message": None,
                "width": PHOTO_SIZE,
                "height": PHOTO_SIZE,
                "original_width": PHOTO_SIZE,
                "original_height": PHOTO_SIZE,
                "sha256": hashlib.sha256(sample.jpeg).hexdigest(),
            }
            for key, sample in zip(keys, members, strict=True)
        ]
        path = folder / f"{shard:06d}.tar"
        with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
            for row, sample in zip(rows, members, strict=True):
                _add(tar, f"{row['key']}.jpg", sample.jpeg)
                _add(tar, f"{row['key']}.txt", sample.caption.text.encode())
                _add(tar, f"{row['key']}.json", json.dumps(row).encode())
        pq.write_table(pa.Table.from_pylist(rows, SIDECAR), folder / f"{shard:06d}.parquet")
        for key, sample in zip(keys, members, strict=True):
            yield {
                "key": key,
                "split": split,
                "shown": sample.shown,
                "caption_kind": sample.caption.kind,
                "mentioned": list(sample.caption.mentioned),
                "printed": sample.printed,
            }


def _num_shards(num_photos: int) -> int:
    return -(-num_photos // _SHARD_SIZE)


def _refuse_other_shards(folder: Path, num_photos: int) -> None:
    """Rejects a folder in which shards of a larger world would remain."""
    ours = {f"{shard:06d}" for shard in range(_num_shards(num_photos))}
    for path in sorted(folder.glob("*")):
        if path.suffix in (".tar", ".parquet") and path.stem not in ours:
            raise InputError(
                f"{folder} already holds {path.name}, which is not part of this world; "
                "give an empty folder with --out, or remove the old one."
            )


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    """Adds a file without owner or time, so that equal worlds have equal bytes."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))
