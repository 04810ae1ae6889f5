"""`openmofi export`: a selection -> a folder in another tool's format, whole or not at all.

    webdataset    00000.tar ...: KEY.jpg, KEY.json, KEY.txt; 00000.parquet ...; croissant.json
    huggingface   data/train-00000-of-00001.parquet ..., README.md; croissant.json
    datacomp      uids.npy: which samples of DataComp's pool were kept

Each has card.json (the selection's, and what was exported) and vocabulary.parquet beside it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from openmofi.errors import InputError, SettingsError
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
    """Shards of images."""
    unreadable: dict[str, int]
    """Kept images that are not in the export, by reason."""


def export(
    selection: Path | str,
    *,
    out: Path | str,
    format: Format = "webdataset",
    shard_size: int = 10_000,
    license: str = "unknown",
    url: str | None = None,
) -> ExportSummary:
    """Writes the kept images, or their names, for another tool.

    Args:
        selection: output of `select`, I2E/select/NAME.
        out: folder to write; an older export there is replaced.
        format: webdataset, huggingface or datacomp.
        shard_size: images per file.
        license: of the dataset, as its card names it.
        url: where the dataset can be found; None: the folder.

    Raises:
        InputError: there is no such selection, something else is at `out`, no image can be read,
            or, for datacomp, an image has no uid.
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
    about = Description(out.name, license, url or out.resolve().as_uri(), selected.card)
    with new_folder(out) as partial:
        summary = _write(selected, partial, format, shard_size, about)
        if not summary.images:
            raise InputError(
                f"No image of {str(selection)!r} can be read ({_counted(summary.unreadable)}); "
                f"expected them in {selected.root!r}, as when they were labelled."
            )
        _write_card(partial, selected, summary)
    return replace(summary, out=out)


def _write(
    selected: Selected, folder: Path, format: Format, shard_size: int, about: Description
) -> ExportSummary:
    if format == "datacomp":
        images, files = write_datacomp(selected, folder), 1
    else:
        writers: dict[str, Callable[..., tuple[int, int]]] = {
            "webdataset": write_webdataset,
            "huggingface": write_huggingface,
        }
        images, files = writers[format](selected, folder, shard_size, about)
    return ExportSummary(folder, format, images, files, dict(selected.unreadable.most_common()))


def _is_export(folder: Path) -> bool:
    try:
        return "export" in json.loads((folder / "card.json").read_text())
    except (OSError, ValueError):
        return False


def _counted(reasons: dict[str, int]) -> str:
    return ", ".join(f"{reason} {count:,}" for reason, count in reasons.items())


def _write_card(folder: Path, selected: Selected, summary: ExportSummary) -> None:
    about = {"format": summary.format, "images": summary.images, "files": summary.files}
    card = selected.card | {"export": about | {"unreadable": summary.unreadable}}
    (folder / "card.json").write_text(json.dumps(card, indent=2, ensure_ascii=False) + "\n")
    shutil.copyfile(selected.folder / "vocabulary.parquet", folder / "vocabulary.parquet")
