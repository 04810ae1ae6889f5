"""The records that were read from the sources, in files for the merge and for resumed builds.

In: EntityRecords, some thousands at a time. Out: for each source two files of consecutive Arrow
streams, one of entities and one of their names with canonical keys, and a small `done.json` that
states how many bytes of them count. That file is replaced atomically, so after a kill at any time
the counted part is complete; the next run cuts off the rest.
"""

import gc
import json
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from openmofi.files.folders import replace_file
from openmofi.kb.read.records import EntityRecord, LeftOutClass, Records
from openmofi.kb.text import canonical_batch
from openmofi.refused import Refused

PARTS_VERSION = 3
"""Increase it when the readers or the files change: builds of older versions are not resumed."""

KINDS = ("label", "title", "alias", "anchor", "override")

ENTITY_PARTS = pa.schema(
    [
        ("id", pa.string()),
        ("label", pa.string()),
        ("description", pa.string()),
        ("types", pa.list_(pa.string())),
        ("subclass_of", pa.list_(pa.string())),
        ("image", pa.string()),
        ("enwiki", pa.string()),
        ("sitelinks", pa.int32()),
        ("statements", pa.int32()),
        ("popularity", pa.float64()),
        ("line", pa.int64()),
    ]
)
NAME_PARTS = pa.schema(
    [
        ("entity", pa.int32()),  # position among the entities of the same part
        ("position", pa.int32()),  # among the names of the part
        ("key", pa.string()),
        ("raw", pa.string()),
        ("language", pa.string()),
        ("kind", pa.int8()),  # index into KINDS
    ]
)
CLASS_PARTS = pa.schema([("id", pa.string()), ("label", pa.string())])
"""Items that were left out, but may be types of others."""

_CANONICAL_ROWS = 1 << 15
_OPTIONS = pa.ipc.IpcWriteOptions(compression=pa.Codec("zstd", compression_level=1))


@dataclass
class Part:
    """The records of some lines, ready to be written."""

    entities: bytes
    names: bytes
    classes: bytes
    num_entities: int
    num_names: int
    num_nameless: int
    """Names without a single letter or digit, such as emoji."""
    refused: Counter[str]
    """Number of lines that gave no entity, by reason."""
    rejects: list[Refused]
    """Those of these lines that are written down."""


@contextmanager
def _without_cycle_search() -> Iterator[None]:
    """Turns off the search for cycles, which takes a third of the time; records have none."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@_without_cycle_search()
def make_part(records: Records, limit: int | None = None) -> Part:
    """Collects records; stops after `limit` entities."""
    entities: list[EntityRecord] = []
    refused: Counter[str] = Counter()
    rejects = []
    classes: list[tuple[str, str]] = []
    for record in records:
        if isinstance(record, EntityRecord):
            entities.append(record)
            if len(entities) == limit:
                break
        else:
            refused[record.reason] += 1
            if isinstance(record, LeftOutClass) and record.label:
                classes.append((record.id, record.label))
            if record.text:
                rejects.append(record)
    names, num_nameless = _names_batch(entities)
    columns = [
        pa.array([getattr(entity, field.name) for entity in entities], field.type)
        for field in ENTITY_PARTS
    ]
    of_classes = [pa.array([row[i] for row in classes], pa.string()) for i in (0, 1)]
    return Part(
        entities=_stream(pa.RecordBatch.from_arrays(columns, schema=ENTITY_PARTS)),
        names=_stream(names, num_entities=len(entities)),
        classes=_stream(pa.RecordBatch.from_arrays(of_classes, schema=CLASS_PARTS)),
        num_entities=len(entities),
        num_names=len(names),
        num_nameless=num_nameless,
        refused=refused,
        rejects=rejects,
    )


def _names_batch(entities: list[EntityRecord]) -> tuple[pa.RecordBatch, int]:
    """Returns the names of NAME_PARTS, and the number of those without a letter or digit."""
    names = [(i, *name) for i, entity in enumerate(entities) for name in entity.names]
    owner, raw, language, kind = zip(*names, strict=True) if names else ((), (), (), ())
    pieces = [
        canonical_batch(raw[at : at + _CANONICAL_ROWS])
        for at in range(0, len(raw), _CANONICAL_ROWS)
    ]
    keys = pa.concat_arrays(pieces) if pieces else pa.array([], pa.string())
    columns = {
        "entity": pa.array(owner, pa.int32()),
        "position": pa.array(range(len(names)), pa.int32()),
        "key": keys,
        "raw": pa.array(raw, pa.string()),
        "language": pa.array(language, pa.string()),
        "kind": pa.array(map(KINDS.index, kind), pa.int8()),
    }
    batch = pa.RecordBatch.from_pydict(columns, schema=NAME_PARTS)
    named = batch.filter(pc.greater(pc.binary_length(keys), 0))
    return named, len(batch) - len(named)


def _stream(batch: pa.RecordBatch, **metadata: int) -> bytes:
    schema = batch.schema.with_metadata({key: str(value) for key, value in metadata.items()})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema, options=_OPTIONS) as writer:
        writer.write_batch(batch.replace_schema_metadata(schema.metadata))
    return sink.getvalue().to_pybytes()


@dataclass
class Done:
    """How far a source has been read."""

    finished: bool = False
    content_end: int = 0
    """Bytes of the source's content that have been read."""
    next_line: int = 1
    num_parts: int = 0
    num_entities: int = 0
    num_names: int = 0
    num_nameless: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    """Number of bytes that count, by file."""


_FILES = ("entities", "names", "classes", "rejects")


class PartFiles:
    """The files of one source; a context manager while the source is read."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._done_path = folder / "done.json"
        self.done = self._load()
        self._files: dict[str, Any] = {}

    def _load(self) -> Done:
        try:
            return Done(**json.loads(self._done_path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return Done()

    def __enter__(self) -> "PartFiles":
        self.folder.mkdir(parents=True, exist_ok=True)
        for name in _FILES:
            file = (self.folder / name).open("ab")
            # Cut off what an interrupted run wrote after its last commit.
            file.truncate(self.done.sizes.get(name, 0))
            self._files[name] = file
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files.values():
            file.close()

    def append(self, part: Part) -> None:
        """Writes a part, which counts from the next commit on."""
        self._files["entities"].write(part.entities)
        self._files["names"].write(part.names)
        self._files["classes"].write(part.classes)
        for reject in part.rejects:
            line = {"line": reject.line, "reason": reject.reason, "text": reject.text}
            text = json.dumps(line, ensure_ascii=False)
            self._files["rejects"].write(text.encode(errors="replace") + b"\n")
        done = self.done
        done.num_parts += 1
        done.num_entities += part.num_entities
        done.num_names += part.num_names
        done.num_nameless += part.num_nameless
        done.refused = dict(Counter(done.refused) + part.refused)

    def commit(self, *, content_end: int = 0, next_line: int = 0, finished: bool = False) -> None:
        """Makes everything appended so far count, even after a power cut."""
        for name, file in self._files.items():
            file.flush()
            os.fsync(file.fileno())
            self.done.sizes[name] = os.fstat(file.fileno()).st_size
        self.done.content_end, self.done.next_line = content_end, next_line
        self.done.finished = finished
        with replace_file(self._done_path) as partial:
            partial.write_text(json.dumps(asdict(self.done)), encoding="utf-8")

    def is_whole(self) -> bool:
        """Returns whether the files hold exactly what was committed."""
        done = self.done
        if not done.num_parts:
            return True
        try:
            sizes = {name: (self.folder / name).stat().st_size for name in done.sizes}
            if any(sizes[name] < done.sizes[name] for name in _FILES):
                return False
            expected = {"entities": done.num_entities, "names": done.num_names}
            return all(
                self._num_rows(name) == (done.num_parts, num_rows)
                for name, num_rows in expected.items()
            )
        except (OSError, KeyError, pa.ArrowException):
            return False

    def _num_rows(self, name: str) -> tuple[int, int]:
        """Counts the parts and rows of a file; only the first column is decompressed."""
        rows = [
            sum(len(batch) for batch in reader)
            for reader in self._streams(name, pa.ipc.IpcReadOptions(included_fields=[0]))
        ]
        return len(rows), sum(rows)

    def entities(self) -> Iterator[pa.RecordBatch]:
        """Yields the entities, part by part."""
        for reader in self._streams("entities"):
            yield from reader

    def names(self) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Yields the names of each part, with the number of its entities."""
        for reader in self._streams("names"):
            count = int(reader.schema.metadata[b"num_entities"])
            for batch in reader:
                yield count, batch

    def classes(self) -> Iterator[pa.RecordBatch]:
        """Yields CLASS_PARTS, part by part."""
        for reader in self._streams("classes"):
            yield from reader

    def rejects(self) -> Iterator[dict[str, Any]]:
        """Yields the refused lines that were written down."""
        with (self.folder / "rejects").open("rb") as file:
            yield from map(json.loads, file)

    def _streams(
        self, name: str, options: pa.ipc.IpcReadOptions | None = None
    ) -> Iterator[pa.RecordBatchStreamReader]:
        with pa.OSFile(str(self.folder / name)) as file:
            while file.tell() < self.done.sizes[name]:
                yield pa.ipc.open_stream(file, options=options)
