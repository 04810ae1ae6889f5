import pytest

from openmofi.config import KBSettings
from openmofi.errors import SettingsError
from records import read_dump
from wikidata import item, of_class, write_dump


def fate(folder, thing: dict, **settings) -> str:
    """What becomes of an item: "kept", or the reason why it is not."""
    (record,) = read_dump(write_dump(folder / "d.json", thing), KBSettings(**settings))
    return getattr(record, "reason", "kept")


def typed(*numbers: int, sites: int = 1) -> dict:
    return item(1, "Oscar", sites=sites, claims={"P31": of_class(*numbers)})


@pytest.mark.parametrize(
    ("thing", "image", "wikipedia", "full"),
    [
        (item(1), "kept", "kept", "kept"),
        (item(1, sites=0), "no_sitelink", "no_article", "kept"),
        (item(1, sitelinks={"dewiki": {"title": "x"}}), "kept", "no_article", "kept"),
        (item(1, sitelinks=[]), "no_sitelink", "no_article", "kept"),
        (item(1, labels=[], sitelinks={"dewiki": {}}), "no_name", "no_article", "no_name"),
        (typed(4167410), "wikimedia_page", "wikimedia_page", "wikimedia_page"),
        (typed(4167836, 5), "wikimedia_page", "wikimedia_page", "wikimedia_page"),
        (typed(4167410, sites=0), "no_sitelink", "no_article", "wikimedia_page"),
        (typed(13442814), "scholarly_article", "kept", "kept"),
        (typed(580922, 5), "scholarly_article", "kept", "kept"),
        (typed(12308941), "name_item", "kept", "kept"),
        (typed(202444, 101352), "name_item", "kept", "kept"),
        (typed(101352, 515), "kept", "kept", "kept"),
    ],
)
def test_what_a_preset_leaves_out(tmp_path, thing, image, wikipedia, full):
    expected = {"image": image, "wikipedia": wikipedia, "full": full}
    assert {preset: fate(tmp_path, thing, preset=preset) for preset in expected} == expected


def test_wikipedia_means_those_of_the_languages(tmp_path):
    german = item(1, sitelinks={"dewiki": {"title": "x"}})
    settings = {"preset": "wikipedia", "languages": ("en", "de", "mul")}
    assert fate(tmp_path, german, **settings) == "kept"


def test_a_class_by_a_deprecated_statement_is_none(tmp_path):
    claims = {"P31": of_class(5) + of_class(13442814, rank="deprecated")}
    assert fate(tmp_path, item(1, claims=claims)) == "kept"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"preset": "images"}, "cannot be 'images'; expected image, wikipedia or full"),
        ({"preset": "wikipedia", "languages": ("mul",)}, "mul has no Wikipedia"),
        ({"workers": 0}, "'workers' cannot be 0"),
        ({"anchor_mu": 0}, "'anchor_mu' cannot be 0"),
        ({"prior_gamma": 30}, "'prior_gamma' cannot be 30; expected from 0 to 10"),
        ({"prior_gamma": float("nan")}, "'prior_gamma' cannot be nan"),
        ({"alias_weight": float("inf")}, "'alias_weight' cannot be inf"),
        ({"languages": ("en", "d e")}, "'languages' cannot be 'd e'; expected Wikidata's codes"),
        ({"languages": ("en;de",)}, "'languages' cannot be 'en;de'"),
        ({"languages": (" ,",)}, "'languages' cannot be ' ,'; expected Wikidata's codes"),
    ],
)
def test_impossible_settings_are_explained(settings, message):
    with pytest.raises(SettingsError, match=message):
        KBSettings(**settings)


@pytest.mark.parametrize(
    "given", [("en,de,mul",), ("en, de", "mul"), ("EN", "de", "en,mul", ""), "en,de,mul"]
)
def test_languages_may_be_given_with_commas(given):
    assert KBSettings(languages=given).languages == ("en", "de", "mul")


def test_languages_may_have_scripts_and_regions():
    assert KBSettings(languages=("zh-hans,be-tarask",)).languages == ("zh-hans", "be-tarask")
