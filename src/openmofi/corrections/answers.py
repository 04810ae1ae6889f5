"""What people say of labels: one line of JSON per answer, only ever added to, beside the labels.

An answer hangs on the pair's key and on the name in its caption, so it outlives relabelling, other
shards and another knowledge base. Another row takes it back; nothing is ever changed or deleted.
"""

from __future__ import annotations

import fcntl
import os
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar, get_args

import msgspec

from openmofi.errors import InputError
from openmofi.files.folders import sync

FILE = "corrections.jsonl"
"""In the folder of the labels."""
Kind = Literal["right", "wrong", "is", "not-shown", "never", "always", "undo"]
KINDS: tuple[str, ...] = get_args(Kind)
OF_PAIRS = frozenset({"right", "wrong", "is", "not-shown"})
"""About one name of one pair; `never` and `always` are about a name wherever it stands."""
WITHOUT_ENTITY = frozenset({"not-shown", "undo"})
_MOST_TEXT = 10_000
"""Characters of a field, but for the caption, which is the pair's own."""


class LabelAnswer(msgspec.Struct, frozen=True, forbid_unknown_fields=False, omit_defaults=True):
    """One row."""

    id: str
    time: str
    """ISO 8601, UTC."""
    kind: Kind
    by: str = ""
    """Who answered, as they call themselves."""
    key: str = ""
    shard: str = ""
    caption: str = ""
    """These three tell the pair, see `standing.Place`."""
    name: str = ""
    """As it is written in the caption."""
    entity: str = ""
    """right, wrong, is, never, always: the id that is meant."""
    undoes: str = ""
    """undo: the id of the answer that is taken back."""
    evidence: dict[str, Any] = {}
    """What was shown to who answered: selection, score, label."""
    note: str = ""


class _Numbered(Protocol):
    @property
    def id(self) -> str: ...


Row = TypeVar("Row", bound=_Numbered)


def new_answer(kind: str, **fields: Any) -> LabelAnswer:
    """Returns an answer of now with a new id.

    Raises:
        InputError: the kind is unknown, or something that it needs is missing or too long.
    """
    if kind not in KINDS:
        raise InputError(f"There is no answer {kind!r}; expected one of {', '.join(KINDS)}.")
    texts = {name: value for name, value in fields.items() if isinstance(value, str)}
    for name, value in texts.items():
        if len(value) > _MOST_TEXT and name != "caption":
            raise InputError(f"The {name} of an answer may have {_MOST_TEXT:,} characters at most.")
        if any("\ud800" <= letter <= "\udfff" for letter in value):
            raise InputError(f"The {name} of an answer is not UTF-8.")
    needed = {"undo": ("undoes",)}.get(kind, ("name", "entity"))
    needed = ("name",) if kind == "not-shown" else needed
    for name in needed:
        if not fields.get(name):
            raise InputError(f"The answer {kind!r} needs the {name}.")
    now = datetime.now(UTC).isoformat(timespec="microseconds")
    return LabelAnswer(id=uuid.uuid4().hex, time=now, kind=kind, **fields)  # pyrefly: ignore


@dataclass(frozen=True)
class Answers:
    """What a file holds."""

    rows: tuple[LabelAnswer, ...] = ()
    """In the order in which they were written."""
    damaged: int = 0
    """Lines that cannot be read, such as one that a kill cut off."""
    by_id: dict[str, LabelAnswer] = field(default_factory=dict)


def answers_path(i2e: Path | str) -> Path:
    """Returns where the answers about a folder of labels lie."""
    return Path(i2e) / FILE


def read_answers(path: Path) -> Answers:
    """Returns the answers in a file; none if there is none. A row that comes twice counts once.

    Raises:
        InputError: not one of its lines is an answer.
    """
    found, damaged = read_rows(path, LabelAnswer)
    return Answers(tuple(found.values()), damaged, found)


def read_rows(path: Path, kind: type[Row]) -> tuple[dict[str, Row], int]:
    """Returns (the rows of a file by their id, how many lines cannot be read).

    Raises:
        InputError: not one of its lines is such a row.
    """
    if not path.is_file():
        return {}, 0
    decode = msgspec.json.Decoder(kind).decode
    found: dict[str, Row] = {}
    damaged = 0
    *lines, rest = path.read_bytes().split(b"\n")
    for line in (*lines, rest):
        if not line.strip():
            continue
        try:
            row = decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError):
            damaged += 1
        else:
            found.setdefault(row.id, row)
    if damaged > bool(rest) and not found:  # the last line may be one that a kill cut off
        raise InputError(
            f"{str(path)!r} holds no answers; expected lines of JSON that `openmofi review` wrote."
        )
    return found, damaged


def add_answers(path: Path, answers: Sequence[LabelAnswer]) -> None:
    """Adds answers to a file; when this returns, they are on disk.

    Several processes may do so at once, also while others read.

    Raises:
        InputError: the file cannot be written.
    """
    append_rows(path, answers)


def append_rows(path: Path, rows: Sequence[msgspec.Struct]) -> None:
    """Adds rows to a file, as `add_answers` does.

    Raises:
        InputError: the file cannot be written.
    """
    if not rows:
        return
    encode = msgspec.json.Encoder().encode
    data = b"".join(encode(row) + b"\n" for row in rows)
    try:
        is_new = not path.exists()
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            _write(descriptor, data)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if is_new:
            sync(path.parent)
    except OSError as error:
        raise InputError(f"Cannot write {str(path)!r}: {error.strerror or error}.") from None


def merge_answers(path: Path, others: Iterable[LabelAnswer]) -> int:
    """Adds those answers that a file does not have; returns how many."""
    known = read_answers(path).by_id
    new = [answer for answer in others if answer.id not in known]
    add_answers(path, new)
    return len(new)


def _write(descriptor: int, data: bytes) -> None:
    """Appends whole lines, also after a line that a kill cut off; all or nothing on a full disk."""
    size = os.fstat(descriptor).st_size
    if size and os.pread(descriptor, 1, size - 1) != b"\n":
        data = b"\n" + data
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
    except OSError:
        os.ftruncate(descriptor, size)
        raise
