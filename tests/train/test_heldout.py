"""Recall of held-out pairs: chance where the encoder knows nothing, equal captions alike."""

import numpy as np
import pytest

from openmofi.train.heldout import recall_at_1

_NAMES = ("image_to_text_r1", "text_to_image_r1")


@pytest.mark.parametrize(
    ("collapsed", "expected"),
    [("images", (0.02, 0.02)), ("texts", (0.02, 0.02)), ("both", (0.02, 0.02)), ("none", (1, 1))],
)
def test_a_collapsed_encoder_finds_its_pairs_by_chance(collapsed, expected):
    images, texts = np.eye(50, dtype=np.float32), np.eye(50, dtype=np.float32)
    if collapsed in ("images", "both"):
        images = np.full((50, 50), 50**-0.5, np.float32)
    if collapsed in ("texts", "both"):
        texts = np.full((50, 50), 50**-0.5, np.float32)
    scores = dict(recall_at_1(images, texts, [str(i) for i in range(50)]))
    assert scores == pytest.approx(dict(zip(_NAMES, expected, strict=True)))


def test_another_pair_with_the_same_caption_is_as_good():
    images, texts = np.eye(3, dtype=np.float32), np.eye(3, dtype=np.float32)[[1, 0, 2]]
    assert dict(recall_at_1(images, texts, ["a", "a", "b"])) == dict.fromkeys(_NAMES, 1.0)
    swapped = dict(recall_at_1(images, texts, ["a", "b", "c"]))
    assert swapped == pytest.approx(dict.fromkeys(_NAMES, 1 / 3))
