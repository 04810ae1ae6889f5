import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openmofi.kb.index import Candidates
from openmofi.kb.spelling import LARGE
from openmofi.link.disambiguate import coherence, evidence_of, logits, probabilities
from openmofi.link.mentions import Mentions
from openmofi.link.weights import load_link_weights

LOGITS = st.lists(st.lists(st.floats(-20, 20), min_size=1, max_size=30), min_size=1, max_size=5)


def candidates_of(sizes: list[int], prior: list[float]) -> Candidates:
    item = np.repeat(np.arange(len(sizes)), sizes)
    rank = np.concatenate([np.arange(size) for size in sizes])
    return Candidates(item, rank, np.arange(len(item)), np.array(prior), np.full(len(item), LARGE))


def mentions_of(rows: list[int]) -> Mentions:
    zeros = np.zeros(len(rows), np.int64)
    return Mentions(np.array(rows), *[zeros] * 11)


@given(LOGITS, st.floats(-20, 20))
def test_probabilities_are_a_softmax_with_nil_in_order(groups, nil):
    logit = np.array([value for group in groups for value in group])
    rank = np.concatenate([np.arange(len(group)) for group in groups])
    found, order = probabilities(logit, rank, nil)
    begin = 0
    for group in groups:
        total = math.fsum(math.exp(value) for value in [*group, nil])
        here = slice(begin, begin + len(group))
        assert found[here] == pytest.approx([math.exp(value) / total for value in group])
        expected = sorted(range(len(group)), key=lambda i, group=group: (-group[i], i))
        assert (order[here] - begin).tolist() == expected
        begin += len(group)


def test_ambiguity_alone_does_not_speak_for_nil():
    evidence = evidence_of(np.array([0, 0, 1]), np.array([1.0, 0.5, 0.5]), {})
    assert logits(evidence, load_link_weights()).tolist() == [0, 0, 0]


def test_a_detector_and_the_counts_speak_for_and_against():
    terms = {"detected": np.array([1.0, 0.5, 0.0]), "linkability": np.array([0.9, 0.5, 0.1])}
    evidence = evidence_of(np.zeros(3), np.ones(3), terms)
    found = logits(evidence, load_link_weights())
    assert found[0] > found[1] > found[2]
    assert found[1] == 0


def slow_coherence(candidates: Candidates, rows: list[int], vectors: np.ndarray) -> list[float]:
    found = []
    for i in range(len(candidates)):
        mention = candidates.item[i]
        others = [m for m in range(len(rows)) if rows[m] == rows[mention] and m != mention]
        expected = [
            sum(candidates.prior[c] * vectors[c] for c in np.flatnonzero(candidates.item == other))
            for other in others
        ]
        found.append(float(np.mean([vectors[i] @ e for e in expected])) if others else 0.0)
    return found


@given(st.data())
def test_coherence_equals_a_slow_one(data):
    sizes = data.draw(st.lists(st.integers(1, 3), min_size=1, max_size=6))
    rows = sorted(data.draw(st.lists(st.integers(0, 3), min_size=len(sizes), max_size=len(sizes))))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    prior = np.concatenate([rng.dirichlet(np.ones(size)) for size in sizes])
    vectors = rng.normal(size=(sum(sizes), 4)).astype(np.float32)
    candidates = candidates_of(sizes, prior.tolist())
    found = coherence(candidates, mentions_of(rows), vectors)
    assert found.tolist() == pytest.approx(slow_coherence(candidates, rows, vectors), abs=1e-5)
