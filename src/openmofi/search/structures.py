"""A part's stored vectors -> the graph or the lists by which near ones are found.

The graph is HNSW (Malkov and Yashunin, arXiv 1603.09320), which takes long for a million
vectors: it is kept every minute, and the same command goes on from there after an interruption.
For the lists see lists.py.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from openmofi.config import IndexSettings
from openmofi.files.folders import replace_file
from openmofi.progress import progress
from openmofi.search.lists import build_lists
from openmofi.search.part import GRAPH, LISTS, IndexPart, halves_of
from openmofi.search.part_writer import writing
from openmofi.search.stored_chunks import Halves, chunks, digest_of, is_due


def write_structure(
    folder: Path, *, kind: str, settings: IndexSettings, kept: Path, first: IndexPart | None = None
) -> None:
    """Writes a part's graph or lists beside its vectors, or nothing for the kind `flat`.

    Args:
        folder: the part.
        kind: flat, hnsw or ivf.
        settings: parameters of the graph.
        kept: folder in which what is unfinished is kept; it is removed in the end.
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
        lists = build_lists(halves, kept, first)
        with writing(folder):
            faiss.write_index(lists, str(folder / LISTS))
    shutil.rmtree(kept, ignore_errors=True)


@dataclass(frozen=True)
class _Kept:
    """An unfinished graph on disk: state.json tells what it links and how, its file is named so."""

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
            return faiss.read_index(str(self.folder / _name(state)))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, RuntimeError):
            print("note: the unfinished graph is damaged; it is begun again", file=sys.stderr)
            return None

    def write(self, graph: Any) -> None:
        """Keeps the graph as it is."""
        import faiss

        self.folder.mkdir(exist_ok=True)
        state = self._state(graph.ntotal)
        with writing(self.folder):
            with replace_file(self.folder / _name(state)) as partial:
                faiss.write_index(graph, str(partial), faiss.IO_FLAG_SKIP_STORAGE)
            with replace_file(self.folder / "state.json") as partial:
                partial.write_text(json.dumps(state))
        for old in self.folder.glob("graph-*.faiss"):
            if old.name != _name(state):
                old.unlink()

    def _state(self, count: int) -> dict[str, Any]:
        built = {"links": self.settings.hnsw_links, "breadth": self.settings.ef_construction}
        return built | {"vectors": count, "digest": digest_of(self.halves[:count])}


def _name(state: dict[str, Any]) -> str:
    """Returns a name that graphs of other vectors or settings do not have."""
    told = json.dumps(state, sort_keys=True).encode()
    return f"graph-{blake2b(told, digest_size=8).hexdigest()}.faiss"


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
    # Draw the levels of the vectors that are there, so that the next ones have those that they
    # would have without an interruption.
    drawn = faiss.IndexHNSWSQ(dim, *kind)
    drawn.hnsw.prepare_level_tab(done)
    graph.hnsw.rng = drawn.hnsw.rng
    for chunk in chunks(halves[:done]):
        storage.add(chunk.astype(np.float32))
    graph.storage, graph.own_fields, graph.is_trained = storage, False, True
    storage.thisown = True  # the assignment has disowned it
    saved = time.monotonic()
    with progress("graph", total=len(halves), unit="vectors") as bar:
        bar.skip(done)
        for chunk in chunks(halves[done:]):
            graph.add(chunk.astype(np.float32))
            bar.advance(len(chunk))
            if is_due(saved):
                kept.write(graph)
                saved = time.monotonic()
    graph.referenced_objects = [storage]  # it must live as long as the graph
    return graph
