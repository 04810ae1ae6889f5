"""Phrases of captions: which count, how often, against counting them one by one."""

from collections import Counter

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openmofi.kb.text import canonical
from openmofi.review.missing.phrases import as_written, count_phrases, find_bearers, is_numeral

STOP = frozenset({"the", "of", "photo"})
WORDS = ("okapi", "the", "of", "red", "photo", "crane")


def _slow(captions):
    """Phrases of up to four words that neither begin nor end with a stop word, by caption."""
    for caption in captions:
        words, found = canonical(caption).split(), set()
        for length in (1, 2, 3, 4):
            for at in range(len(words) - length + 1):
                part = words[at : at + length]
                if part[0] not in STOP and part[-1] not in STOP:
                    found.add(" ".join(part))
        yield found


def _counted(refused, everywhere, least=1, **more):
    batches = [pa.array(refused, pa.large_string())]
    found = count_phrases(
        batches, [pa.array(everywhere, pa.large_string())], STOP, least=least, **more
    )
    bearers = find_bearers(batches[0], found.key, STOP)
    return found, bearers


@given(st.lists(st.lists(st.sampled_from(WORDS), max_size=7).map(" ".join), min_size=1, max_size=9))
def test_phrases_are_counted_once_a_caption(captions):
    found, bearers = _counted(captions[::2], captions)
    slow = list(_slow(captions))
    refused, everywhere = Counter(), Counter()
    refused.update(one for phrases in slow[::2] for one in phrases)
    everywhere.update(one for phrases in slow for one in phrases)
    assert dict(zip(bearers.text, found.refused.tolist(), strict=True)) == dict(refused)
    assert found.everywhere.tolist() == [everywhere[text] for text in bearers.text]
    for phrase, text in enumerate(bearers.text):
        assert bearers.of(phrase).tolist() == [i for i, own in enumerate(slow[::2]) if text in own]


def test_rare_phrases_are_forgotten_when_there_are_too_many_and_frequent_ones_are_not():
    batches = [pa.array([f"okapi {i} thing{i}"], pa.large_string()) for i in range(50)]
    found = count_phrases(batches, [], STOP, least=20, most=10)
    assert found.refused.max() >= 45
    assert len(found) == 1


def test_no_phrase_crosses_a_full_stop():
    assert "zoo okapi" not in _counted(["at the zoo. Okapi"], [])[1].text


@pytest.mark.parametrize("text", ["2004", "img 3946", "dsc09720 31", "7", "a 3", "p1010034"])
def test_file_names_and_numbers_are_no_names(text):
    assert is_numeral(text)


@pytest.mark.parametrize("text", ["okapi", "iphone 15", "u2x band"])
def test_a_name_may_have_a_number(text):
    assert not is_numeral(text)


def test_a_name_is_written_as_most_captions_write_it():
    captions = ["an Okapi", "Okapi!", "okapi", "OKAPI HERE", "the giraffe"]
    assert as_written(captions, "okapi") == "Okapi"
    assert as_written(["the sea-horse", "Sea Horse, blue"], "sea horse") == "Sea Horse"
