import hashlib
import json
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from openmofi.demo.entities import WORLD, by_id
from openmofi.demo.flags import draw_flag

COUNTRIES = Path(__file__).parents[3] / "shared/data/flags/countries.json"


def pixels(identifier: str, size: int = 48) -> np.ndarray:
    image = draw_flag(by_id[identifier], 96).convert("RGBA").resize((size, size))
    return np.asarray(image, np.float32)


def test_the_world_has_98_entities_with_ids_of_their_own():
    assert len(WORLD) == len(by_id) == 98
    assert [e.id for e in WORLD if e.kind == "signal"] == [
        f"ICS:{c}" for c in map(chr, range(65, 91))
    ]


def test_countries_with_several_senses_are_there():
    names = {entity.name for entity in WORLD if entity.kind == "country"}
    assert names >= {"Turkey", "Georgia", "Jordan", "Chad", "Jersey", "India", "Peru", "Cuba"}


@pytest.mark.skipif(not COUNTRIES.exists(), reason="the shared material is not here")
def test_every_country_has_the_id_and_adjective_of_the_source():
    source = {row["cca2"]: row for row in json.loads(COUNTRIES.read_text(encoding="utf-8"))}
    for entity in WORLD:
        if entity.kind == "country":
            assert source[entity.iso]["qid"] == entity.id
            assert entity.adjective in ("", source[entity.iso]["demonym"])


def test_a_flag_has_its_own_proportions():
    assert draw_flag(by_id["Q39"], 60).size == (60, 60)
    assert draw_flag(by_id["Q846"], 112).size == (112, 44)


def test_no_two_flags_look_the_same():
    drawn = {entity.id: pixels(entity.id) for entity in WORLD}
    for a, b in combinations(drawn, 2):
        assert np.abs(drawn[a] - drawn[b]).mean() > 2.5, (a, b)


def test_the_mirrored_flag_of_ireland_is_nearly_that_of_the_ivory_coast():
    assert np.abs(pixels("Q27")[:, ::-1] - pixels("Q1008")).mean() < 12
    assert np.abs(pixels("Q27") - pixels("Q1008")).mean() > 50


@pytest.mark.parametrize(
    ("identifier", "x", "y", "colour"),
    [
        ("Q43", 0.05, 0.05, "E30A17"),
        ("Q17", 0.5, 0.5, "BC002D"),
        ("Q142", 0.1, 0.5, "0055A4"),
        ("Q142", 0.9, 0.5, "EF4135"),
        ("ICS:L", 0.25, 0.25, "FFD200"),
        ("ICS:L", 0.75, 0.25, "101010"),
        ("ICS:Q", 0.5, 0.5, "FFD200"),
        ("ICS:O", 0.9, 0.1, "D8142B"),
    ],
)
def test_colours_are_where_they_belong(identifier, x, y, colour):
    flag = draw_flag(by_id[identifier], 120)
    pixel = flag.getpixel((round(x * flag.width), round(y * flag.height)))
    assert pixel == (*bytes.fromhex(colour), 255)


def test_only_swallow_tails_are_transparent():
    cut = [e.id for e in WORLD if np.asarray(draw_flag(e, 48))[..., 3].min() < 255]
    assert cut == ["ICS:A", "ICS:B"]


def test_drawing_is_deterministic():
    digests = {hashlib.sha256(draw_flag(WORLD[5], 90).tobytes()).hexdigest() for _ in range(2)}
    assert len(digests) == 1
