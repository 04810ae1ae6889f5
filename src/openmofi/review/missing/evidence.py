"""Refused images -> phrases that may be names, the images to look at, what both say together."""

from __future__ import annotations

import hashlib

import numpy as np

from openmofi.kb import KnowledgeBase
from openmofi.link.stopwords import stop_words
from openmofi.review.missing.images import RefusedImages, all_captions
from openmofi.review.missing.phrases import (
    Bearers,
    Phrases,
    count_phrases,
    find_bearers,
    is_numeral,
)
from openmofi.review.missing.propose import MOST_OF_A_PHRASE, KnownLooks, NamedImages
from openmofi.select.selection import Selection

_BACKGROUND = 4096
"""Refused images, drawn whatever their captions say, that a look is compared with."""
_MOST_IMAGES = 200_000
"""Refused images that are encoded at most."""
_FEWEST = 8
"""Images of each phrase that are not given up for that."""


def possible_names(
    selection: Selection, images: RefusedImages, *, least: int
) -> tuple[Phrases, Bearers]:
    """Returns the phrases that are no rarer in refused captions than in all, and their bearers."""
    stop = stop_words(selection.kb.languages)
    counted = count_phrases(images.caption.chunks, all_captions(selection), stop, least=least)
    everywhere = counted.everywhere * images.drawn
    usual = images.all / max(int(selection.card["funnel"]["pairs"]), 1)
    often = counted.refused >= usual * everywhere
    bearers = find_bearers(images.caption, counted.key[often], stop)
    named = np.array([bool(text) and not is_numeral(text) for text in bearers.text], bool)
    kept = (counted.key, counted.refused, everywhere)
    return Phrases(*(column[often][named] for column in kept)), bearers.keep(named)


def images_to_see(bearers: Bearers, count: int) -> tuple[np.ndarray, Bearers]:
    """Returns the images to look at, the background first, and the bearers counted among them.

    Args:
        bearers: of the phrases, counted among all images.
        count: how many images there are.
    """
    background, most = min(_BACKGROUND, count), MOST_OF_A_PHRASE
    while True:
        wanted = bearers.first(most)
        chosen = np.union1d(np.arange(background), wanted.image)
        if len(chosen) <= _MOST_IMAGES or most <= _FEWEST:
            break
        most //= 2
    chosen = chosen[:_MOST_IMAGES]
    return chosen, wanted.among(chosen)


def evidence_of(
    kb: KnowledgeBase,
    phrases: Phrases,
    bearers: Bearers,
    vectors: np.ndarray,
    entities: list[str],
) -> NamedImages:
    """Returns what proposals are made from.

    Args:
        kb: the catalogue.
        phrases: possible names.
        bearers: counted among the images that were looked at.
        vectors: of these images, then of kept ones; NaN where there is none.
        entities: what each kept image shows.
    """
    count = len(vectors) - len(entities)
    seen = ~np.isnan(vectors[:, 0])
    background = np.flatnonzero(seen[: min(_BACKGROUND, count)])
    vectors = _unit(np.where(seen[:, None], vectors, 0))
    if len(background):
        vectors = _unit(vectors - vectors[background].mean(axis=0))
    once = _first_of_equal(vectors[:count]) & seen[:count]
    ids, begins, own = _by_entity(entities, seen[count:])
    number = {one: i for i, one in enumerate(ids)}

    def meanings(text: str) -> list[int]:
        return [number.get(one, -1) for one in kb.lookup([text])["id"].to_pylist()]

    known = KnownLooks(ids, begins, vectors[count:][own])
    return NamedImages(
        bearers.only(once),
        phrases.everywhere,
        phrases.refused,
        vectors[:count],
        background,
        known,
        meanings,
    )


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-6)


def _first_of_equal(vectors: np.ndarray) -> np.ndarray:
    """Returns which vectors no earlier one equals: copies of an image count once."""
    seen: set[bytes] = set()
    first = np.zeros(len(vectors), bool)
    for i, vector in enumerate(vectors):
        key = hashlib.blake2b(vector.tobytes(), digest_size=16).digest()
        first[i] = key not in seen
        seen.add(key)
    return first


def _by_entity(entities: list[str], seen: np.ndarray) -> tuple[list[str], np.ndarray, np.ndarray]:
    names = np.array(entities, object)
    own = np.flatnonzero(seen)
    if not len(own):
        return [], np.zeros(1, np.int64), own
    ids, inverse = np.unique(names[own].astype(str), return_inverse=True)
    order = np.argsort(inverse, kind="stable")
    begins = np.searchsorted(inverse[order], np.arange(len(ids) + 1))
    return ids.tolist(), begins, own[order]
