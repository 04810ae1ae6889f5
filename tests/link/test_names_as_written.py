"""Names as people write them, in many scripts: what the linker finds in whole captions."""

import json
from pathlib import Path

import pytest

from openmofi.kb import KnowledgeBase, build_kb
from openmofi.link import Linker


def linker_of(folder: Path, *names: str) -> Linker:
    lines = [{"id": name, "name": name} for name in names]
    (folder / "c.jsonl").write_text("\n".join(map(json.dumps, lines)))
    build_kb(folder / "c.jsonl", out=folder / "kb")
    return Linker(KnowledgeBase.open(folder / "kb"))


BARRIERS = [
    "Mission: Impossible – Fallout",
    "Oak chair - 45 cm",
    "Panasonic Corp. of North America",
    "Kunsthist. Museum",
    "Tate | Modern",
    "Red • Blue",
    "Paris",
    "Texas",
]


@pytest.fixture(scope="module")
def with_barriers(tmp_path_factory) -> Linker:
    return linker_of(tmp_path_factory.mktemp("barriers"), *BARRIERS)


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("Mission: Impossible – Fallout poster", ["Mission: Impossible – Fallout"]),
        ("Mission: Impossible - Fallout", ["Mission: Impossible – Fallout"]),
        ("mission impossible — fallout", ["Mission: Impossible – Fallout"]),
        ("Mission: Impossible Fallout", ["Mission: Impossible – Fallout"]),
        ("Mission: Impossible &ndash; Fallout", ["Mission: Impossible – Fallout"]),
        ("Mission: Impossible. Fallout", []),
        ("Oak chair - 45 cm, side view", ["Oak chair - 45 cm"]),
        ("new: Oak chair - 45 cm - Oak chair 45 cm", ["Oak chair - 45 cm"] * 2),
        ("Oak chair. 45 cm of snow", []),
        ("Oak chair | 45 cm", []),
        ("Oak chair\n45 cm", []),
        ("Oak chair - - 45 cm", []),
        ("Panasonic Corp. of North America office", ["Panasonic Corp. of North America"]),
        ("Panasonic Corp of North America", ["Panasonic Corp. of North America"]),
        ("Kunsthist. Museum Wien", ["Kunsthist. Museum"]),
        ("Tate | Modern", ["Tate | Modern"]),
        ("Tate - Modern", []),
        ("Red • Blue", ["Red • Blue"]),
        ("Paris - Texas", ["Paris", "Texas"]),
    ],
)
def test_a_name_with_a_barrier_is_found_where_the_caption_writes_the_same(
    with_barriers, caption, expected
):
    found = with_barriers.link([caption]).to_pylist()
    assert [row["id"] for row in found] == expected
    assert all(row["surface"] == caption[row["start"] : row["end"]] for row in found)


def test_a_name_with_a_barrier_counts_once(with_barriers):
    kb = with_barriers.kb
    assert kb.show("Oak chair - 45 cm").names == {"und": ["Oak chair - 45 cm"]}
    assert kb.show("Oak chair - 45 cm").num_aliases == 0
    assert [c.match for c in kb.query("oak chair - 45 CM")] == ["exact"]


@pytest.fixture(scope="module")
def worldwide(tmp_path_factory) -> Linker:
    names = ["タイ", "マリ", "チリ", "さくら", "ลา", "서울", "고양이", "고양", "제주도", "제주"]
    return linker_of(tmp_path_factory.mktemp("world"), *names, "BTS", "مصر", "京都")


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("ネクタイをした男性", []),
        ("タイヤ交換とスタイル", []),
        ("マリア像 チリパウダー", []),
        ("タイの夜景、チリ料理", ["タイ", "チリ"]),
        ("ﾀｲのﾈｸﾀｲ", ["タイ"]),
        ("さくらんぼ", []),
        ("きれいなさくらが咲く", ["さくら"]),
        ("ลา, เลา", ["ลา"]),
        ("서울에서는 고양이와 고양은", ["서울", "고양이", "고양"]),
        ("제주도의 밤, 제주의 밤", ["제주도", "제주"]),
        ("BTS의 공연", ["BTS"]),
        ("خريطة مـصـر", ["مصر"]),
        ("京都の寺", ["京都"]),
    ],
)
def test_names_are_found_in_scripts_without_spaces_and_before_particles(
    worldwide, caption, expected
):
    assert worldwide.link([caption])["id"].to_pylist() == expected
