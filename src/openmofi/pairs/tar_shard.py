"""One WebDataset tar, with its Parquet sidecar if there is one -> schema.PAIRS."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from openmofi.pairs.caption import check_caption, plain_name
from openmofi.pairs.tar import DamagedTar, Member, scan_tar
from openmofi.schema import PAIRS

_IMAGES = ("jpg", "jpeg", "png", "webp", "gif", "bmp")


def read_tar(path: Path, name: str) -> tuple[pa.Table, str | None]:
    """Returns (pairs in archive order, why the archive ends early or None)."""
    samples, damage = _samples(path)
    sidecar = _sidecar(path)
    with path.open("rb", buffering=0) as file:
        rows = [
            _row(plain_name(key), members, sidecar.get(key), file.fileno(), name)
            for key, members in samples
        ]
    return pa.Table.from_pylist(rows, schema=PAIRS), damage


def _samples(path: Path) -> tuple[list[tuple[str, dict[str, Member]]], str | None]:
    """Groups members by their key: the name up to the first dot of its last part.

    A second file of one key and extension begins another sample of that key; nothing is lost.
    """
    samples: list[tuple[str, dict[str, Member]]] = []
    latest: dict[str, dict[str, Member]] = {}
    try:
        for member in scan_tar(path):
            folder, slash, file_name = member.name.rpartition("/")
            stem, _, extension = file_name.partition(".")
            key, extension = folder + slash + stem, extension.lower()
            if key not in latest or extension in latest[key]:
                latest[key] = {}
                samples.append((key, latest[key]))
            latest[key][extension] = member
    except DamagedTar as error:
        return samples, error.reason
    return samples, None


def _sidecar(path: Path) -> dict[str, dict]:
    """Returns img2dataset's table by key; an unreadable one is as good as none."""
    sidecar = path.with_suffix(".parquet")
    if not sidecar.is_file():
        return {}
    try:
        schema = pq.read_schema(sidecar)
        columns = [column for column in ("key", "caption", "url") if column in schema.names]
        rows = pq.read_table(sidecar, columns=columns).to_pylist()
    except (pa.ArrowInvalid, OSError):
        return {}
    return {row["key"]: row for row in rows if row.get("key") is not None}


def _row(key: str, members: dict[str, Member], sidecar: dict | None, fd: int, shard: str) -> dict:
    image = next((members[extension] for extension in _IMAGES if extension in members), None)
    caption, error = _caption(members, sidecar, fd)
    if image is None:
        error = "no_image"
    return {
        "key": key,
        "shard": shard,
        "offset": image.offset if image else -1,
        "size": image.size if image else 0,
        "path": "",
        "caption": caption,
        "url": str((sidecar or {}).get("url") or ""),
        "status": "error" if error else "ok",
        "error": error,
    }


def _caption(members: dict[str, Member], sidecar: dict | None, fd: int) -> tuple[str, str]:
    """Returns (caption, reason for refusing it or "")."""
    if sidecar is not None and sidecar.get("caption") is not None:
        return check_caption(sidecar["caption"])
    if "txt" in members:
        return check_caption(os.pread(fd, members["txt"].size, members["txt"].offset))
    if "json" in members:
        raw = os.pread(fd, members["json"].size, members["json"].offset)
        try:
            record = json.loads(raw)
        except (ValueError, RecursionError):  # a wrong encoding, too, and brackets without end
            return "", "bad_json"
        return check_caption(record.get("caption") if isinstance(record, dict) else None)
    return check_caption(None)
