"""Tars of Apple's reinforced datasets -> what the teachers saw and answered, sample by sample.

DataCompDR-12M and -1B (arXiv 2311.17049, on the hub as apple/DataCompDR-12M) are WebDataset tars
without images. A sample KEY has

    KEY.url.txt     where the image is
    KEY.json        uid, sha256 of the image
    KEY.syn.json    syn_text: captions that a model wrote
    KEY.paug.json   param_aug: a list, or its JSON as a string, with for each version
                    [[top, left, height, width], [[operation, magnitude], ...]]; see replay.py
    KEY.npz         image_emb [versions, dim], text_emb [1 + captions, dim], the image's own caption
                    first; or KEY.pth.gz, the same in bfloat16

where dim is that of several teachers side by side, each of unit length (two of 768). Tars that were
packed again with their images, for Apple's own trainer, hold the same beside KEY.jpg and KEY.txt.
"""

from __future__ import annotations

import gzip
import io
import json
import pickle
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32, Int

from openmofi.pairs.tar import Member, Members
from openmofi.refused import Refused
from openmofi.train.replay import OPERATIONS

_PARAMETERS, _CAPTIONS, _ABOUT, _URL = "paug.json", "syn.json", "json", "url.txt"
_VECTORS = ("npz", "pth.gz")
_UNIT = 0.05
"""How far from 1 the length of a vector in 16 bits may be."""


@dataclass(frozen=True)
class ReinforcedSample:
    """What is stored of an image."""

    uid: str
    url: str
    sha256: str
    """Of the image file, in hex digits; "" where it is not told, as are the others."""
    boxes: Int[np.ndarray, "versions 4"]
    """Top, left, height, width."""
    operations: Int[np.ndarray, "versions ops"]
    """Places in replay.OPERATIONS."""
    magnitudes: Float32[np.ndarray, "versions ops"]
    images: Float[np.ndarray, "versions dim"]
    caption: Float[np.ndarray, " dim"]
    """Of the image's own caption."""
    texts: list[str]
    """Synthetic captions, without empty and equal ones."""
    synthetic: Float[np.ndarray, "texts dim"]


def is_reinforced(place: Path) -> bool:
    """Returns whether a path is a tar, or a folder of tars that is no model."""
    if place.is_dir() and not (place / "config.json").is_file():
        return next(place.rglob("*.tar"), None) is not None
    return place.suffix == ".tar" and place.is_file()


def read_samples(path: Path, members: Members) -> Iterator[ReinforcedSample | Refused]:
    """Yields the samples of a tar: no_reinforcement without parameters or vectors, or damaged.

    Args:
        path: the tar.
        members: its files, of `scan_tar`.

    Raises:
        OSError: the file cannot be opened or read.
    """
    with path.open("rb") as file:
        for sample in _by_key(members):
            kind = next((kind for kind in _VECTORS if kind in sample), None)
            if kind is None or _PARAMETERS not in sample:
                yield Refused("no_reinforcement")
                continue
            raw = {}
            for name in {_PARAMETERS, _CAPTIONS, _ABOUT, _URL, kind} & set(sample):
                file.seek(sample[name].offset)
                raw[name] = file.read(sample[name].size)
            try:
                yield _sample(raw, kind)
            except (
                *(ValueError, OverflowError, TypeError, KeyError, IndexError, AttributeError),
                *(
                    OSError,
                    EOFError,
                    RuntimeError,
                    zlib.error,
                    zipfile.BadZipFile,
                    pickle.UnpicklingError,
                ),
            ):
                yield Refused("damaged_reinforcement")


def num_teachers(vector: Float[np.ndarray, " dim"]) -> int:
    """Returns in how many parts of equal width and unit length a vector falls.

    Raises:
        ValueError: in none.
    """
    total = round(float(np.square(vector, dtype=np.float64).sum()))
    if total < 1 or len(vector) % total:
        raise ValueError("not the vectors of teachers side by side")
    lengths = np.linalg.norm(vector.reshape(total, -1).astype(np.float64), axis=1)
    if np.abs(lengths - 1).max() > _UNIT:
        raise ValueError("not of unit length")
    return total


def _by_key(members: Iterable[Member]) -> Iterator[dict[str, Member]]:
    """Yields neighbours of one key: {what follows the first dot of a name: member}."""
    key, found = None, {}
    for member in members:
        folder, slash, name = member.name.rpartition("/")
        stem, _, extension = name.partition(".")
        if folder + slash + stem != key:
            if found:
                yield found
            key, found = folder + slash + stem, {}
        found[extension] = member
    if found:
        yield found


def _sample(raw: dict[str, bytes], kind: str) -> ReinforcedSample:
    about = json.loads(raw.get(_ABOUT, b"{}"))
    arrays = _arrays(raw[kind], kind)
    texts, synthetic = _synthetic(json.loads(raw.get(_CAPTIONS, b"{}")), arrays)
    boxes, operations, magnitudes = _parameters(json.loads(raw[_PARAMETERS])["param_aug"])
    images, caption = arrays["image_emb"], arrays["text_emb"][0]
    for vector in (*images, caption, *synthetic):
        num_teachers(vector)
    if len(images) != len(boxes) or images.shape[1:] != caption.shape:
        raise ValueError("vectors and parameters of different numbers of versions")
    return ReinforcedSample(
        uid=str(about.get("uid") or ""),
        url=raw.get(_URL, b"").decode().strip(),
        sha256=str(about.get("sha256") or ""),
        boxes=boxes,
        operations=operations,
        magnitudes=magnitudes,
        images=images,
        caption=caption,
        texts=texts,
        synthetic=synthetic,
    )


def _arrays(raw: bytes, kind: str) -> dict[str, np.ndarray]:
    """Returns the vectors in float32 by name."""
    if kind == "npz":
        with np.load(io.BytesIO(raw), allow_pickle=False) as file:
            return {name: file[name].astype(np.float32) for name in file.files}
    stored = torch.load(io.BytesIO(gzip.decompress(raw)), map_location="cpu", weights_only=True)
    return {name: torch.as_tensor(values).float().numpy() for name, values in stored.items()}


def _synthetic(
    written: dict[str, Any], arrays: dict[str, np.ndarray]
) -> tuple[list[str], np.ndarray]:
    """Returns the synthetic captions and their vectors, which are after the own ones'.

    Later sets, such as DFNDR-2B, have vectors NAME_emb beside text_emb.
    """
    texts: list[str] = []
    vectors = [arrays["text_emb"][:0]]
    names = [name for name in written if name.startswith("syn_text")]
    together = sum(len(written[name]) for name in names if f"{name}_emb" not in arrays)
    place = len(arrays["text_emb"]) - together
    if place < 1:
        raise ValueError("fewer vectors than texts")
    for name in names:
        own = arrays.get(f"{name}_emb")
        if own is None:
            own = arrays["text_emb"][place : place + len(written[name])]
            place += len(own)
        if len(own) != len(written[name]):
            raise ValueError("not one vector for each text")
        texts += map(str, written[name])
        vectors.append(own)
    chosen = {text: number for number, text in reversed([*enumerate(texts)]) if text}
    order = sorted(chosen.values())
    return [texts[number] for number in order], np.concatenate(vectors)[order]


def _parameters(stored: str | list) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns (boxes, operations, magnitudes) of the versions; nothing drawn is the identity."""
    versions = json.loads(stored) if isinstance(stored, str) else stored
    boxes = np.array([box for box, _ in versions], np.int32).reshape(len(versions), 4)
    lists = [operations or [] for _, operations in versions]
    most = max(map(len, lists), default=0)
    operations = np.zeros((len(lists), most), np.int8)
    magnitudes = np.zeros((len(lists), most), np.float32)
    for row, drawn in enumerate(lists):
        for column, (operation, magnitude) in enumerate(drawn):
            operations[row, column], magnitudes[row, column] = operation, magnitude
    if (
        boxes.size == 0
        or operations.min(initial=0) < 0
        or operations.max(initial=0) >= len(OPERATIONS)
    ):
        raise ValueError("no version, or an unknown operation")
    return boxes, operations, magnitudes
