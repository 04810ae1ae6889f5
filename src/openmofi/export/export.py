"""`openmofi export`: a selection -> a folder in another tool's format, whole or not at all.

    webdataset    00000.tar ...: KEY.jpg, KEY.json, KEY.txt; 00000.parquet ...; croissant.json
    huggingface   data/train-00000-of-00001.parquet ..., README.md; croissant.json
    datacomp      uids.npy: which samples of DataComp's pool were kept

Each also has card.json (the selection's, with its audits and what was exported), vocabulary.parquet
and, if the labels were audited, audits/ with the certificates.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from openmofi.errors import InputError, SettingsError
from openmofi.export.audits import copy_audits, read_audits
from openmofi.export.croissant import Description
from openmofi.export.datacomp import write_datacomp
from openmofi.export.huggingface import write_huggingface
from openmofi.export.samples import Selected
from openmofi.export.webdataset import write_webdataset
from openmofi.files.folders import check_replaceable, local_path, new_folder

Format = Literal["webdataset", "huggingface", "datacomp"]


@dataclass(frozen=True)
class ExportSummary:
    """What was written."""

    out: Path
    format: str
    images: int
    files: int
    """Number of shards."""
    unreadable: dict[str, int]
    """Number of kept images that are not in the export, by reason."""


def export(
    selection: Path | str,
    *,
    out: Path | str,
    format: Format = "webdataset",
    shard_size: int = 10_000,
    license: str = "unknown",
    url: str | None = None,
) -> ExportSummary:
    """Writes the kept images, or their uids, for another tool.

    Args:
        selection: output of `select`, I2E/select/NAME.
        out: folder to write; an older export there is replaced.
        format: webdataset, huggingface or datacomp.
        shard_size: images per file.
        license: the dataset's licence, for its card.
        url: URL of the dataset; None: that of the folder.

    Raises:
        InputError: there is no such selection, `out` is something else, no image can be read, or,
            for datacomp, an image has no uid.
        SettingsError: a setting is impossible.
    """
    if shard_size < 1:
        raise SettingsError(f"--shard-size cannot be {shard_size}; expected at least 1.")
    if format not in ("webdataset", "huggingface", "datacomp"):
        raise SettingsError(
            f"--format cannot be {format!r}; expected webdataset, huggingface or datacomp."
        )
    selected, out = Selected(Path(selection)), local_path(out)
    check_replaceable(out, _is_export, "an export")
    audits = read_audits(selected.folder)
    card = selected.card | ({"audits": audits} if audits else {})
    about = Description(out.name, license, url or out.resolve().as_uri(), card)
    with new_folder(out) as partial:
        if format == "webdataset":
            images, files = write_webdataset(selected, partial, shard_size, about)
        elif format == "huggingface":
            images, files = write_huggingface(selected, partial, shard_size, about)
        else:
            images, files = write_datacomp(selected, partial), 1
        unreadable = dict(selected.unreadable.most_common())
        if not images:
            why = ", ".join(f"{reason} {count:,}" for reason, count in unreadable.items())
            raise InputError(
                f"No image of {str(selection)!r} can be read ({why}); expected them in "
                f"{selected.root!r}, as when they were labelled."
            )
        written = {"format": format, "images": images, "files": files, "unreadable": unreadable}
        text = json.dumps(card | {"export": written}, indent=2, ensure_ascii=False)
        (partial / "card.json").write_text(text + "\n")
        copy_audits(selected.folder, audits, partial)
        shutil.copyfile(selected.folder / "vocabulary.parquet", partial / "vocabulary.parquet")
    return ExportSummary(out, format, images, files, unreadable)


def _is_export(folder: Path) -> bool:
    try:
        return "export" in json.loads((folder / "card.json").read_text())
    except (OSError, ValueError):
        return False
