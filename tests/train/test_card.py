"""The card of a model claims what was trained, and no more."""

import types

import pytest
import torch

from openmofi.model.presets import SpecialTokens, build_network
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
    model = types.SimpleNamespace(dim=8, reads_texts=True, network=None)
    card = model_card(settings, _Data(range(3)), model, {"knn": 0.5})
    tags = card.splitlines()[2]
    assert ("zero-shot-image-classification" in tags) == zero_shot
    assert said in card
    assert "on 3 images of\n2 entities" in card


@pytest.mark.parametrize(
    ("preset", "library", "said"),
    [("nano", "transformers", "or with\n`transformers.AutoModel`"), ("s0", "openmofi", "import ")],
)
def test_a_card_says_who_loads_the_network(preset, library, said):
    tokens = SpecialTokens(300, 298, 299, 297)
    with torch.device("meta"):
        network = build_network(preset, tokens, image_size=64)
    model = types.SimpleNamespace(dim=8, reads_texts=True, network=network)
    card = model_card(tiny(model={"preset": preset}), _Data(range(3)), model, {})
    assert f"library_name: {library}\n" in card
    assert said in card
