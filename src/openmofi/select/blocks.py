"""All labels files of a job -> blocks of rows that fit into memory, and passes over them.

A block is a number of neighbouring row groups. A pass calls a function with every block, on all
cores; what it returns comes in the order of the blocks. Nothing that a pass does depends on how
the rows are cut into blocks.
"""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
import pyarrow.parquet as pq

from openmofi.errors import MismatchError, SettingsError
from openmofi.label.encoder import cores
from openmofi.progress import Progress, progress


class Sized(Protocol):
    """What a pass goes through."""

    @property
    def num_rows(self) -> int:
        """Its share of the work."""
        ...


S = TypeVar("S", bound=Sized)
T = TypeVar("T")
GIGABYTE = 1_000_000_000
_LEAST_DEFAULT, _MOST_DEFAULT = GIGABYTE, 4 * GIGABYTE
_BASE = 500_000_000
"""Bytes that the program itself takes, with what it maps of a knowledge base."""
_CANDIDATE_BYTES = 250
"""Largest number of bytes per candidate of a block that a pass takes."""
_FEW = 200_000
"""Candidates of a block that need not be divided for more threads."""


@dataclass(frozen=True)
class Piece:
    """A row group of a labels file."""

    file: int
    path: Path
    group: int
    num_rows: int
    num_candidates: int
    """At least as many as it has; a row without any counts as one."""


@dataclass(frozen=True)
class Block:
    """Neighbouring row groups."""

    number: int
    begin: int
    """The number of its first image, counted over all files."""
    pieces: tuple[Piece, ...]

    @cached_property
    def begins(self) -> np.ndarray:
        """The first image of each piece, counted in the block, then the number of its images."""
        return np.cumsum([0, *(piece.num_rows for piece in self.pieces)])

    @property
    def num_rows(self) -> int:
        """Number of its images."""
        return int(self.begins[-1])


@dataclass(frozen=True)
class Budget:
    """How much is in memory at once."""

    threads: int
    each: int
    """Bytes that a thread may take."""

    def num_parts(self, num_bytes: int) -> int:
        """Returns into how many parts so many bytes are divided; one is sorted per thread."""
        return -(-4 * num_bytes // self.each) or 1


def budget_for(gigabytes: float | None, num_entities: int) -> Budget:
    """Returns the budget of a selection.

    Args:
        gigabytes: the whole memory; by default a quarter of `available_memory`, from 1 to 4 GB.
        num_entities: size of the knowledge base; some numbers are kept of each entity.

    Raises:
        SettingsError: that is too little.
    """
    whole = max(min(available_memory() // 4, _MOST_DEFAULT), _LEAST_DEFAULT)
    fixed = _BASE + 32 * num_entities
    whole = max(whole, min(fixed + _BASE, available_memory()))
    if gigabytes is not None:
        whole = int(gigabytes * GIGABYTE)
    threads = cores()
    while threads > 1 and (whole - fixed) // threads < _BASE // 2:
        threads -= 1
    each = (whole - fixed) // threads
    if each < _BASE // 10:
        least = (fixed + _BASE // 10) / GIGABYTE
        raise SettingsError(
            f"--memory {whole / GIGABYTE:.3g} is too little; give at least {least:.1f} (GB)."
        )
    return Budget(threads, each)


def available_memory(
    groups: Path = Path("/sys/fs/cgroup"), own_group: Path = Path("/proc/self/cgroup")
) -> int:
    """Returns the bytes that this process may use: those of the machine, container or job.

    Containers and Slurm limit memory by control groups, each within those above it (cgroups(7)).

    Args:
        groups: where the file system of version 2 of these groups is mounted.
        own_group: file that names the group of this process.
    """
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    try:
        (own,) = re.findall(r"^0::/(.*)$", own_group.read_text(), re.MULTILINE)
    except (OSError, ValueError):
        own = ""
    for group in (groups / own, *(groups / own).parents):
        if not group.is_relative_to(groups):
            break
        try:
            limits.append(int((group / "memory.max").read_text()))
        except (OSError, ValueError):  # not there, or "max"
            continue
    return min(limits)


def label_blocks(
    files: Sequence[Path], *, gigabytes: float | None = None, num_entities: int = 0
) -> LabelBlocks:
    """Returns the blocks of labels files.

    Args:
        files: committed labels files.
        gigabytes: see `budget_for`.
        num_entities: likewise.

    Raises:
        MismatchError: a file is gone.
        SettingsError: the memory is too little.
    """
    budget = budget_for(gigabytes, num_entities)
    pieces = [piece for number, path in enumerate(files) for piece in _pieces(number, path)]
    for_all_threads = sum(piece.num_candidates for piece in pieces) // (4 * budget.threads)
    most = min(budget.each // _CANDIDATE_BYTES, max(for_all_threads, _FEW))
    groups: list[list[Piece]] = []
    left = 0
    for piece in pieces:
        if not groups or piece.num_candidates > left:
            groups.append([])
            left = most
        groups[-1].append(piece)
        left -= piece.num_candidates
    sizes = [sum(piece.num_rows for piece in group) for group in groups]
    begins = np.cumsum([0, *sizes]).tolist()
    return LabelBlocks(
        tuple(Block(i, begins[i], tuple(group)) for i, group in enumerate(groups)), budget
    )


def _pieces(number: int, path: Path) -> Iterator[Piece]:
    if not path.is_file():
        raise MismatchError(
            f"{path} is gone, although its shard was labelled; delete the shard's record in "
            f"{path.parent.parent / '_done'} and repeat `openmofi label`."
        )
    metadata = pq.read_metadata(path)
    columns = [metadata.schema.column(i).path for i in range(metadata.num_columns)]
    of_candidates = columns.index("entities.list.element.id")
    for group in range(metadata.num_row_groups):
        about = metadata.row_group(group)
        candidates = about.column(of_candidates).num_values
        yield Piece(number, path, group, about.num_rows, candidates)


@dataclass(frozen=True)
class Numbered:
    """An item of a pass that is known by its number."""

    number: int
    num_rows: int


@dataclass(frozen=True)
class LabelBlocks:
    """All labels of a job."""

    blocks: tuple[Block, ...]
    budget: Budget

    @property
    def num_images(self) -> int:
        """Pairs of the job, refused ones included."""
        return sum(block.num_rows for block in self.blocks)

    @property
    def pieces(self) -> list[Piece]:
        """The row groups of all blocks."""
        return [piece for block in self.blocks for piece in block.pieces]

    def sums_of_files(self, counts: Sequence[int] | np.ndarray) -> np.ndarray:
        """Returns the sums, for each labels file, of the counts of its row groups."""
        return np.bincount([piece.file for piece in self.pieces], counts).astype(np.int64)

    @property
    def num_candidates(self) -> int:
        """At least as many as there are."""
        return sum(piece.num_candidates for piece in self.pieces)

    def block_of(self, images: np.ndarray) -> np.ndarray:
        """Returns the number of each image's block."""
        return np.searchsorted([block.begin for block in self.blocks], images, "right") - 1

    def run(self, work: Callable[[Block], T], title: str) -> Iterator[T]:
        """Yields what a function returns for each block, in their order; shows a bar of rows."""
        return run_pass(self.blocks, work, title, threads=self.budget.threads)


def run_pass(
    items: Sequence[S], work: Callable[[S], T], title: str, *, threads: int
) -> Iterator[T]:
    """Yields what a function returns for each block or part, in their order, on several threads."""
    waiting: deque[tuple[S, Future[T]]] = deque()
    with (
        progress(title, total=sum(item.num_rows for item in items)) as bar,
        ThreadPoolExecutor(threads) as pool,
    ):
        for item in items:
            waiting.append((item, pool.submit(work, item)))
            if len(waiting) > threads:
                yield _first(waiting, bar)
        while waiting:
            yield _first(waiting, bar)


def _first(waiting: deque[tuple[S, Future[T]]], bar: Progress) -> T:
    item, future = waiting.popleft()
    found = future.result()
    bar.advance(item.num_rows)
    return found
