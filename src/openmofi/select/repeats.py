"""Refuses images that repeat another one: an excluded image, or one with a surer label.

    evaluation_duplicate   the same bytes, or nearly the same image, as one that --exclude names
    duplicate_exact        the same bytes as an image with a surer label
    duplicate_near         nearly the same image as one with a surer label of the same entity; of
                           another entity it would be wrong, since hashes ignore colours and take
                           the flag of Chad for that of Belgium

Images without a hash (not opened, or of a single colour) are never duplicates. Of labels that are
equally sure, the image's bytes decide, then the pair's key.

Exact copies are found part by part, with the images of equal bytes in the same part, near ones with
the images of an entity in the same part.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from openmofi.arrays.runs import run_starts
from openmofi.errors import InputError
from openmofi.select.blocks import GIGABYTE, Block, LabelBlocks, Numbered, run_pass
from openmofi.select.chosen_labels import Images
from openmofi.select.duplicates import distance, first_equal, near_duplicates, near_known
from openmofi.select.excluded_images import KnownImages
from openmofi.select.funnel import Funnel
from openmofi.select.scattered import Scattered, part_of

REASONS = ("evaluation_duplicate", "duplicate_exact", "duplicate_near")
_KNOWN, _EXACT, _NEAR = range(3)
REPEAT = np.dtype([("image", "i8"), ("of", "i8"), ("bits", "i4"), ("reason", "i4")])
"""A refused duplicate: `of` is the image that is kept instead, or the number of the known image;
`bits` how many bits of the perceptual hashes differ, 0 for the same bytes."""
_IMAGE = np.dtype(
    [
        ("digest", "u8", 2),
        ("phash", "u8"),
        ("score", "f8"),
        ("tie", "u8"),
        ("image", "i8"),
        ("entity", "i4"),
        ("has_phash", "?"),
    ]
)
_QUICK = 500_000
"""Images of a part that are searched quickly: what is looked up at random nearly fits a cache."""
_SEARCH_BYTES = 250
"""Largest number of bytes per image of a part in which duplicates are searched."""


class Repeats:
    """Refused duplicates on disk, block by block."""

    def __init__(self, folder: Path, labels: LabelBlocks):
        folder.mkdir()
        self._labels, count = labels, len(labels.blocks)
        self._refused = Scattered(folder / "refused", count, REPEAT)
        self._wanted = Scattered(folder / "wanted", count, np.dtype("i8"))

    def add(self, found: np.ndarray) -> None:
        """Adds refused duplicates, REPEAT."""
        self._refused.add(self._labels.block_of(found["image"]), found)
        of = found["of"][found["reason"] != _KNOWN]
        self._wanted.add(self._labels.block_of(of), of)

    def refused(self, block: Block) -> np.ndarray:
        """Returns the refused duplicates of a block, REPEAT, in the order of the images."""
        found = self._refused.read(block.number)
        return found[np.argsort(found["image"])]

    def repeated(self, block: Block) -> np.ndarray:
        """Returns the images of a block that refused ones repeat, ascending."""
        return np.unique(self._wanted.read(block.number))

    def refuse(self, funnel: Funnel, block: Block) -> None:
        """Refuses a block's copies of images with a surer label."""
        found = self.refused(block)
        for reason in (_EXACT, _NEAR):
            mine = found["image"][found["reason"] == reason] - block.begin
            funnel.refuse_images(mine, REASONS[reason])


def refuse_known(
    funnel: Funnel, images: Images, block: Block, known: KnownImages, bits: int
) -> np.ndarray:
    """Refuses images that repeat one of the known ones: evaluation_duplicate. Returns REPEAT."""
    image = funnel.labels.image
    image = image[run_starts(image)]
    of = np.full(len(image), -1, np.int64)
    hashed = np.flatnonzero(images.has_phash[image])
    usable = np.flatnonzero(known.has_phash)
    near = near_known(images.phash[image[hashed]], known.phash[usable], bits)
    of[hashed[near >= 0]] = usable[near[near >= 0]]
    opened = np.flatnonzero(images.has_digest[image])
    both = np.concatenate([known.digest, images.digest[image[opened]]])
    first = first_equal(*_halves(both))[len(known.digest) :]
    same = np.where(first < len(known.digest), first, -1)
    of[opened[same >= 0]] = same[same >= 0]
    hit = of >= 0
    image, of = image[hit], of[hit]
    both_hashed = images.has_phash[image] & known.has_phash[of]
    bits_apart = np.where(both_hashed, distance(images.phash[image], known.phash[of]), 0)
    funnel.refuse_images(image, REASONS[_KNOWN])
    return _repeat(image + block.begin, of, bits_apart, _KNOWN)


def _halves(digests: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.ascontiguousarray(digests[:, 0]), np.ascontiguousarray(digests[:, 1])


def _repeat(image: np.ndarray, of: np.ndarray, bits: np.ndarray | int, reason: int) -> np.ndarray:
    found = np.empty(len(image), REPEAT)
    found["image"], found["of"], found["bits"], found["reason"] = image, of, bits, reason
    return found


class RepeatSearch:
    """Collects the images that would be kept, then finds those that repeat one another."""

    def __init__(self, folder: Path, labels: LabelBlocks, num_images: int, bits: int | None):
        """Begins without images.

        Args:
            folder: the folder to create.
            labels: all labels.
            num_images: how many images will be added at most.
            bits: number of bits in which perceptual hashes may differ; None: copies have equal
                bytes.
        """
        folder.mkdir()
        self._labels, self._bits = labels, bits
        num_parts = labels.budget.num_parts(num_images * _IMAGE.itemsize)
        num_parts = max(num_parts, num_images // _QUICK)
        self._by_bytes = Scattered(folder / "by_bytes", num_parts, _IMAGE)
        self._by_entity = Scattered(folder / "by_entity", num_parts, _IMAGE)
        num_blocks = len(labels.blocks)
        self._exact = Scattered(folder / "exact", num_blocks, REPEAT)  # by what they repeat
        self._near = Scattered(folder / "near", num_blocks, REPEAT)  # by the refused image

    def add(self, funnel: Funnel, images: Images, block: Block) -> None:
        """Adds the images of a block that are in; the surest label of each comes first."""
        labels = funnel.labels
        first = run_starts(labels.image)
        image = labels.image[first]
        found = np.empty(len(image), _IMAGE)
        found["image"] = image + block.begin
        found["entity"], found["score"] = labels.entity[first], labels.score[first]
        for name in ("digest", "phash", "tie", "has_phash"):
            found[name] = getattr(images, name)[image]
        opened = images.has_digest[image]
        self._add_to(self._by_bytes, found[opened], found["digest"][opened, 0])
        if self._bits is not None:
            hashed = found[~opened & found["has_phash"]]
            self._add_to(self._by_entity, hashed, hashed["entity"])

    def _add_to(self, images: Scattered, found: np.ndarray, key: np.ndarray) -> None:
        images.add(part_of(key, images.num_parts), found)

    def search(self, repeats: Repeats) -> None:
        """Finds the duplicates, after all images were added.

        Raises:
            InputError: the memory is too little for the images of one entity.
        """
        self._search(self._by_bytes, self._find_exact, "exact duplicates")
        if self._bits is not None:
            self._search(self._by_entity, self._find_near, "near duplicates")
        for found in self._labels.run(self._resolved, "what they repeat"):
            repeats.add(found)

    def _search(self, images: Scattered, find: Callable[[Numbered], None], title: str) -> None:
        budget = self._labels.budget
        parts = {True: [], False: []}
        for part in images.parts:
            parts[part.num_rows * _SEARCH_BYTES > budget.each].append(part)
        largest = max((part.num_rows for part in parts[True]), default=0) * _SEARCH_BYTES
        if largest > budget.each * budget.threads:
            more = (largest - budget.each * budget.threads) / GIGABYTE
            raise InputError(
                f"Too many images have the same bytes or the same entity to compare them in this "
                f"memory; give {more:.1f} GB more with --memory, or choose --duplicates exact or "
                "keep."
            )
        for large, threads in ((False, budget.threads), (True, 1)):
            for _ in run_pass(parts[large], find, title, threads=threads):
                pass

    def _find_exact(self, part: Numbered) -> None:
        images = self._by_bytes.read(part.number)
        first = first_equal(*_halves(images["digest"]))
        several = first != np.arange(len(first))
        several[first[several]] = True
        copies = _surest_first(images[several])  # few, so that most need no sorting
        best = first_equal(*_halves(copies["digest"]))
        is_best = best == np.arange(len(best))
        again, of = copies["image"][~is_best], copies["image"][best[~is_best]]
        self._exact.add(self._labels.block_of(of), _repeat(again, of, 0, _EXACT))
        if self._bits is not None:
            kept = np.concatenate([images[~several], copies[is_best]])
            kept = kept[kept["has_phash"]]
            self._add_to(self._by_entity, kept, kept["entity"])

    def _find_near(self, part: Numbered) -> None:
        assert self._bits is not None
        images = _surest_first(self._by_entity.read(part.number))
        phash = np.ascontiguousarray(images["phash"])
        first = near_duplicates(
            phash, self._bits, images["entity"], max_bytes=self._labels.budget.each // 2
        )
        again = np.flatnonzero(first >= 0)
        of = first[again]
        found = _repeat(
            images["image"][again], images["image"][of], distance(phash[again], phash[of]), _NEAR
        )
        self._near.add(self._labels.block_of(found["image"]), found)

    def _resolved(self, block: Block) -> np.ndarray:
        """Returns the near copies in a block, and the exact copies of its images.

        A copy of an image that was then refused itself repeats the image kept instead of that.
        """
        near, exact = self._near.read(block.number), self._exact.read(block.number)
        instead = np.arange(block.begin, block.begin + block.num_rows)
        instead[near["image"] - block.begin] = near["of"]
        exact["of"] = instead[exact["of"] - block.begin]
        return np.concatenate([near, exact])


def _surest_first(images: np.ndarray) -> np.ndarray:
    """Sorts images by descending score of their surest label, then by bytes, then by key."""
    order = np.argsort(-images["score"])
    score = images["score"][order]
    same = score[1:] == score[:-1]
    tied = np.flatnonzero(np.append(False, same) | np.append(same, False))
    mine = images[order[tied]]
    columns = mine["image"], mine["tie"], mine["digest"][:, 0], -mine["score"]
    order[tied] = order[tied][np.lexsort(columns)]
    return images[order]
