"""Raw pairs as flat files that all processes of a job share by mapping them, as in mapped.py.

In: the shards of an input. Out: a folder with a file for each column; it is written again if a
shard, or a file of a folder of images, has changed. Opening it reads none of the pairs, which their
shards would have to be read for.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from openmofi.arrays.mapped import open_array
from openmofi.arrays.strings import open_strings, write_strings
from openmofi.errors import InputError
from openmofi.files.folders import new_folder
from openmofi.files.hidden import is_hidden
from openmofi.pairs import Input, read_shard
from openmofi.progress import progress
from openmofi.shards import plan_table
from openmofi.train.mapped import (
    AT_ONCE,
    HASHED,
    NUMBERS,
    STRINGS,
    ColumnDigest,
    MappedSelection,
    fingerprint,
    open_or_write,
    write_numbers,
)

_COLUMNS = [*STRINGS, *NUMBERS]


def open_mapped_pairs(source: Input, folder: Path) -> MappedSelection:
    """Opens the usable pairs of an input, which are written to a folder if they are not there.

    Raises:
        InputError: a shard cannot be read, or the folder cannot be written to.
    """
    what = [str(source.root), plan_table(source.shards).to_pylist(), _files_digest(source)]
    try:
        return open_or_write(
            lambda: _open(folder, what),
            lambda: _write(source, folder, what),
            folder.with_name(f".{folder.name}.lock"),
        )
    except OSError as error:
        raise InputError(
            f"Cannot write {str(folder)!r}: {error.strerror or error}; fix that and repeat the "
            "command."
        ) from None


def _files_digest(source: Input) -> str:
    """Returns what tells the files in folders of images, captions among them, from others.

    A folder is one shard, whose own size and time do not change with its files'.
    """
    digest = hashlib.sha256()
    for shard in source.shards:
        place = source.root / shard.path
        if shard.kind != "folder" or not isinstance(place, Path) or not place.is_dir():
            continue
        for folder, folders, names in os.walk(place):
            folders[:] = sorted(name for name in folders if not is_hidden(name))
            for name in sorted(name for name in names if not is_hidden(name)):
                path = os.path.join(folder, name)
                with suppress(FileNotFoundError):  # a dangling link
                    stat = os.stat(path)
                    told = f"{os.path.relpath(path, place)!r} {stat.st_size} {stat.st_mtime_ns}\n"
                    digest.update(told.encode())
    return digest.hexdigest()


def _open(folder: Path, what: list[Any]) -> MappedSelection | None:
    """Maps the files; None if they are of other shards, missing or damaged."""
    with suppress(OSError, ValueError, InputError):
        meta = json.loads((folder / "meta.json").read_text())
        if meta["source"] == what:
            strings = {name: open_strings(folder / name) for name in STRINGS}
            numbers = {name: pa.array(open_array(folder / f"{name}.npy")) for name in NUMBERS}
            return MappedSelection(pa.table(strings | numbers), None, meta["fingerprint"])
    return None


def _write(source: Input, folder: Path, what: list[Any]) -> None:
    with new_folder(folder) as out:
        together = out / "pairs.parquet"
        _write_together(source, together)
        digests = {name: ColumnDigest(name) for name in HASHED}
        with pq.ParquetFile(together) as pairs:

            def column(name: str) -> Iterator[pa.Array]:
                for batch in pairs.iter_batches(AT_ONCE, columns=[name]):
                    if name in digests:
                        digests[name].add(batch.column(0))
                    yield batch.column(0)

            for name in STRINGS:
                write_strings(out / name, column(name))
            for name in NUMBERS:
                write_numbers(out / name, column(name), np.int64)
        together.unlink()
        meta = {"source": what, "fingerprint": fingerprint(digests.values(), None, [])}
        (out / "meta.json").write_text(json.dumps(meta))


def _write_together(source: Input, path: Path) -> None:
    """Writes the usable pairs of all shards into one file, holding those of one shard."""
    writer = None
    with progress("read", total=len(source.shards), unit="shards") as bar:
        for shard in source.shards:
            try:
                table = read_shard(source.root, shard).table
            except OSError as error:
                raise InputError(
                    f"Cannot read {shard.path!r} of {str(source.root)!r} "
                    f"({error.strerror or error}); fix that and repeat the command."
                ) from None
            table = table.filter(pc.equal(table["status"], "ok")).select(_COLUMNS)
            writer = writer or pq.ParquetWriter(path, table.schema, compression="zstd")
            writer.write_table(table)
            bar.advance(1)
    assert writer is not None  # find_shards returns at least one
    writer.close()
