"""One shard -> its vectors, and the rows without one, each with its reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from openmofi import schema
from openmofi.config import EmbedSettings
from openmofi.embed.encode import encode_rows, load_job_encoder, missing_images, place_reader
from openmofi.embed.places import has_image, read_selected
from openmofi.files.remote import Root
from openmofi.label.encoder import Encoder
from openmofi.pairs import ImageReader, open_shard
from openmofi.shards import Shard, ShardResult, tick

VECTORS = "vectors"
"""Folder of the tables with vectors."""
REFUSED = "refused"
"""Folder of the tables of the other rows."""


@dataclass(frozen=True)
class EmbedJob:
    """Everything a worker process needs to embed a shard; small and picklable."""

    root: Root
    selection: Path | None
    """The selection whose images are embedded; None: all of the input."""
    model: str
    settings: EmbedSettings
    about: dict[str, str]
    """Metadata of the tables."""


class ShardEmbedder:
    """Embeds shards; keeps the encoder between them."""

    def __init__(self, job: EmbedJob, *, workers: int = 1, encoder: Encoder | None = None):
        self.job, self._workers = job, workers
        how = {"device": job.settings.device, "precision": job.settings.precision}
        self.encoder = encoder or load_job_encoder(job.model, workers=workers, **how)

    def __call__(self, shard: Shard) -> ShardResult:
        """Returns a row of schema.embeddings per readable image of the shard, in input order.

        Raises:
            InputError: the shard as a whole does not have the format of its suffix.
            OSError: the shard has vanished.
        """
        with ExitStack() as opened:
            rows, read, damage = open_rows(self.job.root, self.job.selection, shard, opened)
            errors, vectors, good = rows["error"].to_pylist(), [], []
            usable = np.flatnonzero(has_image(rows).to_numpy(zero_copy_only=False)).tolist()
            tick(len(rows) - len(usable))
            sizes = {"batch_size": self.job.settings.batch_size, "workers": self._workers}
            for batch in encode_rows(self.encoder, usable, read, **sizes):
                vectors.append(batch.vectors.astype(np.float16))
                good += batch.rows
                for row, reason in batch.refused.items():
                    errors[row] = reason
                tick(len(batch.rows) + len(batch.refused))
        found = np.concatenate([np.zeros((0, self.encoder.dim), np.float16), *vectors])
        table = self._table(rows.take(pa.array(good, pa.int64())), found)
        about = {"selection": self.job.selection, "damage": damage, "folder": VECTORS}
        return result_of_rows(rows, good, errors, table, **about)

    def _table(self, rows: pa.Table, vectors: np.ndarray) -> pa.Table:
        dim = vectors.shape[1]
        made = schema.embeddings(dim).with_metadata(self.job.about)
        columns = {"key": "id"}
        rows = rows.rename_columns([columns.get(name, name) for name in rows.column_names])
        flat = pa.array(vectors.ravel())
        rows = rows.append_column("vector", pa.FixedSizeListArray.from_arrays(flat, dim))
        if "entities" not in rows.column_names:
            none = pa.array([[]] * len(rows), pa.list_(pa.string()))
            rows = rows.append_column("entities", none)
        for field in made:
            if field.name not in rows.column_names:
                rows = rows.append_column(field, pa.nulls(len(rows), field.type))
        return rows.select(made.names).cast(made)


def open_rows(
    root: Root, selection: Path | None, shard: Shard, opened: ExitStack
) -> tuple[pa.Table, Callable[[int], bytes], str | None]:
    """Returns (rows with a column `error`, what reads a row's image, why they end early).

    Args:
        root: of the images.
        selection: whose shard it is; None: one of the input.
        shard: the rows.
        opened: closes what is opened.
    """
    if selection is None:
        view = opened.enter_context(open_shard(root, shard))
        return view.pairs.table, view.read, view.pairs.damage
    rows = read_selected(selection, shard)
    rows = rows.append_column("error", pa.array([""] * len(rows), pa.string()))
    reader = opened.enter_context(closing(ImageReader(root)))
    return rows, place_reader(reader, rows), None


def result_of_rows(
    rows: pa.Table,
    done: list[int],
    errors: list[str],
    table: pa.Table,
    *,
    selection: Path | None,
    damage: str | None,
    folder: str,
) -> ShardResult:
    """Returns the result of a shard, with a table of the rows that are not in its own.

    Args:
        rows: as of `open_rows`.
        done: those that the table has.
        errors: why each of the others is not there.
        table: what is written of those done.
        selection: as of `open_rows`; images of one that are missing may come back.
        damage: why the rows end early.
        folder: of the table.
    """
    lost = np.setdiff1d(np.arange(len(rows)), done).astype(np.int64)
    reasons = [errors[row] for row in lost]
    if selection is not None:
        damage = missing_images(Counter(reasons))
    refused = rows.take(pa.array(lost)).select(schema.UNEMBEDDED.names[:-1])
    refused = refused.append_column("reason", pa.array(reasons, pa.string()))
    return ShardResult(
        table,
        dict(Counter(reasons)),
        damage,
        {REFUSED: refused.cast(schema.UNEMBEDDED)} if len(lost) else {},
        kept=len(done),
        rows=len(rows),
        folder=folder,
        looked=len(rows),
    )
