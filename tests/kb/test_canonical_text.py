import unicodedata

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from openmofi.errors import InputError
from openmofi.kb.codepoints import expand
from openmofi.kb.text import Tokens, canonical, canonical_batch, tokenise


def words(tokens: Tokens) -> list[str]:
    spans = zip(tokens.start, tokens.end, strict=True)
    return [bytes(tokens.buffer[start:end]).decode() for start, end in spans]


def surfaces(caption: str) -> list[str]:
    tokens = tokenise([caption])
    spans = zip(tokens.char_start, tokens.char_end, strict=True)
    return [caption[start:end] for start, end in spans]


def sentences(caption: str) -> list[str]:
    tokens = tokenise([caption])
    parts: list[list[str]] = []
    for word, barrier in zip(words(tokens), tokens.barrier, strict=True):
        parts = [*parts, [word]] if barrier else [*parts[:-1], [*parts[-1], word]]
    return [" ".join(part) for part in parts]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Dvořák", "dvorak"),
        ("Łódź", "lodz"),
        ("Ærøskøbing", "aeroskobing"),
        ("Straße", "strasse"),
        ("İstanbul", "istanbul"),
        ("Diyarbakır", "diyarbakir"),
        ("Ёлка", "елка"),
        ("Ἀθήνα", "αθηνα"),
        ("ΟΔΟΣ", "οδοσ"),
        ("ＡＢＣ", "abc"),
        ("हिन्दी", "हिन्दी"),
        ("AT&T", "at&t"),
        ("Johnson & Johnson", "johnson johnson"),
        ("C++", "c++"),
        ("Disney+ shows", "disney+ shows"),
        ("100+ photos", "100 photos"),
        ("A$AP Rocky", "a$ap rocky"),
        ("US$ 100", "us 100"),
        ("U.S.A.", "u.s.a"),
        ("J.R.R. Tolkien", "j.r.r tolkien"),
        ("Washington, D.C.", "washington d.c"),
        ("north-korea_map", "north korea map"),
        ("Levi’s", "levi 's"),
        ("L'Oréal", "l oreal"),
        ("Turkey 's", "turkey 's"),
        ("東京タワー", "東 京 タ ワ ー"),
        ("ไทย", "ไ ท ย"),
        ("Coca-Cola™", "coca cola"),
        ("\ufeffzero\u200dwidth", "zerowidth"),
        ("🇧🇪 !?", ""),
        ("", ""),
    ],
)
def test_spellings_of_one_name_meet(name, expected):
    assert canonical(name) == expected


# Hangul becomes its letters, which NFKD separates, Tamil and Khmer vowels lose or gain nothing.
@pytest.mark.parametrize(
    ("script", "name", "expected"),
    [
        ("Latin", "Åland Ž", ["aland", "z"]),
        ("Vietnamese Latin", "Đà Nẵng", ["da", "nang"]),
        ("Greek", "Ἄγιον Ὄρος", ["αγιον", "οροσ"]),
        ("Cyrillic", "Йошкар-Ола", ["иошкар", "ола"]),
        ("Armenian", "Երևան", ["երեւան"]),
        ("Georgian", "თბილისი", ["თბილისი"]),
        ("Hebrew", "תֵּל אָבִיב", ["תֵּל", "אָבִיב"]),
        ("Arabic", "القاهرة", ["القاهرة"]),
        ("Devanagari", "मुंबई शहर", ["मुंबई", "शहर"]),
        ("Tamil", "சென்னை", ["சென்னை"]),
        ("Telugu", "హైదరాబాదు", ["హైదరాబాదు"]),
        ("Amharic", "አዲስ አበባ", ["አዲስ", "አበባ"]),
        ("Thai", "กทม", ["ก", "ท", "ม"]),
        ("Lao", "ລາວ", ["ລ", "າ", "ວ"]),
        ("Han", "北京 市", ["北", "京", "市"]),
        ("Kana", "トヨタ", ["ト", "ヨ", "タ"]),
        ("Mixed", "東京Tower", ["東", "京", "tower"]),
    ],
)
def test_scripts_are_split_as_they_are_written(script, name, expected):
    assert canonical(name).split(" ") == [unicodedata.normalize("NFKD", w) for w in expected]


@pytest.mark.parametrize(
    ("one", "other"),
    [("서울", "\u1109\u1165\u110b\u116e\u11af"), ("ភ្នំពេញ", "ភ្នំពេញ"), ("မြန်မာ", "မြန်မာ")],
)
def test_composed_and_decomposed_names_meet(one, other):
    assert canonical(one) == canonical(other) != ""


def test_khmer_and_burmese_characters_stand_alone_with_their_signs():
    assert canonical("ខ្មែរ").replace(" ", "") == "ខ្មែរ"
    assert len(canonical("မြန်မာ").split()) == 3


@pytest.mark.parametrize(
    ("written", "case"),
    [
        ("turkey", 1),
        ("Turkey", 2),
        ("TURKEY", 3),
        ("iPhone", 4),
        ("A", 5),
        ("3D", 5),
        ("1984", 0),
        ("中", 0),
    ],
)
def test_tokens_know_how_they_are_written(written, case):
    assert tokenise([written]).case.tolist() == [case]


def test_tokens_know_their_bytes():
    caption = "é½ Turkey’s \U0001f600 İstanbul"
    found = tokenise(["something else", caption])
    tokens = found.row == 1
    data = ("something else" + caption).encode()
    cut = [data[a:b].decode() for a, b in zip(found.raw_start, found.raw_end, strict=True)]
    chars = zip(found.char_start[tokens], found.char_end[tokens], strict=True)
    assert cut[2:] == [caption[a:b] for a, b in chars]


@pytest.mark.parametrize("size", [1_000_000, 70_000])
def test_huge_captions_are_read(size):
    assert canonical("a b" + "\ufdfa" * (size // 100) + "x" * size).startswith("a b")


@given(st.binary(max_size=40))
@example(b"caf\xed\xa0\x80")
@example(b"\xe0\x9f\xbf")
@example(b"\xf0\x80\x80\x80x")
def test_bytes_that_are_no_utf8_are_survived(data):
    offsets = pa.py_buffer(np.array([0, len(data)], np.int64))
    wrong = pa.LargeStringArray.from_buffers(1, offsets, pa.py_buffer(data))
    tokens = tokenise(wrong)
    assert bytes(tokens.buffer).decode().count(" ") == len(tokens)
    assert np.all(tokens.char_end > tokens.char_start)


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("Visit York. City lights", ["visit york", "city lights"]),
        ("Paris | France", ["paris", "france"]),
        ("Paris - France", ["paris", "france"]),
        ("Paris – France", ["paris", "france"]),
        ("Paris-France", ["paris france"]),
        ("Paris\nFrance", ["paris", "france"]),
        ("St. Louis", ["st louis"]),
        ("J. K. Rowling", ["j k rowling"]),
        ("the U.S. Capitol", ["the u.s capitol"]),
        ("Washington, D.C.", ["washington d.c"]),
        ("version 2.0", ["version 2 0"]),
        ("美国。中国", ["美 国", "中 国"]),
    ],
)
def test_names_do_not_span_barriers(caption, expected):
    assert sentences(caption) == expected


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("Turkey’s flag", ["Turkey", "’s", "flag"]),
        ("Beyonce\u0301 sings", ["Beyonce\u0301", "sings"]),
        ("in the U.S.", ["in", "the", "U.S."]),
        ("½ Straße", ["½", "½", "Straße"]),
        ("中国 ok", ["中", "国", "ok"]),
    ],
)
def test_offsets_are_code_points_of_the_raw_caption(caption, expected):
    assert surfaces(caption) == expected


def test_tokens_know_their_caption():
    tokens = tokenise(["one two", None, "", "three"])
    assert tokens.row.tolist() == [0, 0, 3]
    assert tokens.barrier.tolist() == [True, False, True]


def test_a_caption_that_is_not_text_is_named():
    with pytest.raises(InputError, match=r"Caption 1 is 5, but captions must be text"):
        tokenise(["one", 5])  # type: ignore[list-item]


def test_lone_surrogates_are_survived():
    assert canonical("bad \ud83c emoji") == "bad emoji"


ASCII = st.text(st.characters(max_codepoint=127))
TRICKY = st.text(st.sampled_from(list("aBz9 .'’s&$+|-–_\n,éŁ中ไ\u0301\u0e34½")))


@given(st.lists(st.text() | TRICKY, max_size=6))
def test_a_batch_is_as_good_as_one_by_one(names):
    assert canonical_batch(names).to_pylist() == [canonical(name) for name in names]


@example("'S+")
@example("who's++ x's&b's$a's.b")
@given(ASCII | TRICKY)
def test_canonical_forms_are_fixed_points(name):
    once = canonical(name)
    assert canonical(once) == once


def test_the_names_of_a_slice_of_unicode_fold_without_error():
    assert all(len(chars) == len(kinds) for chars, kinds in map(expand, map(chr, range(0x3000))))
