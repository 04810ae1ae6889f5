"""A part's stored vectors -> lists of near ones: faiss' IVF with 8-bit codes.

Two steps take long, and what they have done is kept, so that the same command goes on after an
interruption: learning the lists' centres, kept after each round of k-means, and finding the list of
each vector, kept every minute. A kept step is used only for the same vectors. The lists are the
same, to the last byte, with and without interruptions (with the same number of threads).
"""

from __future__ import annotations

import json
import sys
import time
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from jaxtyping import Float, Int

from openmofi.files.folders import replace_file
from openmofi.progress import progress
from openmofi.search.part import LISTS, IndexPart
from openmofi.search.part_writer import writing
from openmofi.search.stored_chunks import Halves, chunks, digest_of, is_due

_TRAINED_ON = 64
"""Vectors per list from which the lists' centres are learnt."""
_ROUNDS = 10
"""Rounds of k-means, as many as faiss takes for the centres of an IVF."""


def build_lists(halves: Halves, kept: Path, first: IndexPart | None) -> Any:
    """Returns the lists of vectors.

    Args:
        halves: the stored vectors.
        kept: folder in which an unfinished step is kept.
        first: a part with the first of the vectors, whose lists are extended.
    """
    import faiss

    (count, dim), digest = halves.shape, digest_of(halves)
    if first is not None:
        lists = faiss.read_index(str(first.folder / LISTS))
    else:
        num_lists = max(1, min(int(4 * np.sqrt(count)), count // _TRAINED_ON))
        lists = faiss.index_factory(dim, f"IVF{num_lists},SQ8", faiss.METRIC_INNER_PRODUCT)
        drawn = np.random.default_rng(0).permutation(count)[: _TRAINED_ON * num_lists]
        sample = halves[np.sort(drawn)].astype(np.float32)
        step = _KeptStep(kept, "centres", {"lists": num_lists, "vectors": digest})
        lists.quantizer.add(_centres(sample, num_lists, step))
        lists.train(sample)  # the range of the codes; the centres are there
    _fill(lists, halves, digest, kept)
    return lists


def _centres(
    sample: Float[np.ndarray, "n dim"], num_lists: int, step: _KeptStep
) -> Float[np.ndarray, "lists dim"]:
    """Returns unit centres by k-means, round by round."""
    import faiss

    dim = sample.shape[1]
    means = faiss.Clustering(dim, num_lists)
    # A round at a time begins with the centres of the round before.
    means.niter, means.spherical = 1, True
    means.min_points_per_centroid = 1  # a small index has fewer than faiss wishes, which is known
    means.max_points_per_centroid = _TRAINED_ON
    done, centres = step.read(np.zeros((0, dim), np.float32))
    with progress("centres", total=_ROUNDS, unit="rounds") as bar:
        bar.skip(done)
        for number in range(done, _ROUNDS):
            faiss.copy_array_to_vector(centres.ravel(), means.centroids)
            means.train(sample, faiss.IndexFlatIP(dim))
            centres = faiss.vector_to_array(means.centroids).reshape(-1, dim)
            step.write(number + 1, centres)
            bar.advance()
    return centres


def _fill(lists: Any, halves: Halves, digest: str, kept: Path) -> None:
    """Adds the vectors that are not in the lists yet."""
    import faiss

    begin, count = lists.ntotal, len(halves)
    centres = lists.quantizer.reconstruct_n(0, lists.nlist)
    about = {"centres": digest_of(centres), "vectors": digest, "begin": begin}
    step = _KeptStep(kept, "lists", about)
    done, numbers = step.read(np.zeros(0, np.int64))
    found, saved = [numbers], time.monotonic()
    with progress("lists", total=count, unit="vectors") as bar:
        bar.skip(begin + done)
        for chunk in chunks(halves[begin + done :]):
            found.append(lists.quantizer.assign(chunk.astype(np.float32), 1)[:, 0])
            bar.advance(len(chunk))
            if is_due(saved):
                found = [np.concatenate(found)]
                step.write(len(found[0]), found[0])
                saved = time.monotonic()
    assigned, at = np.concatenate(found), 0
    for chunk in chunks(halves[begin:]):
        vectors, own = np.ascontiguousarray(chunk, np.float32), assigned[at : at + len(chunk)]
        lists.add_core(len(chunk), faiss.swig_ptr(vectors), None, faiss.swig_ptr(own))
        at += len(chunk)


@dataclass(frozen=True)
class _KeptStep:
    """An unfinished step on disk: NAME.npz says of what it is and holds how far it came."""

    folder: Path
    name: str
    about: dict[str, Any]
    """What the step depends on."""

    def read(
        self, nothing: Float[np.ndarray, "..."] | Int[np.ndarray, "..."]
    ) -> tuple[int, np.ndarray]:
        """Returns (how much is done, what was found), or 0 and `nothing`."""
        try:
            with self._file.open("rb") as file, np.load(file) as kept:
                state, found = json.loads(str(kept["state"])), kept["found"]
            if state == self.about | {"done": state["done"]}:
                return state["done"], found
        except FileNotFoundError:
            return 0, nothing
        except (OSError, ValueError, KeyError, TypeError, EOFError, BadZipFile, zlib.error):
            print("note: the unfinished lists are damaged; they are begun again", file=sys.stderr)
        return 0, nothing

    def write(self, done: int, found: np.ndarray) -> None:
        """Keeps the step as it is."""
        self.folder.mkdir(exist_ok=True)
        state = np.array(json.dumps(self.about | {"done": done}))
        with (
            writing(self.folder),
            replace_file(self._file) as partial,
            partial.open("wb") as file,
        ):
            np.savez(file, state=state, found=found)

    @property
    def _file(self) -> Path:
        return self.folder / f"{self.name}.npz"
