"""What `adapt` writes: adapt.json, maps.safetensors, entity_head/, model/, adapted vectors."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.torch import save_file

import openmofi
from openmofi.config import AdaptSettings, as_dict
from openmofi.model import MofiModel, save_model
from openmofi.model.class_rows import FOLDER
from openmofi.train.adapt_data import Cached
from openmofi.train.card import card_tags, library
from openmofi.train.folding import TOLERANCE, folded, largest_difference
from openmofi.train.head_files import save_head
from openmofi.train.linear_maps import Fit, Maps

_CARD = "adapt.json"
_CHUNK = 16_384


@dataclass(frozen=True)
class AdaptSummary:
    """What came of an adaptation."""

    out: Path
    adapted: bool
    """False: no map was better than the identity, which was kept."""
    vectors: int
    entities: int
    dropped: dict[str, int]
    """Vectors and labels that were not learnt from, by reason."""
    start: str
    """The closed form from which the best maps began, whether or not they were kept."""
    pull: float | None
    """Weight of the pull towards it; None where no step was better than the closed form."""
    steps: int
    before: dict[str, float]
    """Retrieval mAP of the held-out vectors as they are: known, unseen, mean."""
    after: dict[str, float]
    """The same with the best maps, whether or not they were kept."""
    model: str | None
    """The adapted checkpoint, if there is one."""
    note: str
    """Why there is none, or why the identity was kept; "" otherwise."""


def is_ours(folder: Path) -> bool:
    """Says whether a folder is the output of `adapt`."""
    return (folder / _CARD).is_file()


def write_card(
    folder: Path,
    summary: AdaptSummary,
    settings: AdaptSettings,
    inputs: dict[str, Path | str | None],
) -> None:
    """Writes adapt.json: what went in, the settings, what came of it."""
    places = {
        name: {"path": str(Path(path).resolve()), "bytes": Path(path).stat().st_size}
        for name, path in inputs.items()
        if path is not None
    }
    values = {n: getattr(summary, n) for n in AdaptSummary.__dataclass_fields__}
    card = {
        "openmofi": openmofi.__version__,
        "inputs": places,
        "settings": as_dict(settings),
        **{name: value for name, value in values.items() if name not in ("out", "model")},
    }
    (folder / _CARD).write_text(json.dumps(card, indent=2, ensure_ascii=False) + "\n")


def write_maps(folder: Path, fit: Fit, ids: list[str]) -> None:
    """Writes maps.safetensors, and the class rows as `train` does."""
    maps = {
        "image": fit.maps.image_DD.contiguous(),
        "text": fit.maps.text_DD.contiguous(),
        "image_mean": fit.maps.image_mean_D,
        "text_mean": fit.maps.text_mean_D,
        "image_power": torch.tensor(fit.maps.image_power),
        "text_power": torch.tensor(fit.maps.text_power),
    }
    save_file(maps, folder / "maps.safetensors")
    save_head(fit.head, ids, folder / FOLDER)


def write_model(
    folder: Path,
    encoder: MofiModel,
    maps: Maps,
    summary: AdaptSummary,
    name: str,
    *,
    zero_shot: bool,
) -> None:
    """Writes the encoder with the maps folded in, once it is sure to give what they give.

    Args:
        folder: the model's.
        encoder: without the maps.
        maps: to fold in.
        summary: for the card.
        name: of the encoder.
        zero_shot: whether the maps leave images and texts comparable, which the card then claims.
    """
    adapted = folded(encoder, maps)
    difference = largest_difference(encoder, adapted, maps)
    assert difference <= TOLERANCE, f"folded output differs by {difference:.1e}"
    save_model(adapted, folder, card=_model_card(summary, name, zero_shot, library(adapted)))


def _model_card(summary: AdaptSummary, name: str, zero_shot: bool, library: str) -> str:
    scores = "".join(
        f"| {part} | {before:.4f} | {summary.after[part]:.4f} |\n"
        for part, before in summary.before.items()
    )
    what = "adapted" if summary.adapted else "as it was"
    return f"""---
library_name: {library}
{card_tags(zero_shot=zero_shot)}
---
# {Path(name).name or name}, {what}, by OpenMOFI {openmofi.__version__}

{name} with a linear map folded into each projection, trained on {summary.vectors:,} cached vectors
of {summary.entities:,} entities. The licence is the encoder's. {summary.note}

Retrieval mAP on held-out vectors, measured before the maps were trained once more on all vectors:

| | before | best maps |
|---|---|---|
{scores}"""


def write_mapped(folder: Path, cached: Cached, maps: Maps, model: str | None) -> None:
    """Writes the mapped vectors of the whole file in its own format."""
    if cached.table is None:
        np.save(folder / "embeddings.npy", np.concatenate(list(_mapped(cached, maps))))
        return
    table, dim = cached.table, cached.vectors.shape[1]
    name = str(Path(model).resolve()) if model else ""
    written = table.schema.append(pa.field("vector", pa.list_(pa.float16(), dim)))
    metadata = {**(table.schema.metadata or {}), b"openmofi.model": name.encode()}
    written = written.with_metadata(metadata)
    with pq.ParquetWriter(folder / "embeddings.parquet", written) as writer:
        for number, vectors in enumerate(_mapped(cached, maps)):
            rows = table.slice(number * _CHUNK, len(vectors))
            column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), dim)
            columns = [*rows.columns, pa.chunked_array([column])]
            writer.write_table(pa.table(columns, schema=written))


def _mapped(cached: Cached, maps: Maps) -> Iterator[np.ndarray]:
    for start in range(0, len(cached.vectors), _CHUNK):
        part = cached.vectors[start : start + _CHUNK]
        yield maps.apply_to_images(part).astype(np.float16)
