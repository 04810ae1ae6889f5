"""What a selection is known by: a hash of its labels and its vocabulary."""

from __future__ import annotations

import hashlib
from pathlib import Path

AUDITS = "audits"
"""Folder in a selection with the audits of it, one folder each, see review/audit/."""


def selection_digest(folder: Path) -> str:
    """Returns a sha256 in hex; the same labels in the same order have the same.

    Args:
        folder: output of `select`.
    """
    whole = hashlib.sha256()
    for name in ("keep.parquet", "vocabulary.parquet"):
        with (folder / name).open("rb") as file:
            whole.update(hashlib.file_digest(file, "sha256").digest())
    return whole.hexdigest()
