"""Refuses images that repeat another one: an excluded image, or one with a surer label.

    evaluation_duplicate   the same bytes, or nearly the same image, as one that --exclude names
    duplicate_exact        the same bytes as an image with a surer label
    duplicate_near         nearly the same image as one with a surer label of the same entity; of
                           another entity it would be wrong, since hashes ignore colours and take
                           the flag of Chad for that of Belgium

Images without a hash (not opened, or of a single colour) are never duplicates.
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
    """The image that is kept instead, or the number of the known image."""
    bits: np.ndarray
    """Number of bits in which the perceptual hashes differ; 0 for the same bytes."""


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
    both = np.concatenate([known.digest, images.digest[image[opened]]])
    first = first_equal(*_halves(both))[len(known.digest) :]
    same = np.where(first < len(known.digest), first, -1)
    of[opened[same >= 0]] = same[same >= 0]
    hit = of >= 0
    image, of = image[hit], of[hit]
    both_hashed = images.has_phash[image] & known.has_phash[of]
    bits_apart = np.where(both_hashed, distance(images.phash[image], known.phash[of]), 0)
    funnel.refuse_images(image, "evaluation_duplicate")
    return [Repeats("evaluation_duplicate", image, of, bits_apart)]


def _halves(digests: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.ascontiguousarray(digests[:, 0]), np.ascontiguousarray(digests[:, 1])


def refuse_repeated(funnel: Funnel, bits: int | None) -> list[Repeats]:
    """Refuses all copies of an image but the one with the surest label.

    Args:
        funnel: the state; the surest label of each image comes first.
        bits: number of bits in which perceptual hashes may differ; None: copies have equal bytes.
    """
    images, image = funnel.chosen.images, _surest_first(funnel)
    image = image[images.has_digest[image]]
    first = first_equal(*_halves(images.digest[image]))
    again = np.flatnonzero(first < np.arange(len(first)))
    exact = Repeats("duplicate_exact", image[again], image[first[again]], np.zeros(len(again), int))
    funnel.refuse_images(exact.image, exact.reason)
    if bits is None:
        return [exact]
    near = _refuse_near(funnel, _surest_first(funnel), bits)
    # A copy of an image that was then refused itself repeats the image kept instead of that.
    instead = np.arange(funnel.chosen.num_images)
    instead[near.image] = near.of
    return [Repeats(exact.reason, exact.image, instead[exact.of], exact.bits), near]


def _surest_first(funnel: Funnel) -> np.ndarray:
    """Returns the images that are in, by descending score of their surest label, then by bytes."""
    image, score = funnel.labels.image, funnel.labels.score
    first = run_starts(image)
    digests = funnel.chosen.images.digest[image[first], 0]
    return image[first][np.lexsort((digests, -score[first]))]


def _refuse_near(funnel: Funnel, image: np.ndarray, bits: int) -> Repeats:
    images = funnel.chosen.images
    image = image[images.has_phash[image]]
    phash = images.phash[image]
    entity = np.zeros(len(images.phash), np.int64)
    labels = funnel.labels  # reversed, since the surest label comes first and must be written last
    entity[labels.image[::-1]] = labels.entity[::-1]
    first = near_duplicates(phash, bits, entity[image])
    again = np.flatnonzero(first >= 0)
    of = first[again]
    apart = distance(phash[again], phash[of])
    found = Repeats("duplicate_near", image[again], image[of], apart)
    funnel.refuse_images(found.image, found.reason)
    return found
