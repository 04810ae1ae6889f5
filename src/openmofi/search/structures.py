"""A part's stored vectors -> the graph or the lists by which near ones are found.

The graph is HNSW (Malkov and Yashunin, arXiv 1603.09320), which takes long for a million
vectors: it is kept every minute, and the same command goes on from there after an interruption.
The lists are faiss' IVF with 8-bit codes.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from openmofi.config import IndexSettings
from openmofi.files.folders import replace_file
from openmofi.progress import progress
from openmofi.search.part import GRAPH, LISTS, IndexPart, halves_of
from openmofi.search.part_writer import writing

_AT_ONCE = 2_000
"""Vectors added to a graph or to lists at a time."""
_KEEP_EVERY_SECONDS = 60.0
_TRAINED_ON = 64
"""Vectors per list from which the lists' centres are learnt."""

Halves = Float[np.ndarray, "n dim"]
"""The stored vectors, float16, mapped into memory."""


def write_structure(
    folder: Path, *, kind: str, settings: IndexSettings, kept: Path, first: IndexPart | None = None
) -> None:
    """Writes a part's graph or lists beside its vectors, or nothing for the kind `flat`.

    Args:
        folder: the part.
        kind: flat, hnsw or ivf.
        settings: parameters of the graph.
        kept: folder in which an unfinished graph is kept; it is removed in the end.
        first: a part of the same kind with the first of the vectors, whose graph or lists are
            extended.
    """
    import faiss

    if kind == "flat":
        shutil.rmtree(kept, ignore_errors=True)
        return
    stored = faiss.read_index(str(folder / "vectors.faiss"), faiss.IO_FLAG_MMAP_IFC)
    halves = halves_of(stored)
    if kind == "hnsw":
        graph = _build_graph(halves, settings, _Kept(kept, settings, halves), first)
        with writing(folder):
            faiss.write_index(graph, str(folder / GRAPH), faiss.IO_FLAG_SKIP_STORAGE)
    else:
        lists = _build_lists(halves, first)
        with writing(folder):
            faiss.write_index(lists, str(folder / LISTS))
    shutil.rmtree(kept, ignore_errors=True)


@dataclass(frozen=True)
class _Kept:
    """An unfinished graph on disk: state.json names the file and the vectors that it links."""

    folder: Path
    settings: IndexSettings
    halves: Halves

    def read(self) -> Any | None:
        """Returns the graph without its vectors, or None if none of these vectors was kept."""
        import faiss

        try:
            state = json.loads((self.folder / "state.json").read_text())
            if state != self._state(state["vectors"]):
                return None
            return faiss.read_index(str(self.folder / _name(state["vectors"])))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, RuntimeError):
            print("note: the unfinished graph is damaged; it is begun again", file=sys.stderr)
            return None

    def write(self, graph: Any) -> None:
        """Keeps the graph as it is."""
        import faiss

        self.folder.mkdir(exist_ok=True)
        with writing(self.folder):
            file = str(self.folder / _name(graph.ntotal))
            faiss.write_index(graph, file, faiss.IO_FLAG_SKIP_STORAGE)
            with replace_file(self.folder / "state.json") as partial:
                partial.write_text(json.dumps(self._state(graph.ntotal)))
        for old in self.folder.glob(_name("*")):
            if old.name != _name(graph.ntotal):
                old.unlink()

    def _state(self, count: int) -> dict[str, Any]:
        digest = blake2b(digest_size=16)
        for chunk in _chunks(self.halves[:count]):
            digest.update(chunk.tobytes())
        built = {"links": self.settings.hnsw_links, "breadth": self.settings.ef_construction}
        return built | {"vectors": count, "digest": digest.hexdigest()}


def _name(count: int | str) -> str:
    return f"graph-{count}.faiss"


def _build_graph(
    halves: Halves, settings: IndexSettings, kept: _Kept, first: IndexPart | None
) -> Any:
    import faiss

    dim = halves.shape[1]
    kind = (faiss.ScalarQuantizer.QT_fp16, settings.hnsw_links, faiss.METRIC_INNER_PRODUCT)
    graph = faiss.IndexHNSWSQ(dim, *kind)
    storage = faiss.IndexScalarQuantizer(dim, kind[0], kind[2])
    begun = kept.read()
    if begun is None and first is not None:
        begun = faiss.read_index(str(first.folder / GRAPH))
    if begun is not None:
        graph = begun
    graph.hnsw.efConstruction = settings.ef_construction
    storage.train(np.zeros((1, dim), np.float32))
    storage.codes.resize(len(halves) * storage.code_size)  # so that it need not grow
    done = graph.ntotal
    for chunk in _chunks(halves[:done]):
        storage.add(chunk.astype(np.float32))
    graph.storage, graph.own_fields, graph.is_trained = storage, False, True
    storage.thisown = True  # the assignment has disowned it
    saved = time.monotonic()
    with progress("graph", total=len(halves), unit="vectors") as bar:
        bar.skip(done)
        for chunk in _chunks(halves[done:]):
            graph.add(chunk.astype(np.float32))
            bar.advance(len(chunk))
            if time.monotonic() - saved >= _KEEP_EVERY_SECONDS:
                kept.write(graph)
                saved = time.monotonic()
    graph.referenced_objects = [storage]  # it must live as long as the graph
    return graph


def _build_lists(halves: Halves, first: IndexPart | None) -> Any:
    import faiss

    count, dim = halves.shape
    if first is not None:
        lists = faiss.read_index(str(first.folder / LISTS))
    else:
        num_lists = max(1, min(int(4 * np.sqrt(count)), count // _TRAINED_ON))
        lists = faiss.index_factory(dim, f"IVF{num_lists},SQ8", faiss.METRIC_INNER_PRODUCT)
        sample = np.random.default_rng(0).permutation(count)[: _TRAINED_ON * num_lists]
        lists.train(halves[np.sort(sample)].astype(np.float32))
    with progress("lists", total=count, unit="vectors") as bar:
        bar.skip(lists.ntotal)
        for chunk in _chunks(halves[lists.ntotal :]):
            lists.add(chunk.astype(np.float32))
            bar.advance(len(chunk))
    return lists


def _chunks(halves: Halves) -> Iterator[Halves]:
    for begin in range(0, len(halves), _AT_ONCE):
        yield halves[begin : begin + _AT_ONCE]
