from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openmofi.arrays.strings import string_buffers
from openmofi.kb import KnowledgeBase, build_kb
from openmofi.kb.entities import expand_entities
from openmofi.kb.text import canonical, tokenise
from openmofi.link import Linker


def _expanded(*texts):
    offsets, data = string_buffers(pa.array(texts, pa.large_string()))
    found = expand_entities(data, offsets)
    if found is None:
        return list(texts)
    ends = found.offsets.tolist()
    whole = found.data.tobytes()
    return [whole[a:b].decode() for a, b in pairwise(ends)]


@pytest.mark.parametrize(
    ("raw", "right"),
    [
        ("Trinidad &amp; Tobago", "Trinidad & Tobago"),
        ("caf&eacute; &#233; &#xE9; &#Xe9;", "café é é é"),
        ("&amp;eacute; &amp;amp;amp; &#38;#39; &amp;lt;b&amp;gt;", "é & ' <b>"),
        ("&#128512;&#x1F600;&Afr;", "😀😀𝔄"),
        ("&NotEqualTilde;", "≂̸"),
        ("caf&eacute bar &copy 2020 &#169 x &reg", "café bar © 2020 © x ®"),
        ("&#150;&#0;&#xD800;&#x110000;&#1;", "–\ufffd\ufffd\ufffd\ufffd"),
        ("AT&amp;T and AT&AMP;T", "AT&T and AT&T"),
        ("&amp;copy=2", "&copy=2"),
    ],
)
def test_an_entity_stands_for_its_characters(raw, right):
    assert _expanded(raw) == [right]


@pytest.mark.parametrize(
    "raw",
    [
        "AT&T, R&D, M&Ms, Q&A; & &; &&",
        "x.org/?a=1&copy=2&reg=3&lang=en",
        "http://x.org/a&copy and ?q=a&not",
        "&eacutes &nosuch; &hellip without its semicolon",
        "&#; &#x; &#xg; &a",
        "no ampersand",
    ],
)
def test_what_is_no_entity_stays(raw):
    assert _expanded(raw) == [raw]


def test_an_entity_does_not_go_on_in_the_next_text():
    assert _expanded("a &am", "p; &amp", ";", "&amp;", "amp;") == [
        "a &am",
        "p; &",
        ";",
        "&",
        "amp;",
    ]


PIECES = {
    "&amp;": "&",
    "&eacute;": "é",
    "&amp;eacute;": "é",
    "&#128512;": "😀",
    "&frac12;": "½",
    "&nbsp;": "\xa0",
    "&#769;": "\u0301",
    "&zwj;": "\u200d",
    "&ndash;": "–",
    "&#x4E2D;": "中",
} | {plain: plain for plain in ("caf", "x", " ", ".", "é", "中", "😀", "'s", "S.A.", "|")}


def _spans(pieces):
    """Where in the raw text each character of the expanded one is from."""
    spans, at = [], 0
    for piece in pieces:
        if PIECES[piece] == piece:
            spans += [(at + k, at + k + 1) for k in range(len(piece))]
        else:
            spans += [(at, at + len(piece))] * len(PIECES[piece])
        at += len(piece)
    return spans


@given(st.lists(st.lists(st.sampled_from(sorted(PIECES)), max_size=8), max_size=4))
def test_tokens_lie_where_the_raw_text_has_them(rows):
    texts = ["".join(PIECES[piece] for piece in row) for row in rows]
    tokens, plain = tokenise(raw := ["".join(row) for row in rows]), tokenise(texts)
    assert tokens.buffer.tobytes() == plain.buffer.tobytes()
    assert np.array_equal(tokens.row, plain.row)
    for i, row in enumerate(tokens.row.tolist()):
        spans, before = _spans(rows[row]), "".join(texts[:row]).encode()
        assert tokens.char_start[i] == spans[plain.char_start[i]][0]
        assert tokens.char_end[i] == spans[plain.char_end[i] - 1][1]
        for name, side in (("raw_start", 0), ("raw_end", 1)):
            place = getattr(plain, name)[i] - len(before)
            number = len(texts[row].encode()[:place].decode()) - side
            right = "".join(raw[:row]) + raw[row][: spans[number][side]]
            assert getattr(tokens, name)[i] == len(right.encode())


def test_a_part_of_an_array_is_expanded_like_a_whole_one():
    captions = pa.array(["x &amp; y", "caf&eacute; bar", "b&eacute;b&eacute;"], pa.large_string())
    tokens = tokenise(captions.slice(1))
    assert tokens.buffer.tobytes() == b"cafe bar bebe "
    assert tokens.char_start.tolist() == [0, 12, 0]
    assert tokens.char_end.tolist() == [11, 15, 18]
    assert tokens.raw_start.tolist() == [9, 21, 24]


def test_names_and_captions_meet_however_they_are_escaped(tmp_path):
    catalogue = tmp_path / "a.csv"
    catalogue.write_text("id,name\nTT,Trinidad &amp; Tobago\nCI,Côte d'Ivoire\n")
    build_kb([catalogue], out=tmp_path / "kb")
    captions = [
        "in Trinidad & Tobago",
        "&copy; C&ocirc;te d&#39;Ivoire!",
        "Trinidad &amp;amp; Tobago",
    ]
    found = Linker(KnowledgeBase.open(tmp_path / "kb")).link(captions).to_pylist()
    assert [row["id"] for row in found] == ["TT", "CI", "TT"]
    surfaces = [captions[row["row"]][row["start"] : row["end"]] for row in found]
    assert surfaces == [row["surface"] for row in found]
    assert surfaces[1] == "C&ocirc;te d&#39;Ivoire"
    assert canonical("AT&amp;T") == "at&t"
