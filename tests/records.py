"""What is read of a dump, record by record."""

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

from openmofi.config import KBSettings
from openmofi.kb.read import pool, write_parts
from openmofi.kb.read.parts import Part, PartFiles, make_part
from openmofi.kb.read.records import EntityRecord, Records
from openmofi.refused import Refused


def read_dump(path: Path, settings: KBSettings) -> list[EntityRecord | Refused]:
    """All records of a dump, in its order, on their way into part files."""
    found: list[EntityRecord | Refused] = []

    def noting(records: Records, limit: int | None = None) -> Part:
        here = list(records)
        found.extend(here)
        return make_part(iter(here), limit)

    patched = [patch.object(module, "make_part", noting) for module in (write_parts, pool)]
    with TemporaryDirectory() as folder, patched[0], patched[1]:
        files = PartFiles(Path(folder) / "0")
        write_parts.read_dump_parts(path, files, replace(settings, workers=1))
    return found
