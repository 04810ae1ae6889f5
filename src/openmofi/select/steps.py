"""The steps of a selection, one function each; `select.py` calls them in order.

Each takes the funnel and refuses images or labels under its reason.
"""

from __future__ import annotations

import numpy as np

from openmofi.arrays.compiled import compiled
from openmofi.arrays.random_keys import Purpose, mix_words, random_key
from openmofi.errors import InputError
from openmofi.select.funnel import Funnel


def refuse_damaged(funnel: Funnel) -> None:
    """Refuses pairs that could not be read, the most frequent reason first."""
    images = funnel.chosen.images
    counts = np.bincount(images.error, minlength=len(images.reasons) + 1)[1:]
    for number in np.argsort(-counts, kind="stable").tolist():
        if counts[number]:
            funnel.refuse_images(images.error == number + 1, images.reasons[number])


def refuse_unnamed(funnel: Funnel) -> None:
    """Refuses images whose caption names no entity: no_mention."""
    unnamed = np.ones(len(funnel.code), bool)
    unnamed[funnel.labels.image] = False
    funnel.refuse_images(unnamed, "no_mention")


def refuse_text(funnel: Funnel, max_text_area: float, i2e: object) -> None:
    """Refuses images with more than this share covered by text: text_in_picture.

    Raises:
        InputError: the text regions were not detected.
    """
    area = funnel.chosen.images.text_area
    if np.isnan(area).all():
        raise InputError(
            f"--max-text-area {max_text_area:g} needs the text regions of the images, which "
            f"{str(i2e)!r} does not hold; label again with --text-regions and another --out."
        )
    funnel.refuse_images(area > max_text_area, "text_in_picture")


def refuse_types(funnel: Funnel, denied: np.ndarray) -> None:
    """Refuses labels of denied entities: type_denied.

    Args:
        funnel: the state.
        denied: for each entity of the labels, whether its type is denied.
    """
    funnel.refuse_labels(denied[funnel.labels.entity], "type_denied")


def refuse_disagreeing(funnel: Funnel, threshold: float) -> None:
    """Refuses labels that the image does not confirm: picture_disagrees."""
    funnel.refuse_labels(~(funnel.labels.evidence >= threshold), "picture_disagrees")


def keep_best_entities(funnel: Funnel, max_entities: int) -> None:
    """Orders each image's labels, surest first; drops repeated entities and those over the limit.

    No image is refused.
    """
    labels = funnel.labels
    same = labels.image[1:] == labels.image[:-1]
    several = np.r_[False, same] | np.r_[same, False] if len(labels) else np.zeros(0, bool)
    index = np.flatnonzero(several)
    image, entity, score = (part[index] for part in (labels.image, labels.entity, labels.score))
    order = np.lexsort((entity, -score, image))
    arranged = np.arange(len(labels))
    arranged[index] = index[order]
    funnel.labels = labels.take(arranged)
    drop = np.zeros(len(labels), bool)
    drop[index] = _surplus(image[order], entity[order], max_entities)
    funnel.drop_labels(drop)


@compiled
def _surplus(image, entity, most):
    """Returns which labels repeat an entity of their image or come after its first `most`."""
    surplus = np.zeros(len(image), np.bool_)
    begin = kept = 0
    for i in range(len(image)):
        if i == 0 or image[i] != image[i - 1]:
            begin, kept = i, 0
        for j in range(begin, i):
            if entity[j] == entity[i]:
                surplus[i] = True
        if kept >= most:
            surplus[i] = True
        if not surplus[i]:
            kept += 1
    return surplus


def refuse_rare(funnel: Funnel, min_images: int) -> None:
    """Refuses labels of entities with fewer images: entity_too_rare."""
    counts = np.bincount(funnel.labels.entity, minlength=len(funnel.chosen.ids))
    funnel.refuse_labels(counts[funnel.labels.entity] < min_images, "entity_too_rare")


def refuse_beyond_cap(funnel: Funnel, max_images: int) -> None:
    """Refuses surplus labels of entities with too many: entity_has_enough.

    The images to keep are drawn uniformly by their bytes, so that the result is reproducible and
    does not depend on the order.

    Args:
        funnel: the state.
        max_images: labels kept per entity.
    """
    labels = funnel.labels
    digests = funnel.chosen.images.digest[labels.image, 0]
    order = np.lexsort((mix_words(random_key(0, Purpose.CAP), digests), labels.entity))
    first = np.searchsorted(labels.entity[order], labels.entity[order], "left")
    beyond = np.zeros(len(labels), bool)
    beyond[order] = np.arange(len(order)) - first >= max_images
    funnel.refuse_labels(beyond, "entity_has_enough")
