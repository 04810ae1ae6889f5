"""The array linker against one that reads character by character and looks n-grams up in a dict."""

from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from openmofi.config import LinkSettings
from openmofi.kb import KnowledgeBase, build_kb
from openmofi.kb import codepoints as cp
from openmofi.link import Linker
from openmofi.link.stopwords import STOP_WORDS

ABBREVIATIONS = {"st", "mr", "dr", "no", "vol", "jr"}
WORD = (cp.LETTER, cp.DIGIT, cp.MARK, cp.CHARACTER)
BLANK = (cp.SPACE, cp.NEWLINE)
PIECES = [
    *["New", "york", "city", "São", "Tomé", "sao", "TOME", "Turkey", "the", "who", "AT&T", "C++"],
    *[
        "st",
        "U.S.",
        "u.s.a",
        "A$AP",
        "中",
        "国",
        "中国",
        "ไทย",
        "1984",
        "x",
        "e\u0301",
        "½",
        "Straße",
    ],
    *[" "] * 12,
    *[
        "'s",
        "’s",
        ". ",
        " - ",
        " – ",
        "|",
        "-",
        "_",
        ", ",
        "\n",
        "&",
        "+",
        "$",
        ".",
        "'",
        "s",
        "🇧🇪",
    ],
]
CAPTIONS = st.lists(st.lists(st.sampled_from(PIECES), max_size=14).map("".join), max_size=5)
NAMES = [
    *["new york", "New York City", "York", "city", "São Tomé", "tome Turkey", "TURKEY", "The Who"],
    *["AT&T", "C++", "St. York", "U.S.", "U.S.A.", "A$AP", "中国", "中", "ไทย", "1984", "x", "é x"],
    *["Straße", "who's", "'s new", "the", "york new york new york new york new york new york new"],
]


def read_tokens(text: str) -> list[tuple[str, int, int, bool, bool]]:
    """Returns (token, start, end, barrier before, single character) by one scan."""
    cells = [("\n", cp.NEWLINE, -1)] * 2
    for i, character in enumerate(text):
        cells += [(c, k, i) for c, k in zip(*cp.expand(character), strict=True)]
    cells += [("\n", cp.NEWLINE, len(text))] * 2
    tokens: list[tuple[str, int, int, bool, bool]] = []
    barrier, current, i = True, None, 2

    def kind(j: int) -> int:
        return cells[j][1]

    def end(j: int) -> int:
        return max(cells[j][2] + 1, cells[j + 1][2])

    def joins(j: int) -> bool:
        """Says whether a sign belongs to the word around it."""
        before, after = kind(j - 1), kind(j + 1)
        if kind(j) == cp.AMPERSAND:
            return before in (cp.LETTER, cp.DIGIT) and after in (cp.LETTER, cp.DIGIT)
        if kind(j) == cp.DOLLAR:
            return before == after == cp.LETTER
        if kind(j) == cp.DOT:
            alone = kind(j - 2) not in WORD and kind(j + 2) not in WORD
            return before == after == cp.LETTER and alone
        if kind(j) == cp.PLUS:
            start = stop = j
            while kind(start - 1) == cp.PLUS:
                start -= 1
            while kind(stop + 1) == cp.PLUS:
                stop += 1
            return stop - start < 2 and kind(start - 1) == cp.LETTER and kind(stop + 1) not in WORD
        return False

    while i < len(cells) - 2:
        char, kind_here = cells[i][0], kind(i)
        possessive = (
            kind_here == cp.APOSTROPHE and cells[i + 1][0] == "s" and kind(i + 2) not in WORD
        )
        if possessive:
            tokens.append(("'s", cells[i][2], end(i + 1), barrier, False))
            barrier, current = False, None
            i += 2
            continue
        if kind_here in WORD or joins(i):
            glue = current is not None and (kind_here != cp.CHARACTER)
            glue = glue and (kind_here == cp.MARK or kind(i - 1) != cp.CHARACTER)
            if glue:
                token, start, _, before, single = tokens[-1]
                tokens[-1] = (token + char, start, end(i), before, single)
            else:
                tokens.append((char, cells[i][2], end(i), barrier, kind_here == cp.CHARACTER))
                barrier = False
            current = i
        else:
            if kind_here == cp.DOT and current == i - 1 and len(tokens[-1][0]) > 1:
                token, start, _, before, single = tokens[-1]
                if token[-2] == ".":
                    tokens[-1] = (token, start, end(i), before, single)
            initial = kind(i - 1) in WORD and kind(i - 2) not in WORD
            spaced = kind(i - 1) in BLANK and kind(i + 1) in BLANK
            if kind_here in (cp.BAR, cp.NEWLINE) or (kind_here == cp.DASH and spaced):
                barrier = True
            elif kind_here == cp.DOT and kind(i + 1) in BLANK and not initial:
                barrier |= not tokens or tokens[-1][0] not in ABBREVIATIONS
            current = None
        i += 1
    return tokens


def slow_link(
    names: dict[str, str], captions: list[str], limits: LinkSettings
) -> list[tuple[int, int, int, str]]:
    found = []
    for row, caption in enumerate(captions):
        tokens = read_tokens(caption)
        i = 0
        while i < len(tokens):
            matches = [
                j for j in range(i + 1, len(tokens) + 1) if is_name(names, tokens, i, j, limits)
            ]
            if matches:
                last = tokens[max(matches) - 1]
                key = " ".join(token[0] for token in tokens[i : max(matches)])
                found.append((row, tokens[i][1], last[2], names[key]))
            i = max(matches, default=i + 1)
    return found


def is_name(names, tokens, i: int, j: int, limits: LinkSettings) -> bool:
    words = [token[0] for token in tokens[i:j]]
    room = limits.max_words * (3 if tokens[i][4] else 1)
    if " ".join(words) not in names or j - i > room or any(t[3] for t in tokens[i + 1 : j]):
        return False
    if tokens[j - 1][2] - tokens[i][1] < limits.min_chars:
        return False
    digits = "0123456789"
    number = len(words) == 1 and words[0][0] in digits and words[0][-1] in digits
    return not number and not (len(words) == 1 and words[0] in STOP_WORDS)


@pytest.fixture(scope="module")
def kb(tmp_path_factory) -> KnowledgeBase:
    folder: Path = tmp_path_factory.mktemp("reference")
    rows = [f'id{i},"{name}"' for i, name in enumerate(NAMES)]
    (folder / "c.csv").write_text("\n".join(["id,name", *rows]))
    build_kb(folder / "c.csv", out=folder / "kb")
    return KnowledgeBase.open(folder / "kb")


def key_of(name: str) -> str:
    return " ".join(token[0] for token in read_tokens(name))


@settings(max_examples=1000, deadline=None)
@example(captions=[".x."], max_words=1)
@example(captions=["who's+", "who's++ x", "who's&b", "who's$a"], max_words=4)
@given(captions=CAPTIONS | st.lists(st.text(), max_size=3), max_words=st.integers(1, 12))
def test_the_linker_equals_a_slow_one(kb, captions, max_words):
    limits = LinkSettings(max_words=max_words)
    names = {key_of(name): f"id{i}" for i, name in enumerate(NAMES)}
    table = Linker(kb, settings=limits).link(captions).to_pylist()
    found = [(item["row"], item["start"], item["end"], item["id"]) for item in table]
    assert found == slow_link(names, captions, limits)
    for item in table:
        assert captions[item["row"]][item["start"] : item["end"]] == item["surface"]
