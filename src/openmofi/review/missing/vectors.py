"""Images to look at -> their vectors, encoded by `embed`'s own job or taken from a file."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import fields
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

import openmofi
from openmofi.config import EmbedSettings, MissingSettings
from openmofi.corrections.keys import find, text_keys
from openmofi.embeddings import embedding_batches
from openmofi.errors import InputError
from openmofi.files.folders import new_folder
from openmofi.review.missing.images import write_listing
from openmofi.select.selection import Selection

IMAGES, VECTORS = "images", "vectors"


def encode(
    selection: Selection, table: pa.Table, model: str | Path, out: Path, settings: MissingSettings
) -> tuple[np.ndarray, dict[str, int]]:
    """Returns (the vector of each row, NaN where it has none; how many have none, by reason).

    Goes on with what an earlier call left in `out`, if it looked at the same images.
    """
    from openmofi.embed import embed  # which loads torch; the server needs only what was proposed

    listing, vectors = out / IMAGES, out / VECTORS
    digest = _digest(selection, settings)
    if _made_of(listing) != digest:
        shutil.rmtree(vectors, ignore_errors=True)
        with new_folder(listing) as folder:
            write_listing(folder, table, selection.card["input"], digest)
    ours = {field.name for field in fields(EmbedSettings)}
    given = {name: value for name, value in vars(settings).items() if name in ours}
    summary = embed(model, listing, out=vectors, settings=EmbedSettings(**given))
    found = np.full((len(table), summary.dim), np.nan, np.float32)
    for batch in embedding_batches(vectors):
        found[batch.rows["labels_row"].to_numpy()] = batch.vectors
    return found, summary.refused


def take_given(table: pa.Table, embeddings: Path | str) -> tuple[np.ndarray, dict[str, int]]:
    """Returns the same from a file of vectors, whose rows are found by their place or else by id.

    Raises:
        InputError: it has none of these images.
    """
    for keys_of in (_place_keys, _id_keys):
        wanted, found = keys_of(table, "key"), None
        order = np.argsort(wanted, kind="stable")
        for batch in embedding_batches(embeddings):
            if not len(batch.rows):
                continue
            if found is None:
                found = np.full((len(table), batch.vectors.shape[1]), np.nan, np.float32)
            keys = keys_of(batch.rows, "id")
            sorting = np.argsort(keys, kind="stable")
            place, there = find(keys[sorting], wanted[order])
            found[order[there]] = batch.vectors[sorting[place[there]]]
        if found is not None and not np.isnan(found[:, 0]).all():
            lost = int(np.isnan(found[:, 0]).sum())
            return found, {"no_vector": lost} if lost else {}
    raise InputError(
        f"{str(embeddings)!r} has no vector of an image that the selection refused; expected "
        "vectors of the whole input, as `openmofi embed MODEL INPUT` writes them."
    )


def _place_keys(rows: pa.Table, _: str) -> np.ndarray:
    texts = [rows[column].cast(pa.string()).fill_null("") for column in ("shard", "path", "offset")]
    return text_keys(pc.binary_join_element_wise(*texts, "\x00").combine_chunks())


def _id_keys(rows: pa.Table, name: str) -> np.ndarray:
    return text_keys(rows[name].cast(pa.string()).fill_null("").combine_chunks())


def _digest(selection: Selection, settings: MissingSettings) -> str:
    """Identifies the images that are looked at."""
    stat = (selection.folder / "refused.parquet").stat()
    about = f"{stat.st_mtime_ns} {stat.st_size} {settings.min_images} {openmofi.__version__}"
    card = (selection.folder / "card.json").read_bytes()
    return hashlib.sha256(card + about.encode()).hexdigest()[:16]


def _made_of(listing: Path) -> str | None:
    try:
        return json.loads((listing / "card.json").read_text())["made_of"]
    except (OSError, ValueError, KeyError):
        return None
