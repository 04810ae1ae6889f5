"""The kept images of a selection, one by one, with their encoded bytes and labels."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from openmofi.errors import InputError
from openmofi.images.decode import read_header, refuse
from openmofi.images.look import fetch
from openmofi.pairs import ImageReader
from openmofi.progress import progress
from openmofi.refused import Refused

ABOUT = pa.schema(
    [
        ("key", pa.string()),
        ("caption", pa.string()),
        ("url", pa.string()),
        (
            "entities",
            pa.list_(
                pa.struct([("id", pa.string()), ("label", pa.string()), ("score", pa.float32())])
            ),
        ),
        ("source_shard", pa.string()),
        ("source_key", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("sha256", pa.string()),
    ]
)
"""The description of each image in every format."""

_BATCH = 1000
_EXTENSIONS = {"JPEG": "jpg", "MPO": "jpg", "TIFF": "tif", "JPEG2000": "jp2"}


@dataclass(frozen=True)
class Label:
    """An entity that an image shows."""

    id: str
    label: str
    score: float


@dataclass(frozen=True)
class ExportSample:
    """A kept image."""

    key: str
    """Unique within the export: the image's number in nine digits."""
    data: bytes
    """The encoded bytes as they were found."""
    extension: str
    width: int
    height: int
    caption: str
    url: str
    entities: tuple[Label, ...]
    source_shard: str
    source_key: str

    def about(self) -> dict[str, Any]:
        """Returns a row of ABOUT."""
        row = {
            name: getattr(self, name) for name in ABOUT.names if name not in ("entities", "sha256")
        }
        row["entities"] = [asdict(entity) for entity in self.entities]
        return row | {"sha256": hashlib.sha256(self.data).hexdigest()}


class Selected:
    """The output of `openmofi select`."""

    def __init__(self, folder: Path):
        if not (folder / "keep.parquet").is_file():
            raise InputError(
                f"{str(folder)!r} is not a selection; pass I2E/select/NAME as `openmofi select` "
                "writes it."
            )
        self.folder = folder
        self.card: dict[str, Any] = json.loads((folder / "card.json").read_text())
        self.vocabulary = pq.read_table(folder / "vocabulary.parquet")
        self.unreadable: Counter[str] = Counter()
        """Number of images that `samples` has left out so far, by reason."""

    @property
    def root(self) -> str:
        """Where the images lie."""
        return self.card["input"]

    def rows(self, columns: list[str] | None = None) -> Iterator[dict[str, Any]]:
        """Yields the rows of keep.parquet."""
        with pq.ParquetFile(self.folder / "keep.parquet") as file:
            for batch in file.iter_batches(_BATCH, columns=columns):
                yield from batch.to_pylist()

    def samples(self) -> Iterator[ExportSample]:
        """Yields the images that can be read, and counts the others."""
        ids, labels = (self.vocabulary[name].to_pylist() for name in ("id", "label"))
        reader = ImageReader(self.root)
        number = 0
        with progress("export", total=self.card["funnel"]["kept_images"], unit="images") as bar:
            for row in self.rows():
                bar.advance()
                found = _read(reader, row)
                if isinstance(found, Refused):
                    self.unreadable[found.reason] += 1
                    continue
                yield ExportSample(
                    f"{number:09d}",
                    *found,
                    caption=row["caption"],
                    url=row["url"],
                    entities=tuple(
                        Label(ids[c], labels[c], round(score, 6))
                        for c, score in zip(row["classes"], row["scores"], strict=True)
                    ),
                    source_shard=row["shard"],
                    source_key=row["key"],
                )
                number += 1


def _read(reader: ImageReader, row: dict[str, Any]) -> tuple[bytes, str, int, int] | Refused:
    """Returns (bytes, extension, width, height), or a Refused."""
    data = fetch(reader.read, row)
    if isinstance(data, Refused):
        return data
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about metadata
            kind, (width, height) = read_header(data)
    except Exception as error:
        return refuse(error)
    return data, _EXTENSIONS.get(kind, kind.lower()), width, height
