"""Proposals on disk: OUT/proposals.json, and the same as a table in proposals.parquet.

members.parquet has a row for each image of each of them.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from openmofi.errors import InputError
from openmofi.files.folders import replace_file
from openmofi.kb import KnowledgeBase

FILE = "proposals.json"


class Example(msgspec.Struct, frozen=True):
    """An image of a proposal."""

    labels: str
    """The labels file, relative to the folder of the labels."""
    row: int
    key: str
    shard: str
    caption: str


class Nearest(msgspec.Struct, frozen=True):
    """A known entity that looks alike."""

    id: str
    label: str
    cosine: float
    """Of the mean images, after the mean of all images was taken off."""
    apart: float
    """Share of the proposal's images that are nearer to each other than to the entity's images;
    about a half: it looks the same."""


class Proposal(msgspec.Struct, frozen=True):
    """A row for the catalogue."""

    id: str
    name: str
    aliases: list[str]
    images: int
    """Estimated number of refused images with this name and look."""
    looked: int
    """How many of them were looked at."""
    share: float
    """Of all images whose captions bear the name, those that have this look."""
    purity: float
    """Lower bound of the share of the images that are not there by chance."""
    cohesion: float
    """Mean cosine of two of its images, after the mean of all images was taken off."""
    evidence: float
    """Nats by which name and look go together more often than by chance."""
    value: float
    """How many right labels the row is expected to bring; proposals are sorted by it."""
    nearest: list[Nearest]
    meanings: list[str]
    """Known entities of this name, which the images refused."""
    examples: list[Example]


def proposal_ids(names: Sequence[str], kb: KnowledgeBase) -> list[str]:
    """Returns an id for each canonical name that the catalogue does not have: new:okapi."""
    seen: Counter[str] = Counter()
    ids = []
    for name in names:
        stem = f"new:{name.replace(' ', '-')}"
        while True:
            seen[stem] += 1
            found = stem if seen[stem] == 1 else f"{stem}-{seen[stem]}"
            if kb.row_of(found) is None:
                break
        ids.append(found)
    return ids


def write_proposals(out: Path, proposals: list[Proposal], members: pa.Table) -> None:
    """Writes the files; each appears whole, and the one that is read last."""
    plain = msgspec.to_builtins(proposals)
    with replace_file(out / "members.parquet") as partial:
        pq.write_table(members, partial, compression="zstd")
    with replace_file(out / "proposals.parquet") as partial:
        pq.write_table(pa.Table.from_pylist(plain, _SCHEMA), partial)
    with replace_file(out / FILE) as partial:
        partial.write_text(json.dumps(plain, indent=1, ensure_ascii=False))


def read_proposals(out: Path) -> list[Proposal]:
    """Returns the proposals in a folder.

    Raises:
        InputError: there are none.
    """
    path = out / FILE
    try:
        return msgspec.json.decode(path.read_bytes(), type=list[Proposal])
    except FileNotFoundError:
        raise InputError(
            f"{str(out)!r} has no proposals; run `openmofi review missing I2E --model MODEL`."
        ) from None
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise InputError(
            f"{str(path)!r} is damaged ({error}); run `openmofi review missing` again."
        ) from None


_EXAMPLE = pa.struct(
    [(n, pa.int64() if n == "row" else pa.string()) for n in Example.__struct_fields__]
)
_NEAREST = pa.struct(
    [("id", pa.string()), ("label", pa.string()), ("cosine", pa.float64()), ("apart", pa.float64())]
)
_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("name", pa.string()),
        ("aliases", pa.list_(pa.string())),
        ("images", pa.int64()),
        ("looked", pa.int64()),
        *((name, pa.float64()) for name in ("share", "purity", "cohesion", "evidence", "value")),
        ("nearest", pa.list_(_NEAREST)),
        ("meanings", pa.list_(pa.string())),
        ("examples", pa.list_(_EXAMPLE)),
    ]
)
