"""Kept images -> WebDataset: tars in which the files of a sample share a key and are adjacent.

https://github.com/webdataset/webdataset#the-webdataset-format. Each tar has a Parquet file with the
contents of its .json files, as img2dataset writes it, for readers that only need the texts.
"""

from __future__ import annotations

import io
import json
import tarfile
from itertools import chain, islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from openmofi.export.croissant import Description, write_croissant
from openmofi.export.samples import ABOUT, ExportSample, Selected


def write_webdataset(
    selected: Selected, folder: Path, shard_size: int, about: Description
) -> tuple[int, int]:
    """Writes tars of `shard_size` samples; returns (images, tars)."""
    samples = selected.samples()
    images, tars = 0, []
    for first in samples:
        tars.append(folder / f"{len(tars):05d}.tar")
        with tarfile.open(tars[-1], "w", format=tarfile.USTAR_FORMAT) as archive:
            rows = [
                _add(archive, sample) for sample in chain([first], islice(samples, shard_size - 1))
            ]
        images += len(rows)
        pq.write_table(pa.Table.from_pylist(rows, ABOUT), tars[-1].with_suffix(".parquet"))
    write_croissant(folder, [*tars, *(tar.with_suffix(".parquet") for tar in tars)], about)
    return images, len(tars)


def _add(archive: tarfile.TarFile, sample: ExportSample) -> dict[str, Any]:
    """Adds a sample's files; returns its row of ABOUT."""
    about = sample.about()
    members = {
        sample.extension: sample.data,
        "json": json.dumps(about, ensure_ascii=False).encode(),
        "txt": sample.caption.encode(),
    }
    for extension, data in members.items():
        info = tarfile.TarInfo(f"{sample.key}.{extension}")  # mtime 0: the same bytes every time
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))
    return about
