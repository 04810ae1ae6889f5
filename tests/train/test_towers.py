"""A text that repeats in a batch is encoded once, and none is longer than it must be."""

import pytest
import tiny_models
import torch

from openmofi.config import TrainSettings
from openmofi.model import load_model
from openmofi.train.towers import Towers, distinct_texts

TEXTS = ["red apple", "a green lime on the table", "red apple", "lime", "the", "lime", "a lime"]


@pytest.mark.parametrize("kind", ["clip", "siglip", "siglip2", "mobilenet", "bert"])
def test_every_text_tower_gives_what_it_gives_for_the_whole_batch(tmp_path, kind):
    model = load_model(str(tiny_models.write_model(tmp_path, kind)))
    towers = Towers(model, TrainSettings()).eval()
    tokens = model.text_inputs(TEXTS)
    found = towers._text_features(tokens)
    torch.testing.assert_close(found, model.token_features(tokens), atol=1e-5, rtol=1e-4)


def test_repetitions_and_padding_are_left_out():
    ids = torch.tensor([[1, 5, 9, 0, 0], [1, 5, 6, 7, 9], [1, 5, 9, 0, 0], [1, 9, 0, 0, 0]])
    groups, place = distinct_texts({"input_ids": ids}, pad=0)
    texts = [text.tolist() for group in groups for text in group["input_ids"]]
    assert [texts[p] for p in place] == [[1, 5, 9, 0], [1, 5, 6, 7, 9], [1, 5, 9, 0], [1, 9, 0]]
    assert len(texts) == 3


def test_a_text_may_end_with_the_paddings_own_token():
    groups, _ = distinct_texts({"input_ids": torch.tensor([[1, 5, 0, 0, 0]])}, pad=0)
    assert groups[0]["input_ids"].tolist() == [[1, 5, 0]]


def test_masks_come_along():
    tokens = {
        "input_ids": torch.tensor([[4, 5, 0], [4, 0, 0]]),
        "attention_mask": torch.tensor([[1, 1, 0], [1, 0, 0]]),
    }
    groups, place = distinct_texts(tokens, pad=0, num_groups=1)
    assert groups[0]["attention_mask"][place].tolist() == [[1, 1, 0], [1, 0, 0]]
