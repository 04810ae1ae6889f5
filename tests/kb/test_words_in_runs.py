"""Where names may begin and end in scripts whose words spaces alone do not separate."""

import pytest

from openmofi.kb.text import canonical, signed_forms, tokenise


def pieces(text: str) -> list[str]:
    """Returns the shortest parts of a text that a name may be."""
    tokens, found, begin = tokenise([text]), [], None
    places = zip(tokens.char_start, tokens.char_end, tokens.inside, tokens.unfinished, strict=True)
    for start, end, inside, unfinished in places:
        begin = start if not inside or begin is None else begin
        if not unfinished:
            found.append(text[begin:end])
            begin = None
    return found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ネクタイをした", ["ネクタイ", "を", "した"]),
        ("タイ料理", ["タイ", "料", "理"]),
        ("チリとインド", ["チリ", "と", "インド"]),
        ("スーパー・マリオ", ["スーパー", "マリオ"]),
        ("ﾈｸﾀｲ ﾀｲ", ["ﾈｸﾀｲ", "ﾀｲ"]),
        ("ガーナのカカオ", ["ガーナ", "の", "カカオ"]),
        ("インドア派", ["インドア", "派"]),
        ("さくらんぼとさくら", ["さくらんぼ", "と", "さくら"]),
        ("らーめんを", ["らーめん", "を"]),
        ("いちごとりんご", ["い", "ちご", "と", "りんご"]),
        ("佐々木", ["佐々", "木"]),
        ("東京Tower", ["東", "京", "Tower"]),
        ("ลาว ลา", ["ลา", "ว", "ลา"]),
        ("ไทย", ["ไท", "ย"]),
        ("เมือง", ["เมื", "อ", "ง"]),
        ("จันทร์", ["จั", "น", "ทร์"]),
        ("ที่Bangkok", ["ที่", "Bangkok"]),
        ("ລາວ", ["ລາ", "ວ"]),
        ("ខ្មែរ", ["ខ្មែ", "រ"]),
        ("မြန်မာ", ["မြန်", "မာ"]),
    ],
)
def test_no_name_begins_or_ends_inside_a_word_of_a_run(text, expected):
    assert pieces(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("서울의 야경", ["서울", "의", "야경"]),
        ("서울은 서울이", ["서울", "은", "서울", "이"]),
        ("서울을 서울과 서울로", ["서울", "을", "서울", "과", "서울", "로"]),
        ("파리는 파리가", ["파리", "는", "파리", "가"]),
        ("파리를 파리와 파리로", ["파리", "를", "파리", "와", "파리", "로"]),
        ("서울도 서울만 서울에", ["서울", "도", "서울", "만", "서울", "에"]),
        ("서울까지 서울부터", ["서울", "까지", "서울", "부터"]),
        ("부산으로 부산에서는", ["부산", "으로", "부산", "에서", "는"]),
        ("제주도에서", ["제주", "도", "에서"]),
        ("꽃을 든", ["꽃", "을", "든"]),
        ("회의 아이 사과 포도 마을", ["회의", "아이", "사과", "포도", "마을"]),
        ("파리은 서울가 서울는", ["파리은", "서울가", "서울는"]),
        ("BTS의 LG에서는", ["BTS", "의", "LG", "에서", "는"]),
        ("東京에서", ["東", "京", "에서"]),
        ("서울의abc", ["서울의abc"]),
    ],
)
def test_korean_particles_are_tokens_of_their_own(text, expected):
    tokens = tokenise([text])
    places = zip(tokens.char_start, tokens.char_end, strict=True)
    assert [text[start:end] for start, end in places] == expected


def test_no_name_begins_with_a_particle_but_any_may_end_before_one():
    tokens = tokenise(["서울에서는 밤"])
    assert tokens.inside.tolist() == [False, True, True, False]
    assert not tokens.unfinished.any()


@pytest.mark.parametrize(
    ("written", "plain"),
    [
        ("مـــصر", "مصر"),
        ("الـقـاهـرة", "القاهرة"),
        ("ﻣﺼـﺮ", "مصر"),
        ("می\u200cخواهم", "میخواهم"),
        ("क\u094d\u200dष", "क\u094dष"),
        ("Zürich\u00ad", "Zürich"),
        ("Zü\u00adrich", "Zürich"),
        ("葛\U000e0100城", "葛城"),
        ("☺\ufe0f New\u2060port", "Newport"),
        ("ᠮᠣᠩ\u180bᠭᠣᠯ", "ᠮᠣᠩᠭᠣᠯ"),
        ("서\u3164울", "서울"),
    ],
)
def test_what_only_stretches_or_cannot_be_seen_is_dropped(written, plain):
    assert canonical(written) == canonical(plain) != ""


@pytest.mark.parametrize(
    ("name", "signed"),
    [
        ("Oak chair - 45 cm", ["oak chair -45 cm"]),
        ("Mission: Impossible – Fallout", ["mission impossible -fallout"]),
        ("Mission: Impossible — Fallout", ["mission impossible -fallout"]),
        ("Mission: Impossible &ndash; Fallout", ["mission impossible -fallout"]),
        ("Panasonic Corp. of North America", ["panasonic corp .of north america"]),
        ("Once Upon a Time… in Hollywood", ["once upon a time .in hollywood"]),
        ("Tate | Modern", ["tate |modern"]),
        ("Tate • Modern", ["tate •modern"]),
        ("君の名は。東京", ["君 の 名 は .東 京"]),
        ("St. Louis", []),
        ("Spider-Man: No Way Home!", []),
        ("- Oak chair.", []),
        ("", []),
    ],
)
def test_names_that_hold_a_barrier_have_a_form_with_its_sign(name, signed):
    number, forms = signed_forms(["x", name])
    assert (number.tolist(), forms.to_pylist()) == ([1] * len(signed), signed)
    assert canonical(name).split() == [
        word.lstrip("-.|•") for word in " ".join(signed).split()
    ] or (not signed)
