"""The steps of a selection that look at one block at a time; `select.py` calls them in order.

Each takes the funnel of a block and refuses images or labels under its reason.
"""

from __future__ import annotations

import numpy as np

from openmofi.arrays.compiled import compiled
from openmofi.select.chosen_labels import Images
from openmofi.select.funnel import Funnel

ORDER = (
    "no_mention",
    "text_in_picture",
    "evaluation_duplicate",
    "type_denied",
    "corrected",
    "picture_disagrees",
    "duplicate_exact",
    "duplicate_near",
    "entity_too_rare",
    "entity_has_enough",
)
"""The reasons in the order of the steps; before them come those for which `label` refused."""


def in_order(counts: dict[str, int]) -> dict[str, int]:
    """Returns the counts of reasons in the order of the steps; of `label`, the largest first."""
    damaged = sorted(counts.keys() - set(ORDER), key=lambda reason: (-counts[reason], reason))
    return {reason: counts[reason] for reason in (*damaged, *ORDER) if reason in counts}


def refuse_damaged(funnel: Funnel, images: Images) -> None:
    """Refuses pairs that could not be read."""
    for number, reason in enumerate(images.reasons, start=1):
        funnel.refuse_images(images.error == number, reason)


def refuse_unnamed(funnel: Funnel) -> None:
    """Refuses images whose caption names no entity: no_mention."""
    unnamed = np.ones(len(funnel.code), bool)
    unnamed[funnel.labels.image] = False
    funnel.refuse_images(unnamed, "no_mention")


def refuse_text(funnel: Funnel, images: Images, max_text_area: float) -> None:
    """Refuses images with more than this share covered by text: text_in_picture."""
    funnel.refuse_images(images.text_area > max_text_area, "text_in_picture")


def refuse_types(funnel: Funnel, denied: np.ndarray) -> None:
    """Refuses labels of denied entities: type_denied.

    Args:
        funnel: the state.
        denied: for each entity of the knowledge base, whether its type is denied.
    """
    funnel.refuse_labels(denied[funnel.labels.entity], "type_denied")


def refuse_corrected(funnel: Funnel) -> None:
    """Refuses labels that people call wrong: corrected."""
    funnel.refuse_labels(funnel.labels.known < 0, "corrected")


def refuse_disagreeing(funnel: Funnel, threshold: float) -> None:
    """Refuses labels that the image does not confirm: picture_disagrees."""
    funnel.refuse_labels(~(funnel.labels.evidence >= threshold), "picture_disagrees")


def keep_best_entities(funnel: Funnel, max_entities: int, ranks: np.ndarray) -> None:
    """Orders each image's labels, surest first; drops repeated entities and those over the limit.

    No image is refused.

    Args:
        funnel: the state.
        max_entities: labels kept per image.
        ranks: place of every entity's id, which decides between labels that are equally sure.
    """
    labels = funnel.labels
    same = labels.image[1:] == labels.image[:-1]
    several = np.r_[False, same] | np.r_[same, False] if len(labels) else np.zeros(0, bool)
    index = np.flatnonzero(several)
    image, entity, score = (part[index] for part in (labels.image, labels.entity, labels.score))
    order = np.lexsort((ranks[entity], -score, image))
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


def refuse_rare(funnel: Funnel, counts: np.ndarray, min_images: int) -> None:
    """Refuses labels of entities with fewer images: entity_too_rare.

    Args:
        funnel: the state.
        counts: images of every entity.
        min_images: the fewest.
    """
    funnel.refuse_labels(counts[funnel.labels.entity] < min_images, "entity_too_rare")
