"""Sources of the vectors of a benchmark's images: a model, or a file with vectors.

Both have `images(places)` -> Encoded and `texts(...)` -> vectors. A file cannot encode texts;
`reads_texts` says whether `texts` may be called.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Int

from openmofi.embed import Places
from openmofi.embeddings import read_embeddings
from openmofi.errors import InputError
from openmofi.evaluate.cache import VectorCache, content_key, model_folder
from openmofi.images.look import Box, decode_bytes, fetch
from openmofi.model import MofiModel, load_model
from openmofi.pairs import ImageReader
from openmofi.progress import progress
from openmofi.refused import Refused

_BATCH = 256
_STORE_EVERY, _STORE_SECONDS = 4096, 60.0
"""Images and seconds between two writes of the cache; an interrupted evaluation loses no more."""


@dataclass(frozen=True)
class Encoded:
    """The images that could be encoded."""

    vectors: Float[np.ndarray, "n dim"]
    rows: Int[np.ndarray, " n"]
    """Their rows in the table of places."""
    refused: dict[str, int] = field(default_factory=dict)
    """Number of the others, by reason."""


class ModelVectors:
    """A dual encoder, with a cache of the images that it has encoded."""

    def __init__(self, model: str | Path | MofiModel, *, device: str, cache: Path | None):
        self._cache: VectorCache | None = None
        self._fresh: list[tuple[bytes, np.ndarray]] = []
        self._stored = time.monotonic()
        self.folder: Path | None = None
        if not isinstance(model, (str, Path)):
            self.model, self.name = model, "in memory"
            return
        self.model, self.name = load_model(model, device=device), str(model)
        self.folder = Path(model) if Path(model).is_dir() else None
        if cache is not None:
            self._cache = VectorCache(model_folder(cache, str(model), self.model), self.model.dim)

    @property
    def reads_texts(self) -> bool:
        """Whether `texts` may be called."""
        return getattr(self.model, "reads_texts", True)  # an encoder of a user's own may not say

    def texts(self, texts: Sequence[str]) -> Float[np.ndarray, "n dim"]:
        """Returns unit vectors of texts."""
        return self.model.encode_texts(texts)

    def images(self, places: Places, title: str, *, alone: bool = True) -> Encoded:
        """Returns the vectors of the images that can be read; the progress bar shows `title`."""
        del alone  # matters only to a file of vectors
        return self._encode(_contents(places), total=len(places.table), title=title)

    def encode_bytes(self, encoded: Iterable[bytes], *, total: int, title: str) -> Encoded:
        """Returns the vectors of encoded images that are in no file, such as drawn ones."""
        return self._encode(((data, None) for data in encoded), total=total, title=title)

    def _encode(
        self, contents: Iterable[tuple[bytes | Refused, Box | None]], *, total: int, title: str
    ) -> Encoded:
        parts, rows, refused = [np.zeros((0, self.model.dim), np.float32)], [], Counter()
        contents, start = iter(contents), 0
        with progress(f"embed {title}", total=total, unit="images") as bar:
            while batch := list(islice(contents, _BATCH)):
                good, vectors, num_known = self._encode_batch(batch, refused)
                parts.append(vectors)
                rows.extend(start + i for i in good)
                start += len(batch)
                bar.skip(num_known)
                bar.advance(len(batch) - num_known)
        self._store()
        return Encoded(np.concatenate(parts), np.array(rows, dtype=np.int64), dict(refused))

    def _encode_batch(
        self, batch: Sequence[tuple[bytes | Refused, Box | None]], refused: Counter[str]
    ) -> tuple[list[int], Float[np.ndarray, "n dim"], int]:
        """Returns (positions of the readable images, their vectors, how many the cache had).

        Counts the others.
        """
        vectors: dict[int, np.ndarray] = {}
        keys: dict[int, bytes] = {}
        pixels: dict[int, np.ndarray] = {}
        for i, (data, crop) in enumerate(batch):
            if isinstance(data, Refused):
                refused[data.reason] += 1
                continue
            keys[i] = content_key(data, crop) if self._cache else b""
            known = self._cache.get(keys[i]) if self._cache else None
            if known is not None:
                vectors[i] = known
                continue
            decoded = decode_bytes(data, self.model.transform, crop=crop)
            if isinstance(decoded, Refused):
                refused[decoded.reason] += 1
            else:
                pixels[i] = decoded
        num_known = len(vectors)
        if pixels:
            new = self.model.encode_pixels(np.stack(list(pixels.values())))
            vectors |= dict(zip(pixels, new, strict=True))
            self._remember([(keys[i], vectors[i]) for i in pixels])
        good = sorted(vectors)
        found = np.array([vectors[i] for i in good], np.float32).reshape(-1, self.model.dim)
        return good, found, num_known

    def _remember(self, fresh: list[tuple[bytes, np.ndarray]]) -> None:
        if self._cache is not None:
            self._fresh += fresh
            late = time.monotonic() - self._stored >= _STORE_SECONDS
            if late or len(self._fresh) >= _STORE_EVERY:
                self._store()

    def _store(self) -> None:
        if self._cache is not None and self._fresh:
            keys, vectors = zip(*self._fresh, strict=True)
            self._cache.put(list(keys), np.stack(vectors))
            self._fresh, self._stored = [], time.monotonic()


def _contents(places: Places) -> Iterator[tuple[bytes | Refused, Box | None]]:
    """Yields each image's bytes, or the reason why it has none, and the part to use."""
    reader = ImageReader(places.root)
    wanted = ("shard", "path", "offset", "size", "crop")
    names = [name for name in wanted if name in places.table.schema.names]
    for batch in places.table.select(names).to_batches(max_chunksize=_BATCH):
        for row in batch.to_pylist():
            crop = tuple(row["crop"]) if row.get("crop") else None
            yield fetch(reader.read, row), crop


class FileVectors:
    """Stored vectors: outputs of `openmofi embed`, or one .npy in the order of the data.

    `embed` stores each vector with its image's folder, shard and offset. If that folder does not
    exist on this machine, images are recognised by their place in it.

    Raises:
        InputError: a file is neither or holds NaN, or the files are of several models.
    """

    reads_texts = False
    folder: Path | None = None
    """Directory of the model that made the vectors, if the file names one on this machine."""
    digest = ""
    """What `model_digest` said of that model; "" if the file does not tell."""

    def __init__(self, *paths: Path | str):
        files = [Path(path) for path in paths]
        self.path, self.name = files[0], str(files[0])
        self._row_of: dict[str, int] | None = None
        self._moved = False
        if len(files) == 1 and self.path.suffix == ".npy":
            self._vectors = _unit_rows(_read_npy(self.path), self.path)
            return
        tables, parts = [], []
        for file in files:
            found = read_embeddings(file)
            if found.rows["shard"].null_count == len(found.rows):
                raise InputError(
                    f"{str(file)!r} does not say where its images are; make it with "
                    "`openmofi embed`, or pass a .npy with the vectors in the order of the data."
                )
            tables.append(found.rows)
            parts.append(found.vectors)
        models = {_stated(rows, "model") for rows in tables}
        digests = {_stated(rows, "model_sha256") for rows in tables}
        if len(models) > 1 or len({part.shape[1] for part in parts}) > 1:
            raise InputError(
                f"The files hold vectors of several models ({', '.join(sorted(models))}); "
                "evaluate one at a time."
            )
        if model := models.pop():
            self.name, self.folder = model, Path(model) if Path(model).is_dir() else None
        self.digest = digests.pop() if len(digests) == 1 else ""
        self._vectors = np.concatenate(
            [_unit_rows(part, file) for part, file in zip(parts, files, strict=True)]
        )
        roots = [_stated(rows, "root") for rows in tables]
        self._moved = not all("://" in root or Path(root).exists() for root in roots)
        roots = [""] * len(files) if self._moved else roots
        pairs = zip(tables, roots, strict=True)
        self._row_of = {}
        for row, place in enumerate(
            place for table, root in pairs for place in _names(table, root)
        ):
            self._row_of[place] = _TWICE if place in self._row_of else row

    def texts(self, texts: Sequence[str]) -> Float[np.ndarray, "n dim"]:
        """Must not be called; see `reads_texts`."""
        raise AssertionError("a file of vectors cannot encode texts")

    def images(self, places: Places, title: str, *, alone: bool = True) -> Encoded:
        """Returns the vectors of those images that the file has.

        Args:
            places: where the images are.
            title: name of the images in messages.
            alone: whether these are all images of the dataset, not one of its splits.

        Raises:
            InputError: a .npy has another length or is used for one of several splits, a file has
                vectors for less than half of the images, or an image is only part of its file.
        """
        if "crop" in places.table.schema.names:
            raise InputError(
                f"{title!r} are parts of images, which {str(self.path)!r} cannot have; pass the "
                "model instead of --embeddings."
            )
        total = len(places.table)
        if not alone and (self._row_of is None or self._moved):
            raise InputError(
                f"{str(self.path)!r} does not say which split its vectors are of, but {title!r} is "
                "one of two; pass the vectors that `openmofi embed` makes of this folder."
            )
        if self._row_of is None:
            return self._in_order(total, title)
        found = self._find(places)
        rows = np.flatnonzero(found >= 0)
        if 2 * len(rows) < total:
            raise InputError(
                f"{str(self.path)!r} has vectors of {len(rows):,} of the {total:,} images of "
                f"{title!r}; pass all files that `openmofi embed` made of this data."
            )
        lost = {"not_in_embeddings": total - len(rows)} if len(rows) < total else {}
        return Encoded(self._vectors[found[rows]], rows, lost)

    def _in_order(self, total: int, title: str) -> Encoded:
        if len(self._vectors) != total:
            raise InputError(
                f"{str(self.path)!r} holds {len(self._vectors):,} vectors but {title!r} has "
                f"{total:,} images; pass a file of `openmofi embed`, whose rows name their images."
            )
        return Encoded(self._vectors, np.arange(total))

    def _find(self, places: Places) -> Int[np.ndarray, " n"]:
        """Returns the file's row of each image, or -1."""
        assert self._row_of is not None
        root = "" if self._moved else str(places.root.resolve())
        found = [self._row_of.get(place, -1) for place in _names(places.table, root)]
        rows = np.array(found, dtype=np.int64)
        if (rows == _TWICE).any():
            raise InputError(
                f"{str(self.path)!r} has several vectors for one image; embed the data again."
            )
        return rows


Vectors = ModelVectors | FileVectors

_TWICE = -2


def _names(table: pa.Table, root: str) -> list[str]:
    """Returns the place of each image: a file, or an offset or row in a shard."""
    columns = (table[name].to_pylist() for name in ("shard", "path", "offset"))
    return [
        f"{root}/{shard}#{offset if offset >= 0 else path}"
        if offset >= 0 or path.startswith("row:")
        else f"{root}/{path}"
        for shard, path, offset in zip(*columns, strict=True)
    ]


def _read_npy(path: Path) -> np.ndarray:
    try:
        vectors = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError, BadZipFile) as error:
        raise InputError(f"{str(path)!r} is not a readable .npy file: {error}.") from None
    if not isinstance(vectors, np.ndarray) or vectors.ndim != 2 or vectors.dtype.kind != "f":
        kind = getattr(vectors, "dtype", "several arrays")
        raise InputError(
            f"{str(path)!r} holds {kind} of shape {getattr(vectors, 'shape', '?')}; expected "
            "floating point numbers [images, dim]."
        )
    return vectors.astype(np.float32)


def _unit_rows(vectors: np.ndarray, path: Path) -> np.ndarray:
    """Returns rows of length 1; refuses rows without a direction."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    bad = int((~np.isfinite(norms) | (norms == 0)).sum())
    if bad:
        raise InputError(
            f"{bad:,} of the {len(vectors):,} vectors in {str(path)!r} hold NaN or infinity, or "
            "are all zeros; make the file again."
        )
    return vectors / norms


def _stated(rows: pa.Table, name: str) -> str:
    """Returns the name of the model or the root that `openmofi embed` wrote into its tables."""
    metadata = rows.schema.metadata or {}
    return metadata.get(f"openmofi.{name}".encode(), b"").decode()
