"""Duplicates against a slow search through all pairs; dense clusters are the hard case."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openmofi.select.denied_types import with_subclasses
from openmofi.select.duplicates import first_equal, near_duplicates, near_known, scheme_for

# Few bits over a few centres: distances from 0 to 16 all occur.
CENTRES = (0, 2**64 - 1, 0x0F0F_3333_5555_00FF)
HASHES = st.lists(
    st.builds(
        lambda centre, flips: centre ^ sum(1 << bit for bit in flips),
        st.sampled_from(CENTRES),
        st.sets(st.integers(0, 63), max_size=6),
    ),
    max_size=60,
).map(lambda words: np.array(words, np.uint64))


def slow_keepers(hashes, bits):
    """Goes through the hashes, best first; keeps those that are far from all kept before."""
    kept: list[int] = []
    for word in hashes.tolist():
        if all((word ^ other).bit_count() > bits for other in kept):
            kept.append(word)
    return kept


@given(HASHES, st.integers(0, 7))
def test_exactly_the_greedy_keepers_are_kept(hashes, bits):
    found = near_duplicates(hashes, bits)
    assert hashes[found < 0].tolist() == slow_keepers(hashes, bits)


@given(HASHES, st.integers(0, 7), st.randoms(use_true_random=False))
def test_only_images_of_one_group_repeat_each_other(hashes, bits, random):
    group = np.array([random.randrange(3) for _ in hashes], np.int64)
    found = near_duplicates(hashes, bits, group)
    for number in range(3):
        mine = hashes[group == number]
        kept = hashes[(found < 0) & (group == number)]
        assert kept.tolist() == slow_keepers(mine, bits)
    again = np.flatnonzero(found >= 0)
    assert (group[again] == group[found[again]]).all()


@given(HASHES, st.integers(0, 7), st.sampled_from([0, 1 << 30]))
def test_each_duplicate_names_the_first_kept_one_that_is_near(hashes, bits, max_bytes):
    found = near_duplicates(hashes, bits, max_bytes=max_bytes)
    kept = np.flatnonzero(found < 0)
    for again in np.flatnonzero(found >= 0):
        earlier = kept[kept < again]
        near = earlier[np.bitwise_count(hashes[earlier] ^ hashes[again]) <= bits]
        assert found[again] == near[0]


@given(HASHES, HASHES, st.integers(0, 7))
def test_known_images_are_found_and_only_they(hashes, known, bits):
    found = near_known(hashes, known, bits)
    for word, index in zip(hashes.tolist(), found.tolist(), strict=True):
        near = [i for i, other in enumerate(known.tolist()) if (word ^ other).bit_count() <= bits]
        assert index == (near[0] if near else -1)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=40))
def test_equal_keys_lead_to_their_first(keys):
    high, low = (np.array([key[i] for key in keys], np.uint64) for i in (0, 1))
    assert first_equal(high, low).tolist() == [keys.index(key) for key in keys]


@pytest.mark.slow
@pytest.mark.parametrize("bits", [1, 3, 5])
def test_every_scheme_gives_the_same_answer_on_many_hashes(rng, monkeypatch, bits):
    hashes = rng.integers(0, 2**64, 3000, dtype=np.uint64)
    flips = np.uint64(1) << rng.integers(0, 64, 3000, dtype=np.uint64)
    hashes = rng.permutation(np.concatenate([hashes, hashes ^ flips]))
    answers = []
    for cost in (0.0, 1e-3, 1e9):  # of a look into one place: many masks, or few
        monkeypatch.setattr("openmofi.select.duplicates._LOOKUP_COST", cost)
        answers.append((near_duplicates(hashes, bits) < 0).tolist())
    assert answers[0] == answers[1] == answers[2]
    assert sum(answers[0]) == len(slow_keepers(hashes, bits))


def test_a_crowd_of_equal_hashes_collapses_to_one():
    assert (near_duplicates(np.full(1_000_000, 7, np.uint64), 3) < 0).sum() == 1


def test_crowded_places_make_it_use_more_bands(rng):
    spread = rng.integers(0, 2**64, 50_000, dtype=np.uint64)
    crowded = spread & np.uint64(0xFFFF_FFFF)
    assert len(scheme_for(crowded, 3).masks) > len(scheme_for(spread, 3).masks)


def test_subclasses_are_found_over_any_number_of_steps():
    ids = pa.array(["fruit", "apple", "red apple", "stone", "loop"])
    above = pa.array([["food"], ["fruit"], ["apple", "red thing"], [], ["loop", "fruit"]])
    assert set(with_subclasses(["fruit"], ids, above).to_pylist()) == {
        "fruit",
        "apple",
        "red apple",
        "loop",
    }
