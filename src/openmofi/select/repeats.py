"""Refuses images that are there already: among the known ones, or among the better labelled.

    evaluation_duplicate   the bytes, or nearly the image, of one that --exclude names
    duplicate_exact        the bytes of an image with a surer label
    duplicate_near         nearly the image of one with a surer label of the same entity: hashes
                           see no colours, and so take the flag of Chad for that of Belgium

Images without a hash (not opened, or of a single colour) are nobody's duplicates.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from openmofi.arrays.runs import run_starts
from openmofi.select.duplicates import distance, first_equal, near_duplicates, near_known
from openmofi.select.excluded_images import KnownImages
from openmofi.select.funnel import Funnel


@dataclass(frozen=True)
class Repeats:
    """Refused duplicates, and what each repeats; one element per refused image."""

    reason: str
    image: np.ndarray
    of: np.ndarray
    """The image that is kept in its place, or the number of the known image."""
    bits: np.ndarray
    """In how many bits the perceptual hashes differ; 0 for the same bytes."""


def refuse_known(funnel: Funnel, known: KnownImages, bits: int) -> list[Repeats]:
    """Refuses images that repeat one of the known ones: evaluation_duplicate."""
    images, image = funnel.chosen.images, funnel.labels.image
    image = image[run_starts(image)]
    of = np.full(len(image), -1, np.int64)
    hashed = np.flatnonzero(images.has_phash[image])
    usable = np.flatnonzero(known.has_phash)
    near = near_known(images.phash[image[hashed]], known.phash[usable], bits)
    of[hashed[near >= 0]] = usable[near[near >= 0]]
    opened = np.flatnonzero(images.has_digest[image])
    same = _same_bytes(known.digest, images.digest[image[opened]])
    of[opened[same >= 0]] = same[same >= 0]
    hit = of >= 0
    image, of = image[hit], of[hit]
    both = images.has_phash[image] & known.has_phash[of]
    bits_apart = np.where(both, distance(images.phash[image], known.phash[of]), 0)
    funnel.refuse_images(image, "evaluation_duplicate")
    return [Repeats("evaluation_duplicate", image, of, bits_apart)]


def _same_bytes(known: np.ndarray, digests: np.ndarray) -> np.ndarray:
    """Returns for each digest the index of the known one that equals it, or -1."""
    both = np.concatenate([known, digests])
    first = first_equal(*_halves(both))[len(known) :]
    return np.where(first < len(known), first, -1)


def _halves(digests: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.ascontiguousarray(digests[:, 0]), np.ascontiguousarray(digests[:, 1])


def refuse_repeated(funnel: Funnel, bits: int | None) -> list[Repeats]:
    """Refuses all but the surest labelled of images that are the same.

    Args:
        funnel: the state; each image's labels with the surest first.
        bits: in which perceptual hashes may differ; None: only equal bytes are the same.
    """
    exact = _refuse_equal(funnel, _surest_first(funnel))
    if bits is None:
        return [exact]
    near = _refuse_near(funnel, _surest_first(funnel), bits)
    # What repeats an image that has gone itself repeats whom that gave way to.
    instead = np.arange(funnel.chosen.num_images)
    instead[near.image] = near.of
    return [Repeats(exact.reason, exact.image, instead[exact.of], exact.bits), near]


def _surest_first(funnel: Funnel) -> np.ndarray:
    """Returns the images that are in, by falling score of their surest label, then by bytes."""
    image, score = funnel.labels.image, funnel.labels.score
    first = run_starts(image)
    digests = funnel.chosen.images.digest[image[first], 0]
    return image[first][np.lexsort((digests, -score[first]))]


def _refuse_equal(funnel: Funnel, image: np.ndarray) -> Repeats:
    images = funnel.chosen.images
    image = image[images.has_digest[image]]
    first = first_equal(*_halves(images.digest[image]))
    again = np.flatnonzero(first < np.arange(len(first)))
    found = Repeats("duplicate_exact", image[again], image[first[again]], np.zeros(len(again), int))
    funnel.refuse_images(found.image, found.reason)
    return found


def _refuse_near(funnel: Funnel, image: np.ndarray, bits: int) -> Repeats:
    images = funnel.chosen.images
    image = image[images.has_phash[image]]
    phash = images.phash[image]
    entity = np.zeros(len(images.phash), np.int64)
    labels = funnel.labels  # each image's surest label comes first, and so is written last
    entity[labels.image[::-1]] = labels.entity[::-1]
    first = near_duplicates(phash, bits, entity[image])
    again = np.flatnonzero(first >= 0)
    of = first[again]
    apart = distance(phash[again], phash[of])
    found = Repeats("duplicate_near", image[again], image[of], apart)
    funnel.refuse_images(found.image, found.reason)
    return found
