"""The folder in which a build keeps what it has read, so that the same command can go on.

In: where the knowledge base will be, its sources, the settings. Out: `.NAME.parts` beside it, with
one folder of part files per source. Its `key.json` names what it was made from; whatever was made
from other sources, settings or versions is removed.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from openmofi.config import KBSettings
from openmofi.kb.read.lines import STDIN
from openmofi.kb.read.parts import PARTS_VERSION
from openmofi.kb.text import CANONICAL_VERSION

# Settings that decide what is read; the others only matter to the merge.
_READING = ("languages", "preset", "max_entities", "id_column")


def open_work(out: Path, sources: Sequence[Path], settings: KBSettings) -> Path:
    """Returns the folder, with what an interrupted build of the same left there."""
    out = Path(os.path.abspath(out))
    folder = out.with_name(f".{out.name}.parts")
    key = _key(sources, settings)
    marker = folder / "key.json"
    if not _is_same(marker, key):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        marker.write_text(json.dumps(key), encoding="utf-8")
    for leftover in folder.glob("slot-*"):
        leftover.unlink()
    shutil.rmtree(folder / "merge", ignore_errors=True)
    (folder / "merge").mkdir()
    return folder


def _is_same(marker: Path, key: str) -> bool:
    try:
        return json.loads(marker.read_text(encoding="utf-8")) == key
    except (OSError, ValueError):
        return False


def _key(sources: Sequence[Path], settings: KBSettings) -> str:
    files = [_identity(path) for path in sources]
    chosen = [(name, getattr(settings, name)) for name in _READING]
    versions = (PARTS_VERSION, CANONICAL_VERSION)
    return hashlib.sha256(json.dumps([files, chosen, versions]).encode()).hexdigest()


def _identity(path: Path) -> tuple[str, int, int]:
    if str(path) == STDIN:  # nobody knows whether it is the same: never continued
        return STDIN, os.getpid(), int.from_bytes(os.urandom(4))
    status = path.stat()
    return os.path.abspath(path), status.st_size, status.st_mtime_ns
