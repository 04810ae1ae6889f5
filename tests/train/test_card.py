"""The card of a model claims what was trained, and no more."""

import types

import pytest

from openmofi.train.card import model_card
from selected import tiny


class _Data(list):
    """Images, of which the card asks only how many there are and of how many entities."""

    entity_ids = ("a", "b")


@pytest.mark.parametrize(
    ("loss", "init", "zero_shot", "said"),
    [
        ({"contrastive": 1.0, "supervised": 1.0}, None, True, "A dual encoder"),
        ({"contrastive": 1.0, "supervised": 0.0}, "some/clip", True, "A dual encoder"),
        ({"contrastive": 0.0, "supervised": 1.0}, None, False, "no zero-shot classifier"),
        ({"contrastive": 0.0, "supervised": 1.0}, "some/clip", False, "may fit them less"),
    ],
)
def test_only_who_compared_texts_classifies_by_words(loss, init, zero_shot, said):
    settings = tiny(loss=loss, model={"init": init})
    card = model_card(
        settings, _Data(range(3)), types.SimpleNamespace(dim=8, reads_texts=True), {"knn": 0.5}
    )
    tags = card.splitlines()[2]
    assert ("zero-shot-image-classification" in tags) == zero_shot
    assert said in card
    assert "on 3 images of\n2 entities" in card
