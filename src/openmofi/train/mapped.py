"""A large selection as flat files that all processes of a machine share by mapping them.

In: a folder of `select`. Out: beside its tables, mapped/ with a file for each column, the classes,
the images in the order of their rarest class, and what would otherwise need all rows: how many
images each class has, and the fingerprint. Opening reads none of the rows.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Int

from openmofi.arrays.mapped import open_array, raw_to_npy
from openmofi.arrays.strings import open_strings, write_strings
from openmofi.errors import InputError
from openmofi.files.folders import new_folder
from openmofi.progress import progress
from openmofi.train.class_lists import ByClass, ClassLists

FOLDER, VERSION = "mapped", 1
HASHED = ("shard", "offset", "path", "caption")
STRINGS, NUMBERS = ("shard", "path", "caption"), ("offset", "size")
AT_ONCE = 1 << 16
_TAIL = 1 << 16
"""Bytes at the end of a Parquet file, with its statistics, that tell it from others."""


@dataclass(frozen=True)
class MappedSelection:
    """The images of a selection, none of which is in memory."""

    table: pa.Table
    """shard, offset, size, path, caption; each a single chunk."""
    classes: ClassLists | None
    """None for raw pairs."""
    fingerprint: str


def open_mapped(selection: Path, vocabulary: pa.Table) -> MappedSelection:
    """Opens the files of a selection, which are written if they are missing or of another.

    Raises:
        InputError: a class is not in the vocabulary, an image has none, the tables are damaged, or
            the folder cannot be written to.
    """
    folder, what = selection / FOLDER, _described(selection)
    try:
        return open_or_write(
            lambda: _open(folder, what),
            lambda: _write(selection, folder, vocabulary, what),
            selection / f".{FOLDER}.lock",
        )
    except OSError as error:
        raise InputError(
            f"Cannot write {folder}: {error.strerror}; expected a selection in a folder that can "
            "be written to, so that its images need not be held in memory."
        ) from None


def open_or_write(
    open_it: Callable[[], MappedSelection | None], write: Callable[[], object], lock: Path
) -> MappedSelection:
    """Opens mapped files; where there are none, one process writes them while others wait.

    Args:
        open_it: returns None where the files are missing, damaged or of other data.
        write: writes them.
        lock: file to lock meanwhile.
    """
    if (found := open_it()) is None:
        lock.parent.mkdir(parents=True, exist_ok=True)
        with _in_turn(lock):
            if (found := open_it()) is None:
                write()
    found = found or open_it()
    assert found is not None
    return found


@contextmanager
def _in_turn(path: Path) -> Iterator[None]:
    """Waits until no other process has the lock; where files cannot be locked, each goes on."""
    with path.open("ab") as lock:
        with suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _open(folder: Path, what: list[int]) -> MappedSelection | None:
    """Maps the files; None if they are of another selection, missing or damaged."""
    meta = _read(folder / "meta.json")
    if meta.get("selection") != what:
        return None
    try:
        return _map(folder, meta)
    except (OSError, InputError):
        return None


def _map(folder: Path, meta: dict[str, Any]) -> MappedSelection:
    strings = {name: open_strings(folder / name) for name in STRINGS}
    numbers = {name: pa.array(open_array(folder / f"{name}.npy")) for name in NUMBERS}
    arrays = {n: open_array(folder / f"{n}.npy") for n in ("starts", "values", "counts")}
    order = (open_array(folder / f"by_class_{name}.npy") for name in ("rows", "starts"))
    classes = ClassLists(**arrays, longest=meta["longest"], known_order=ByClass(*order))
    return MappedSelection(pa.table(strings | numbers), classes, meta["fingerprint"])


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return {}


def _described(selection: Path) -> list[int]:
    """Returns what tells the tables of a selection from others: sizes and checksums of ends."""
    told = []
    for name in ("keep.parquet", "vocabulary.parquet"):
        with (selection / name).open("rb") as file:
            size = file.seek(0, io.SEEK_END)
            file.seek(max(0, size - _TAIL))
            told += [size, zlib.crc32(file.read())]
    return [VERSION, *told]


def _write(selection: Path, folder: Path, vocabulary: pa.Table, what: list[int]) -> None:
    try:
        keep = pq.ParquetFile(selection / "keep.parquet")
    except (OSError, pa.ArrowInvalid) as error:
        raise damaged(selection, error) from None
    rows = keep.metadata.num_rows
    passes = len(STRINGS) + len(NUMBERS) + 1
    digests = {name: ColumnDigest(name) for name in HASHED}
    with new_folder(folder) as out, progress("map", total=passes * rows, unit="values") as bar:

        def column(name: str) -> Iterator[pa.Array]:
            try:
                for batch in keep.iter_batches(AT_ONCE, columns=[name]):
                    if name in digests:
                        digests[name].add(batch.column(0))
                    yield batch.column(0)
                    bar.advance(len(batch))
            except (OSError, pa.ArrowInvalid) as error:
                raise damaged(selection, error) from None

        for name in STRINGS:
            write_strings(out / name, column(name))
        for name in NUMBERS:
            write_numbers(out / name, column(name), np.int64)
        classes = _write_classes(selection, out, column("classes"), len(vocabulary))
        meta = {
            "selection": what,
            "longest": classes.longest,
            "fingerprint": fingerprint(digests.values(), classes, vocabulary["id"].to_pylist()),
        }
        (out / "meta.json").write_text(json.dumps(meta))


def damaged(selection: Path, error: Exception) -> InputError:
    """Returns the error for a selection whose rows cannot be read."""
    why = str(error).splitlines()[0].rstrip(".")
    return InputError(
        f"{selection / 'keep.parquet'} is damaged ({why}); run `openmofi select` again."
    )


def write_numbers(path: Path, batches: Iterable[pa.Array], dtype: type[np.generic]) -> None:
    """Writes a column of numbers as `path` with the suffix .npy, batch by batch."""
    with path.with_suffix(".raw").open("wb") as file:
        for batch in batches:
            batch.to_numpy(zero_copy_only=False).astype(dtype).tofile(file)
    raw_to_npy(path, np.dtype(dtype))


def _write_classes(
    selection: Path, out: Path, batches: Iterable[pa.Array], num_classes: int
) -> ClassLists:
    """Writes the classes of the images and returns them, mapped."""
    lengths = [np.zeros(1, np.int64)]

    def values() -> Iterator[pa.Array]:
        for batch in batches:
            lengths.append(pc.fill_null(pc.list_value_length(batch), 0).to_numpy())
            yield pc.list_flatten(batch)

    write_numbers(out / "values", values(), np.int64)
    found = open_array(out / "values.npy")
    starts = np.cumsum(np.concatenate(lengths), dtype=np.int64)
    np.save(out / "starts.npy", starts)
    check_classes(selection, starts, found, num_classes)
    classes = ClassLists.flat(starts, found, classes=num_classes)
    np.save(out / "counts.npy", classes.counts)
    order = classes.by_rarest
    np.save(out / "by_class_rows.npy", order.rows)
    np.save(out / "by_class_starts.npy", order.starts)
    return classes


def check_classes(
    selection: Path,
    starts: Int[np.ndarray, " images_plus_one"],
    values: Int[np.ndarray, " labels"],
    num_classes: int,
) -> None:
    """Checks the classes of a selection's images.

    Raises:
        InputError: a class is not in the vocabulary, or an image has none.
    """
    wrong = values[(values < 0) | (values >= num_classes)]
    if len(wrong):
        raise InputError(
            f"{str(selection)!r} labels images with class {wrong[0]} but its vocabulary has "
            f"{num_classes}; run `openmofi select` again."
        )
    without = int((np.diff(starts) == 0).sum())
    if without:
        raise InputError(
            f"{str(selection)!r} has {without} images without a class, which `openmofi select` "
            "never writes; run it again."
        )


# ---- the fingerprint ----------------------------------------------------------------------------


class _Hashed(io.RawIOBase):
    """A file of which only the hash is kept."""

    def __init__(self):
        self.sha256 = hashlib.sha256()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.sha256.update(data)
        return len(data)


class ColumnDigest:
    """The hash of a column of a table, however it is cut into chunks."""

    def __init__(self, name: str, chunks: Iterable[pa.Array] = ()):
        """Takes the name of the column, and its first values."""
        self._name, self._file = name, _Hashed()
        self._writer: pa.ipc.RecordBatchStreamWriter | None = None
        self._waiting: list[pa.Array] = []
        for chunk in chunks:
            self.add(chunk)

    def add(self, chunk: pa.Array) -> None:
        """Takes further values."""
        at = 0
        while at < len(chunk):
            self._waiting.append(chunk[at : at + AT_ONCE - sum(map(len, self._waiting))])
            at += len(self._waiting[-1])
            if sum(map(len, self._waiting)) == AT_ONCE:
                self._write()

    def _write(self) -> None:
        # Arrow's stream format of arrays that are no slices depends on their values alone.
        table = pa.table({self._name: pa.concat_arrays(self._waiting)})
        if self._writer is None:
            self._writer = pa.ipc.new_stream(pa.PythonFile(self._file, "w"), table.schema)
        self._writer.write_table(table)
        self._waiting.clear()

    def finish(self) -> bytes:
        """Returns the hash; no more values are taken."""
        if self._waiting:
            self._write()
        if self._writer is not None:
            self._writer.close()
        return self._file.sha256.digest()


def fingerprint(
    columns: Iterable[ColumnDigest], classes: ClassLists | None, entity_ids: Sequence[str]
) -> str:
    """Returns a hash of columns, classes and entities."""
    sha256 = hashlib.sha256()
    for column in columns:
        sha256.update(column.finish())
    if classes is not None:
        for array in (classes.starts, classes.values):
            for at in range(0, len(array), AT_ONCE):
                sha256.update(array[at : at + AT_ONCE].astype(np.int64).tobytes())
    sha256.update("\0".join(entity_ids).encode())
    return sha256.hexdigest()
