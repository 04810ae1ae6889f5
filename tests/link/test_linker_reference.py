"""The array linker against one that reads character by character and looks n-grams up in a dict."""

import re
import unicodedata
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from openmofi.config import LinkSettings
from openmofi.kb import KnowledgeBase, build_kb
from openmofi.kb import codepoints as cp
from openmofi.kb.text import canonical
from openmofi.link import Linker
from openmofi.link.stopwords import STOP_WORDS, words_anywhere

ABBREVIATIONS = {"st", "mr", "dr", "no", "vol", "jr"}
WORD = (cp.LETTER, cp.DIGIT, cp.MARK, cp.CHARACTER)
JAMO = re.compile("[\u1100-\u11ff]+")
PARTICLES = {
    "any": "의 에 에서 에게 도 만 부터 까지 처럼 보다",
    "consonant": "은 이 을 과 으로 이나 이랑",
    "vowel": "는 가 를 와 나 랑",
    "vowel or l": "로",
}
AFTER_ONE_SYLLABLE = ["을", "를", "에서", "으로", "까지", "부터"]
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
        *[". ", "—", " — ", " • ", "…"],
    ],
    *[
        "タイ",
        "ネク",
        "ー",
        "の",
        "さくら",
        "んぼ",
        "日々",
        "々",
        "เ",
        "า",
        "น์",
        "ที่",
        "န်",
        "ក្",
        "ក",
    ],
    *["US", "us", "Us", "ET", "et", "CM", "UK", "uk", "THE", "IF", "if", "A", "iPod"],
    *["서울", "의", "에서", "는", "도", "꽃", "을", "BTS", "ـ", "\u00ad", "タ", "ガ"],
]
CAPTIONS = st.lists(st.lists(st.sampled_from(PIECES), max_size=14).map("".join), max_size=5)
NAMES = [
    *["new york", "New York City", "York", "city", "São Tomé", "tome Turkey", "TURKEY", "The Who"],
    *["AT&T", "C++", "St. York", "U.S.", "U.S.A.", "A$AP", "中国", "中", "ไทย", "1984", "x", "é x"],
    *["Straße", "who's", "'s new", "the", "york new york new york new york new york new york new"],
    *[
        "New - York",
        "city. York – Tome",
        "york | city",
        "Tome • Turkey",
        "York\ncity — new",
        "st - 中",
    ],
    *["US", "ET", "cm", "UK", "If"],
    *["タイ", "さくら", "日", "ガ", "ไทย น", "น", "ក", "서울", "서울의", "꽃", "BTS", "서울 - BTS"],
]


class Token(NamedTuple):
    text: str
    start: int
    end: int
    signs: str
    """Of the barriers before it."""
    single: bool
    """A character that is a token of its own."""
    inside: bool
    unfinished: bool = False


def particles_of(word: str, behind_letters: bool) -> list[str]:
    """Returns the particles at the end of a Korean word, the last one first."""
    listed = [particle for some in PARTICLES.values() for particle in some.split()]
    found = [p for p in listed if word.endswith(p)]
    found = [p for p in found if particle_fits(word.removesuffix(p), p, behind_letters)]
    if not found:
        return []
    longest = max(found, key=len)
    return [longest, *particles_of(word.removesuffix(longest), behind_letters)]


def particle_fits(stem: str, particle: str, behind_letters: bool) -> bool:
    if not stem:
        return behind_letters
    if len(stem) + 2 * behind_letters < (1 if particle in AFTER_ONE_SYLLABLE else 2):
        return False
    last = unicodedata.normalize("NFD", stem[-1])
    kind = next(kind for kind, listed in PARTICLES.items() if particle in listed.split())
    has_final = len(last) == 3
    return {
        "any": True,
        "consonant": has_final,
        "vowel": not has_final,
        "vowel or l": not has_final or last[2] == "\u11af",
    }[kind]


def particle_starts(cells: list[tuple[str, int, int]]) -> set[int]:
    """Returns the cells with which Korean particles begin."""
    text, found = "".join(c for c, _, _ in cells), set()
    for match in JAMO.finditer(text):
        word = unicodedata.normalize("NFC", match[0])
        if cells[match.end()][1] in WORD[:3] or unicodedata.normalize("NFD", word) != match[0]:
            continue
        at = match.end()
        for particle in particles_of(word, cells[match.start() - 1][1] in WORD[:2]):
            at -= len(unicodedata.normalize("NFD", particle))
            found.add(at)
    return found


def goes_on(cluster: str, following: str) -> bool:
    """Says whether a word goes on between two characters, each with its marks."""
    one, two = cluster[0], following[0]
    scripts = [unicodedata.name(c, "").split()[0] for c in (one, two)]
    if two == "ー" or scripts[1].startswith("KATAKANA"):
        return scripts[0].startswith("KATAKANA") or (two == "ー" and scripts[0] == "HIRAGANA")
    if scripts[1] == "HIRAGANA" and (scripts[0] == "HIRAGANA" or one == "ー"):
        free = one in "のはがをにへともやでいなたるお" or two in "のはがをにへともやでかまよだ"
        return two in "ぁぃぅぇぉっゃゅょゎんゝゞ" or not free
    vowels = one in "เแโใไເແໂໃໄ" or two in "ะาๅະາ"
    silent = any(mark in following[1:2] for mark in "\u0e4c\u0ecc\u103a")
    return two == "々" or vowels or silent or cluster[-1] in "\u1039\u17d2"


def read_tokens(text: str) -> list[Token]:
    """Returns the tokens of a text by one scan."""
    cells = [("\n", cp.NEWLINE, -1)] * 2
    for i, character in enumerate(text):
        cells += [(c, k, i) for c, k in zip(*cp.expand(character), strict=True)]
    cells += [("\n", cp.NEWLINE, len(text))] * 2
    particles = particle_starts(cells)
    tokens: list[Token] = []
    signs, current, i = "", None, 2

    def kind(j: int) -> int:
        return cells[j][1]

    def end(j: int) -> int:
        return max(cells[j][2] + 1, cells[j + 1][2])

    def joins(j: int) -> bool:
        """Says whether a sign belongs to the word around it."""
        before, after = kind(j - 1), kind(j + 1)
        first = j
        while kind(j) == kind(first - 1) == cp.PLUS:
            first -= 1
        if cells[first - 1][0] == "s" and kind(first - 2) == cp.APOSTROPHE:
            return False
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
            tokens.append(Token("'s", cells[i][2], end(i + 1), signs, False, False))
            signs, current = "", None
            i += 2
            continue
        if kind_here in WORD or joins(i):
            glue = current is not None and kind_here != cp.CHARACTER and i not in particles
            glue = glue and (kind_here == cp.MARK or not tokens[-1].single)
            if glue:
                tokens[-1] = tokens[-1]._replace(text=tokens[-1].text + char, end=end(i))
            else:
                single = kind_here == cp.CHARACTER
                on = current is not None and single and tokens[-1].single
                if on := on and goes_on(tokens[-1].text, char + cells[i + 1][0]):
                    tokens[-1] = tokens[-1]._replace(unfinished=True)
                inside = on or (i in particles and current is not None)
                tokens.append(Token(char, cells[i][2], end(i), signs, single, inside))
                signs = ""
            current = i
        else:
            follows = kind_here == cp.DOT and current == i - 1
            if follows and tokens[-1].text[-2:-1] == ".":  # U.S.
                tokens[-1] = tokens[-1]._replace(end=end(i))
            initial = kind(i - 1) in WORD and kind(i - 2) not in WORD
            spaced = kind(i - 1) in BLANK and kind(i + 1) in BLANK
            is_barrier = kind_here in (cp.BAR, cp.NEWLINE) or (kind_here == cp.DASH and spaced)
            if kind_here == cp.DOT and kind(i + 1) in BLANK and not initial:
                is_barrier = not tokens or tokens[-1].text not in ABBREVIATIONS
            signs += char if is_barrier else ""
            current = None
        i += 1
    return tokens


def slow_link(
    names: dict[str, list[str]], captions: list[str], limits: LinkSettings
) -> list[tuple[int, int, int, str]]:
    found = []
    for row, caption in enumerate(captions):
        tokens = read_tokens(caption)
        i = 0
        while i < len(tokens):
            matches = [
                j
                for j in range(i + 1, len(tokens) + 1)
                if is_name(names, caption, tokens, i, j, limits)
            ]
            if matches:
                last = tokens[max(matches) - 1]
                key = signed(tokens[i : max(matches)])
                found += [(row, tokens[i].start, last.end, id_) for id_ in names[key]]
            i = max(matches, default=i + 1)
    return found


def signed(tokens: list[Token]) -> str:
    return " ".join([tokens[0].text, *(token.signs + token.text for token in tokens[1:])])


def is_name(
    names: dict[str, list[str]],
    caption: str,
    tokens: list[Token],
    i: int,
    j: int,
    limits: LinkSettings,
) -> bool:
    room = limits.max_words * (3 if tokens[i].single else 1)
    if signed(tokens[i:j]) not in names or j - i > room:
        return False
    if tokens[i].inside or tokens[j - 1].unfinished:
        return False
    if tokens[j - 1].end - tokens[i].start < limits.min_chars:
        return False
    digits, word = "0123456789", tokens[i].text
    if j - i > 1:
        return True
    return not (word[0] in digits and word[-1] in digits) and not is_word(tokens, i, caption)


def is_word(tokens: list[Token], i: int, caption: str) -> bool:
    """Says whether one token is a word rather than a name, by how it is written."""
    word = tokens[i].text
    surface = caption[tokens[i].start : tokens[i].end]
    others = [caption[t.start : t.end] for t in tokens]
    small = [t for t in others if t != t.upper() or (len(t) == 1 and t.islower())]
    is_code = word in {canonical(name) for name in NAMES if name.isupper() and len(name) > 1}
    in_capitals = surface.isupper() and sum(c.isupper() for c in surface) > 1
    if word in STOP_WORDS:
        return not (is_code and in_capitals and small)
    if is_code and word in words_anywhere():
        return not (in_capitals and small)
    return is_code and len(surface) == 2 and not in_capitals


@pytest.fixture(scope="module")
def kb(tmp_path_factory) -> KnowledgeBase:
    folder: Path = tmp_path_factory.mktemp("reference")
    rows = [f'id{i},"{name}"' for i, name in enumerate(NAMES)]
    (folder / "c.csv").write_text("\n".join(["id,name", *rows]))
    build_kb(folder / "c.csv", out=folder / "kb")
    return KnowledgeBase.open(folder / "kb")


def keys_of(name: str) -> set[str]:
    tokens = read_tokens(name)
    return {" ".join(token.text for token in tokens), signed(tokens)}


@pytest.mark.slow
@settings(max_examples=1000, deadline=None)
@example(captions=[".x."], max_words=1)
@example(captions=["New york", "tome Turkey"], max_words=2)  # two entities each
@example(captions=["who's+", "who's++ x", "who's&b", "who's$a", "who's.b"], max_words=4)
@example(captions=["½C++ET", "3D ET", "X1 ET", "x ET", "A1 ET on"], max_words=1)
@given(captions=CAPTIONS | st.lists(st.text(), max_size=3), max_words=st.integers(1, 12))
def test_the_linker_equals_a_slow_one(kb, captions, max_words):
    limits = LinkSettings(max_words=max_words)
    names: dict[str, list[str]] = {}
    for i, name in enumerate(NAMES):
        for key in keys_of(name):
            names.setdefault(key, []).append(f"id{i}")
    table = Linker(kb, settings=limits).link(captions, all_candidates=True).to_pylist()
    found = [(item["row"], item["start"], item["end"], item["id"]) for item in table]
    assert sorted(found) == sorted(slow_link(names, captions, limits))
    assert [place[:3] for place in found] == sorted(place[:3] for place in found)
    for item in table:
        assert captions[item["row"]][item["start"] : item["end"]] == item["surface"]
