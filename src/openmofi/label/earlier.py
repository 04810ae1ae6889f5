"""What an earlier job saw of the same images, for a job with a newer knowledge base.

A row of labels depends on the image through its size, its hashes, its text, and its cosine with
each candidate's text. All of these stay as they are if the image does. So an image is looked at
again only if it was not opened before, could not be read, or its caption now offers a candidate
whose cosine is not there: a new one, or one whose text has changed. All else in the row, such as
priors, text scores and clip_z, follows from the caption, the cosines and the background, and is
computed as in any job.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from openmofi.errors import InputError, MismatchError, OpenMOFIError
from openmofi.kb import KnowledgeBase
from openmofi.label.label_table import Seen
from openmofi.shards import Shard, is_job
from openmofi.shards.commits import no_job, read_commit

_PLACE = ("key", "shard", "offset", "size", "path")
_SEEN = ("width", "height", "text_area", "text_boxes", "sha256", "phash")
_MAY_DIFFER = frozenset({"kb", "kb_path", "model", "priors_sha256"})
"""Parts of a job's description that may differ: the knowledge base, the priors that were learnt for
it, and by which path the same model was found."""


def check_onto(i2e: Path, run: dict[str, Any], plan: pa.Table) -> None:
    """Checks that the rows of an earlier job would be those of this one but for the captions' part.

    Args:
        i2e: output of the earlier job.
        run: description of this job.
        plan: its shards, as in plan.parquet.

    Raises:
        InputError: it is no such output, or its knowledge base is gone.
        MismatchError: the encoder, a setting or the input differs.
    """
    if not is_job(i2e) or not (i2e / "run.json").is_file():
        raise no_job(i2e)
    before = json.loads((i2e / "run.json").read_text())
    if "then" in before:
        raise MismatchError(
            f"{str(i2e)!r} was made with --then, so its cosines are of two encoders; leave out "
            "--onto to look at all images."
        )
    for key in sorted((before.keys() | run.keys()) - _MAY_DIFFER):
        old, new = before.get(key), run.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            part = next(
                (k for k in sorted(old.keys() | new.keys()) if old.get(k) != new.get(k)), ""
            )
            key, old, new = f"{key}.{part}", old.get(part), new.get(part)
        if old != new:
            raise MismatchError(
                f"{str(i2e)!r} was made with {key} = {old!r}, not {new!r}; repeat that, or leave "
                "out --onto to look at all images."
            )
    if not pq.read_table(i2e / "plan.parquet").equals(plan):
        raise MismatchError(
            f"The input has changed since {str(i2e)!r} was made from it; leave out --onto to look "
            "at all images."
        )
    older_kb(i2e)


def older_kb(i2e: Path) -> KnowledgeBase:
    """Returns the knowledge base of an earlier job.

    Raises:
        InputError: it is gone, or another one is in its place.
    """
    run = json.loads((i2e / "run.json").read_text())
    path = Path(run["kb_path"])
    try:
        kb = KnowledgeBase.open(path)
    except OpenMOFIError:
        kb = None
    if kb is None or kb.fingerprint != run["kb"]:
        raise InputError(
            f"The knowledge base of {str(i2e)!r} is no longer at {str(path)!r}, so that nobody can "
            "say which texts have changed; keep it and build newer ones with another --out, or "
            "leave out --onto."
        )
    return kb


class EarlierLabels:
    """The labels of an earlier job, shard by shard."""

    def __init__(self, i2e: Path, kb: KnowledgeBase):
        """Takes the output of the earlier job, and the knowledge base of this one."""
        self._i2e, self._new = i2e, kb
        self._old = older_kb(i2e)

    def of(self, shard: Shard, pairs: pa.Table) -> EarlierShard | None:
        """Returns what was seen of a shard; None if it was not finished, or has other pairs."""
        record = self._i2e / "_done" / f"{shard.name}.json"
        commit = read_commit(record) if record.is_file() else None
        if commit is None or commit.status != "done" or not (self._i2e / commit.file).is_file():
            return None
        columns = [
            *_PLACE,
            "error",
            *_SEEN,
            *(f"entities.list.element.{n}" for n in ("id", "clip")),
        ]
        with pq.ParquetFile(self._i2e / commit.file) as file:
            labels = file.read(columns)
        if not labels.select(_PLACE).equals(pairs.select(_PLACE)):
            return None
        vectors = commit.extra.get("embeddings")
        table = pq.read_table(self._i2e / vectors, columns=["vector"]) if vectors else None
        return EarlierShard(labels, table, self._same_texts)

    def _same_texts(self, ids: list[str]) -> np.ndarray:
        """Returns which entities have the same text in both knowledge bases."""
        texts = [kb.entity_text(kb.rows_of(ids)) for kb in (self._old, self._new)]
        return np.array([one == other for one, other in zip(*texts, strict=True)], bool)


@dataclass(frozen=True)
class EarlierShard:
    """What was seen of a shard's images."""

    labels: pa.Table
    embeddings: pa.Table | None
    same_texts: Any
    """Tells which of some ids have the text that they had."""

    def opened(self, rows: np.ndarray) -> np.ndarray:
        """Returns which rows' images were opened and could be read."""
        known = self.labels["sha256"].is_valid().to_numpy()
        return known[rows]

    def cosines(self, rows: np.ndarray, ids: pa.ChunkedArray) -> np.ndarray:
        """Returns the cosine of each candidate with its row's image; NaN: not known.

        Args:
            rows: of the candidates.
            ids: of the candidates.
        """
        lists = self.labels["entities"].combine_chunks()
        flat = lists.flatten()
        row = pc.list_parent_indices(lists).to_numpy()
        clip = flat.field("clip").to_numpy(zero_copy_only=False).astype(np.float32)
        both = pa.concat_arrays([flat.field("id"), ids.combine_chunks()]).dictionary_encode()
        code = both.indices.to_numpy().astype(np.int64)
        key = np.r_[row, rows].astype(np.int64) * len(both.dictionary) + code
        old, new = key[: len(row)], key[len(row) :]
        found = np.full(len(new), np.nan, np.float32)
        if not len(old):
            return found
        order = np.argsort(old, kind="stable")
        at = order[np.minimum(np.searchsorted(old, new, sorter=order), len(old) - 1)]
        shared = np.flatnonzero(old[at] == new)
        used, place = np.unique(code[len(row) :][shared], return_inverse=True)
        same = self.same_texts(both.dictionary.take(pa.array(used)).to_pylist())
        shared = shared[same[place]]
        found[shared] = clip[at[shared]]
        return found

    def remember(self, seen: Seen, places: np.ndarray, rows: np.ndarray) -> None:
        """Copies what was seen of some rows' images.

        Args:
            seen: takes it.
            places: in it.
            rows: of these places.
        """
        table = self.labels.select(_SEEN).take(pa.array(rows))
        for place, row in zip(places.tolist(), table.to_pylist(), strict=True):
            seen.recall(place, row)
        if self.embeddings is not None and len(rows):
            vectors = self.embeddings["vector"].combine_chunks().take(pa.array(rows)).flatten()
            seen.vectors[places] = vectors.to_numpy().reshape(len(rows), -1)
