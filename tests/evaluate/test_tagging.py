"""Tagging accuracy, in all and by how often an entity was seen, against a slow reference."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openmofi.evaluate.tagging import tagging


def _slow(vectors, labels, entities, ids, images):
    hits = {1: [], 5: []}
    for vector, label in zip(vectors, labels, strict=True):
        order = sorted(range(len(ids)), key=lambda e: (-float(entities[e] @ vector), e))
        for k, found in hits.items():
            found.append(label in [ids[e] for e in order[:k]])
    scores = {"tag_top1": np.mean(hits[1])}
    if len(ids) >= 5:
        scores["tag_top5"] = np.mean(hits[5])
    for name, fits in (
        ("seen_0", lambda n: n == 0),
        ("seen_1_to_9", lambda n: 1 <= n < 10),
        ("seen_10_to_99", lambda n: 10 <= n < 100),
        ("seen_100_to_999", lambda n: 100 <= n < 1000),
        ("seen_1000_up", lambda n: n >= 1000),
    ):
        inside = [hit for hit, lab in zip(hits[1], labels, strict=True) if fits(images.get(lab, 0))]
        if inside:
            scores[f"tag_top1_{name}"] = np.mean(inside)
    return scores


@settings(max_examples=40)
@given(st.integers(0, 10_000), st.integers(2, 12))
def test_tagging_equals_the_slow_reference(seed, num_entities):
    rng = np.random.default_rng(seed)
    # Whole numbers, so that there are ties.
    entities = rng.integers(-1, 2, size=(num_entities, 3)).astype(np.float32)
    vectors = rng.integers(-1, 2, size=(20, 3)).astype(np.float32)
    ids = [f"Q{n}" for n in range(num_entities)]
    labels = [f"Q{n}" for n in rng.integers(num_entities + 2, size=20)]
    images = {f"Q{n}": int(10 ** rng.uniform(0, 4)) for n in range(num_entities)}
    found = dict(tagging(vectors, labels, entities, ids, images))
    unknown = found.pop("tag_unknown_entities", 0)
    assert unknown == len(set(labels) - set(ids))
    assert found == pytest.approx(_slow(vectors, labels, entities, ids, images))


def test_nothing_is_said_by_frequency_where_it_is_not_known():
    found = dict(tagging(np.eye(2), ["a", "b"], np.eye(2), ["a", "b"], {}))
    assert found == {"tag_top1": 1.0}  # of two, the first five are no question
