"""The example that makes a catalogue of name-suggestion-index, on a package made up here."""

import csv
import importlib.util
import json
import tarfile
from pathlib import Path

import pytest

from openmofi.kb import KnowledgeBase, build_kb

SCRIPT = Path(__file__).parents[2] / "examples" / "name_suggestion_index.py"


def load_script():
    spec = importlib.util.spec_from_file_location("name_suggestion_index", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script


SCRIPT_MODULE = load_script()


def item(**tags: str) -> dict:
    tags = {key.replace("__", ":"): value for key, value in tags.items()}
    return {"displayName": "x", "matchNames": ["burgr"], "tags": tags}


OAK = {"brand": "Oak Burger", "brand__wikidata": "Q1", "operator": "Oak Ltd"}
CATEGORIES = {
    "operators/amenity/toilets": [item(operator="Oak Burger", operator__wikidata="Q1")],
    "brands/amenity/fast_food": [
        item(**OAK, brand__ja="オーク", brand__short="OB", name="Oak", cuisine="burger;hot_dog"),
        item(brand="No Id"),
    ],
    "brands/amenity/cafe": [item(brand="Oak Café", brand__wikidata="Q1", name="Oak Café")],
    "transit/route/bus": [item(network="Oak Lines", network__wikidata="Q2", operator="Oak Ltd")],
    "flags/man_made/flagpole": [item(flag__name="Oakland", flag__wikidata="Q3")],
}


def package(folder: Path, name: str = "nsi.min.json") -> Path:
    file = folder / "package" / "dist" / "json" / name
    file.parent.mkdir(parents=True)
    categories = {path: {"items": items} for path, items in CATEGORIES.items()}
    file.write_text(json.dumps({"_meta": {}, "nsi": categories}))
    return folder / "package"


def packed(folder: Path) -> Path:
    with tarfile.open(folder / "nsi.tgz", "w:gz") as archive:
        archive.add(package(folder), "package")
    return folder / "nsi.tgz"


def rows(source: Path, out: Path) -> dict[str, dict[str, str]]:
    SCRIPT_MODULE.main(source, out)
    with out.open(encoding="utf-8") as file:
        return {row["id"]: row for row in csv.DictReader(file)}


def test_one_wikidata_id_is_one_row_with_all_its_names(tmp_path):
    burger = rows(package(tmp_path), tmp_path / "brands.csv")["Q1"]
    assert burger["name"] == "Oak Burger"
    assert burger["aliases"].split("|") == ["Oak Café", "オーク", "OB", "Oak"]
    assert burger["description"] == "brand: fast food, cafe; operator: toilets; burger, hot dog"
    assert burger["type"].split("|") == ["brand", "operator", "fast food", "cafe", "toilets"]


def test_who_operates_something_is_no_name_of_it(tmp_path):
    read = rows(package(tmp_path), tmp_path / "brands.csv")
    assert (read["Q2"]["name"], read["Q2"]["aliases"]) == ("Oak Lines", "")


def test_flags_and_items_without_an_id_are_left_out(tmp_path, capsys):
    assert set(rows(package(tmp_path), tmp_path / "brands.csv")) == {"Q1", "Q2"}
    assert "2 entities; 1 items without an id left out" in capsys.readouterr().out


def test_the_packed_package_gives_the_same_as_the_folder(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    of_folder = rows(package(tmp_path / "a", "nsi.json"), tmp_path / "a.csv")
    assert rows(packed(tmp_path / "b"), tmp_path / "b.csv") == of_folder


def test_another_folder_is_told_what_is_expected(tmp_path):
    with pytest.raises(SystemExit, match=r"holds no nsi.json; expected the npm package"):
        SCRIPT_MODULE.main(tmp_path, tmp_path / "brands.csv")


def test_kb_build_takes_the_catalogue(tmp_path):
    rows(package(tmp_path), tmp_path / "brands.csv")
    summary = build_kb(tmp_path / "brands.csv", out=tmp_path / "kb")
    assert (summary.entities, summary.rejected) == (2, {})
    kb = KnowledgeBase.open(tmp_path / "kb")
    assert kb.lookup(["オーク"])["id"].to_pylist() == ["Q1"]
