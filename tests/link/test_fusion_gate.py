"""Which mentions are read again, and that equal ones are read once."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openmofi.link.fusion import HardMentions, Remembering, features_of, least_certain, read_again
from openmofi.link.weights import TERMS, load_link_weights

SHARES = st.lists(st.floats(0.01, 1), min_size=2, max_size=5)  # the last is NIL's


@given(st.lists(SHARES, max_size=8), st.floats(0, 1))
def test_what_is_read_has_an_expected_error_above_the_asked_one(groups, above):
    shares = [np.array(group) / np.sum(group) for group in groups]
    probability = np.concatenate([np.zeros(0), *(share[:-1] for share in shares)])
    item = np.repeat(np.arange(len(shares)), [len(share) - 1 for share in shares])
    expected = [i for i, share in enumerate(shares) if 1 - share.max() > above + 1e-12]
    found = least_certain(probability, item, above).tolist()
    near = [i for i, share in enumerate(shares) if abs(1 - share.max() - above) <= 1e-12]
    assert [i for i in found if i not in near] == expected


class Counting:
    """Adds the number of characters of the caption, and notes what it reads."""

    weights = load_link_weights()

    def __init__(self):
        self.seen: list[str] = []

    def read(self, mentions: HardMentions) -> np.ndarray:
        self.seen += mentions.texts
        return np.array([float(len(mentions.texts[i])) for i in mentions.item])


def mentions_of(*texts: str, features: float = 0) -> HardMentions:
    item = np.repeat(np.arange(len(texts)), 2)
    zeros = np.zeros(len(texts), np.int64)
    told = np.full((len(item), len(TERMS) + 1), features, np.float32)
    return HardMentions(list(texts), zeros, zeros + 1, item, np.arange(len(item)), told)


def test_equal_mentions_are_read_once():
    reader = Counting()
    once = Remembering(reader)
    assert once.read(mentions_of("aa", "b", "aa")).tolist() == [2, 2, 1, 1, 2, 2]
    assert once.read(mentions_of("b", "cccc")).tolist() == [1, 1, 4, 4]
    assert reader.seen == ["aa", "b", "cccc"]
    assert once.num_read == 3


def test_the_same_words_with_other_evidence_are_read_again():
    reader = Counting()
    once = Remembering(reader)
    for features in (0, 1, 0):
        once.read(mentions_of("aa", features=features))
    assert reader.seen == ["aa", "aa"]


def test_what_was_remembered_longest_is_forgotten(monkeypatch):
    monkeypatch.setattr("openmofi.link.fusion._MOST_REMEMBERED", 2)
    reader = Counting()
    once = Remembering(reader)
    for texts in (("a", "b"), ("c",), ("c", "a")):
        once.read(mentions_of(*texts))
    assert reader.seen == ["a", "b", "c", "a"]


def test_mentions_that_are_not_read_have_no_number():
    mentions = mentions_of("aa", "b")
    probability = np.array([0.9, 0.05, 0.4, 0.3])
    found = read_again(Counting(), probability, mentions, 0.2)
    np.testing.assert_equal(found, [np.nan, np.nan, 1, 1])


def test_a_reader_is_told_every_term_and_the_sum():
    evidence = {"prior": np.array([0.0, -2.0]), "case": np.array([1, -1])}
    found = features_of(evidence, np.array([3.0, 1.0]), -2.0)
    assert found.dtype == np.float32
    assert found[:, TERMS.index("prior")].tolist() == [0, -2]
    assert found[:, TERMS.index("case")].tolist() == [1, -1]
    assert found[:, -1].tolist() == [5, 3]
    assert found.sum() == pytest.approx(6)
