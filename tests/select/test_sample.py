"""The sample of mentions: the same for every order and division of the pairs."""

import random
from itertools import pairwise

import numpy as np
import pytest

from labelled import candidate, pair, unseen, write_i2e
from openmofi.select import sample
from openmofi.select.blocks import Budget, label_blocks
from openmofi.select.sample import sample_mentions
from openmofi.shards import committed_files


def rows(rng, count=300):
    """Images with 0 to 2 mentions of 1 to 3 candidates; text_score tells which pair it is."""
    found = []
    for i in range(count):
        ids = [["red", "green", "lime"][: rng.integers(1, 4)] for _ in range(rng.integers(3))]
        mine = [
            candidate(one, text=(i + 1) / 1000, z=float(place), start=9 * start)
            for start, mention in enumerate(ids)
            for place, one in enumerate(mention)
        ]
        mine += [unseen("plum", start=30)] * (i % 5 == 0)
        found.append(pair(str(i), *mine, image=b"%d" % i))
    return found


def drawn(folder, found, shards):
    folder.mkdir()
    i2e = write_i2e(folder, *np.array_split(np.array(found, object), shards))
    return sample_mentions(label_blocks(committed_files(i2e)), "joint")


def as_lists(found):
    ends = np.append(found.found.begins, len(found.found.row))
    return [
        (found.found.text[low:high].tolist(), found.found.clip_z[low:high].tolist())
        for low, high in pairwise(ends)
    ]


@pytest.mark.parametrize("enough", [40, 1000])
def test_neither_order_nor_shards_nor_blocks_matter(tmp_path, rng, monkeypatch, enough):
    monkeypatch.setattr(sample, "_ENOUGH", enough)
    given = rows(rng)
    one = drawn(tmp_path / "one", given, 2)
    random.Random(0).shuffle(given)
    monkeypatch.setattr("openmofi.select.blocks.budget_for", lambda *_: Budget(2, 9_000))
    other = drawn(tmp_path / "other", given, 30)
    assert as_lists(one) == as_lists(other)


def test_whole_images_are_drawn_and_about_as_many_as_are_enough(tmp_path, rng, monkeypatch):
    given = rows(rng)
    everything = as_lists(drawn(tmp_path / "all", given, 3))
    looked = sum(len({c["start"] for c in row["entities"] if c["clip"]}) for row in given)
    assert len(everything) == looked
    monkeypatch.setattr(sample, "_ENOUGH", 40)
    some = as_lists(drawn(tmp_path / "some", given, 3))
    assert some == everything[: len(some)]
    assert 40 <= len(some) <= 41
    pairs = {text[0] for text, _ in some}
    assert [m for m in everything if m[0][0] in pairs] == some
    assert len(pairs) > 20


def test_the_sample_does_not_favour_the_first_shards(tmp_path, rng, monkeypatch):
    monkeypatch.setattr(sample, "_ENOUGH", 100)
    some = as_lists(drawn(tmp_path / "some", rows(rng), 3))
    assert 0.35 < np.mean([text[0] for text, _ in some]) / 0.3 < 0.65
