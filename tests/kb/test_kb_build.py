import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from openmofi import progress
from openmofi.config import KBSettings
from openmofi.errors import InputError
from openmofi.files import folders
from openmofi.kb import KnowledgeBase, build, build_kb
from openmofi.kb.merge import merge
from openmofi.schema import ENTITIES, NAMES
from wikidata import of_class

SHARED = Path(__file__).parents[3] / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="../shared/data is absent")


def catalogue(
    folder: Path, *rows: str, name: str = "c.csv", header: str = "id,name,weight"
) -> Path:
    path = folder / name
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def dump(folder: Path, *items: dict) -> Path:
    path = folder / "d.json"
    path.write_text("[\n" + ",\n".join(map(json.dumps, items)) + "\n]\n")
    return path


GEORGIA = {
    "id": "Q230",
    "type": "item",
    "labels": {"en": {"value": "Georgia"}},
    "descriptions": {"en": {"value": "a country"}},
    "aliases": {"en": [{"value": "Sakartvelo"}]},
    "sitelinks": {f"{i}wiki": {"title": "x"} for i in range(9)},
}


def test_tables_have_the_schemas(tmp_path):
    build_kb(dump(tmp_path, GEORGIA), out=tmp_path / "kb")
    assert pq.read_schema(tmp_path / "kb" / "entities.parquet").equals(ENTITIES)
    assert pq.read_schema(tmp_path / "kb" / "names.parquet").equals(NAMES)


def test_rows_are_popularity_ranks(tmp_path):
    source = catalogue(tmp_path, "a,Ann,1", "b,Bob,5", "c,Cid,", "d,Dan,5")
    build_kb(source, out=tmp_path / "kb")
    kb = KnowledgeBase.open(tmp_path / "kb")
    assert kb.ids.to_pylist() == ["b", "d", "a", "c"]
    assert kb.entities(["prior"])["prior"].to_pylist() == [6, 6, 2, 1]


def test_gamma_bends_the_prior(tmp_path):
    source = catalogue(tmp_path, "a,Ann,3")
    build_kb(source, out=tmp_path / "kb", settings=KBSettings(prior_gamma=0.5))
    assert KnowledgeBase.open(tmp_path / "kb").entities()["prior"].to_pylist() == [2]


def test_an_alias_weight_of_nothing_leaves_aliases_out(tmp_path):
    source = catalogue(tmp_path, "a,Ann,Anna", header="id,name,aliases")
    build_kb(source, out=tmp_path / "kb", settings=KBSettings(alias_weight=0))
    assert KnowledgeBase.open(tmp_path / "kb").show("a").names == {"und": ["Ann"]}


def test_other_languages_weigh_less_than_the_first_and_mul(tmp_path):
    labels = {code: {"value": code * 2} for code in ("en", "mul", "de")}
    thing = {**GEORGIA, "labels": labels, "aliases": {}}
    settings = KBSettings(languages=("en", "de", "mul"), language_weight=0.25)
    build_kb(dump(tmp_path, thing), out=tmp_path / "kb", settings=settings)
    rows = pq.read_table(tmp_path / "kb" / "names.parquet").to_pylist()
    assert {row["key"]: row["weight"] for row in rows} == {"enen": 10, "mulmul": 10, "dede": 2.5}


def test_statements_and_superclasses_are_kept(tmp_path):
    claims = {"P279": of_class(5, 6) + of_class(7, rank="deprecated"), "P1": of_class(1)}
    build_kb(dump(tmp_path, {**GEORGIA, "claims": claims}), out=tmp_path / "kb")
    view = KnowledgeBase.open(tmp_path / "kb").show("Q230")
    assert (view.subclass_of, view.statements) == (["Q5", "Q6"], 4)


def test_the_card_tells_how_it_was_made(tmp_path):
    build_kb(catalogue(tmp_path, "a,Ann,"), out=tmp_path / "kb")
    card = json.loads((tmp_path / "kb" / "card.json").read_text())
    assert card["settings"]["preset"] == "image"
    assert {"reading", "sorting names", "indexing names"} <= set(card["seconds"])
    assert 10**7 < card["peak_memory_bytes"] < 10**11


def test_lines_that_are_only_unwanted_are_counted_and_not_written_down(tmp_path):
    unwanted = {**GEORGIA, "id": "Q1", "sitelinks": {}}
    path = dump(tmp_path, GEORGIA, unwanted)
    path.write_text(path.read_text() + "oops\n")
    summary = build_kb(path, out=tmp_path / "kb")
    assert summary.rejected == {"bad_json": 1, "no_sitelink": 1}
    (reject,) = map(json.loads, (tmp_path / "kb" / "rejects.jsonl").read_text().splitlines())
    assert (reject["source"], reject["line"], reject["text"]) == (str(path), 5, "oops")


def test_aliases_weigh_less_than_labels(tmp_path):
    header = "id,name,aliases"
    source = catalogue(tmp_path, "a,Big Apple,", "b,New York,Big Apple", header=header)
    build_kb(source, out=tmp_path / "kb", settings=KBSettings(alias_weight=0.25))
    found = KnowledgeBase.open(tmp_path / "kb").query("big apple")
    assert [(c.id, round(c.prior, 3)) for c in found] == [("a", 0.8), ("b", 0.2)]


def test_equal_ids_of_two_sources_merge(tmp_path):
    own = catalogue(tmp_path, "Q230,Gruzja,", "x,Extra,")
    summary = build_kb([own, dump(tmp_path, GEORGIA)], out=tmp_path / "kb")
    view = KnowledgeBase.open(tmp_path / "kb").show("Q230")
    assert (summary.entities, summary.rejected) == (2, {})
    assert (view.label, view.description, view.sitelinks) == ("Gruzja", "a country", 9)
    assert view.names == {"und": ["Gruzja"], "en": ["Georgia", "Sakartvelo"]}
    assert view.prior == 10


def test_a_catalogue_weight_outranks_later_sitelinks(tmp_path):
    own = catalogue(tmp_path, "Q230,Gruzja,4")
    build_kb([own, dump(tmp_path, GEORGIA)], out=tmp_path / "kb")
    assert KnowledgeBase.open(tmp_path / "kb").show("Q230").prior == 5


def test_duplicate_ids_of_one_source_are_counted_and_the_first_kept(tmp_path):
    summary = build_kb(catalogue(tmp_path, "a,Ann,", "a,Other,"), out=tmp_path / "kb")
    kb = KnowledgeBase.open(tmp_path / "kb")
    assert (summary.entities, summary.rejected) == (1, {"duplicate_id": 1})
    assert kb.query("other") == []
    (reject,) = map(json.loads, (tmp_path / "kb" / "rejects.jsonl").read_text().splitlines())
    assert (reject["line"], reject["reason"], reject["text"]) == (3, "duplicate_id", "a")


def test_spellings_of_one_name_are_one_row(tmp_path):
    source = catalogue(tmp_path, "a,São Tomé,Sao Tome|SAO-TOME|🇸🇹", header="id,name,aliases")
    summary = build_kb(source, out=tmp_path / "kb")
    (row,) = pq.read_table(tmp_path / "kb" / "names.parquet").to_pylist()
    card = json.loads((tmp_path / "kb" / "card.json").read_text())
    assert (row["key"], row["raw"], row["kind"]) == ("sao tome", "São Tomé", "label")
    assert (summary.names, card["names_without_words"]) == (1, 1)


def test_max_entities_stops_a_dump(tmp_path):
    items = [{**GEORGIA, "id": f"Q{i}"} for i in range(1, 9)]
    settings = KBSettings(max_entities=3)
    assert build_kb(dump(tmp_path, *items), out=tmp_path / "kb", settings=settings).entities == 3


def test_equal_inputs_give_equal_fingerprints(tmp_path):
    source = catalogue(tmp_path, "a,Ann,1", "b,Bob,2")
    for name in ("one", "two"):
        build_kb(source, out=tmp_path / name)
    other = catalogue(tmp_path, "a,Ann,1", "b,Bob,3", name="o.csv")
    build_kb(other, out=tmp_path / "three")
    prints = [KnowledgeBase.open(tmp_path / n).fingerprint for n in ("one", "two", "three")]
    assert prints[0] == prints[1] != prints[2]


@pytest.mark.parametrize("change", ["id", "name", "aliases", "description", "type", "image"])
def test_the_fingerprint_covers_what_is_seen_of_an_entity(tmp_path, change):
    row = {"id": "a", "name": "Ann", "aliases": "A", "description": "d", "type": "t", "image": "i"}
    header = ",".join(row)
    prints = set()
    # The names have equal keys, and differ only in how they are written.
    for name, values in (("one", row), ("two", {**row, change: row[change].swapcase()})):
        build_kb(catalogue(tmp_path, ",".join(values.values()), header=header), out=tmp_path / name)
        prints.add(KnowledgeBase.open(tmp_path / name).fingerprint)
    assert len(prints) == 2


def test_huge_weights_keep_their_order_and_stay_finite(tmp_path):
    rows = ["a,Foo Bar,1e30", "b,Foo Bar,1e29", "c,Other,1", "d,Other,"]
    settings = KBSettings(prior_gamma=10, alias_weight=1000)
    build_kb(catalogue(tmp_path, *rows), out=tmp_path / "kb", settings=settings)
    kb = KnowledgeBase.open(tmp_path / "kb")
    assert kb.ids.to_pylist() == ["a", "b", "c", "d"]
    priors = [c.prior for c in kb.query("foo bar")]
    assert priors == [pytest.approx(1), pytest.approx(1e-10)]
    assert sum(c.prior for c in kb.query("other")) == pytest.approx(1)


def test_stages_tell_how_many_rows_they_have_done(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(progress, "_LOG_EVERY_SECONDS", 0.0)
    build_kb(catalogue(tmp_path, "a,Ann,", "b,Bob,"), out=tmp_path / "kb")
    told = capsys.readouterr().err
    for stage in ("ranking entities: 8/8", "sorting names: 4/4", "sorting entities: 4/4"):
        assert f"{stage} rows" in told
    for stage in ("indexing names: 2/2", "storing ids and texts: 8/8", "the fingerprint: 4/4"):
        assert f"{stage} rows" in told


def test_several_entities_on_one_line_are_explained(tmp_path):
    (tmp_path / "d.json").write_text(json.dumps([GEORGIA, GEORGIA]))
    with pytest.raises(InputError, match=r"expected one entity a line, .* for example with: jq -c"):
        build_kb(tmp_path / "d.json", out=tmp_path / "kb")


def test_languages_that_nothing_is_named_in_are_shown(tmp_path):
    with pytest.raises(InputError, match="one of the --languages english that the --preset image"):
        build_kb(
            dump(tmp_path, GEORGIA),
            out=tmp_path / "kb",
            settings=KBSettings(languages=("English",)),
        )


def test_a_collision_of_hashes_takes_the_next_seed(tmp_path, monkeypatch):
    strings = merge.Hasher.strings

    def weak(self, names: pa.StringArray):
        return strings(self, names) & (1 if self.seed == 0 else 2**64 - 1)

    monkeypatch.setattr(merge.Hasher, "strings", weak)
    build_kb(catalogue(tmp_path, "a,Ann,", "b,Bob,", "c,Cid,"), out=tmp_path / "kb")
    kb = KnowledgeBase.open(tmp_path / "kb")
    assert kb.meta["seed"] == 1
    assert [c.id for c in kb.query("bob")] == ["b"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.json", None, "missing.json does not exist; expected a Wikidata dump"),
        ("names.xml", "x", r"ends in '.xml'; expected .json"),
        ("empty.json", "[\n]\n", "has no entity to name, no lines; expected"),
        ("bad.json", "[\noops\n]\n", r"only lines that give none \(bad_json: 1\)"),
        ("empty.csv", "id,name\n", "has no entity to name"),
    ],
)
def test_a_useless_source_is_explained(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=message):
        build_kb(tmp_path / name, out=tmp_path / "kb")
    assert not (tmp_path / "kb").exists()


def test_a_build_that_dies_leaves_the_old_knowledge_base(tmp_path, monkeypatch):
    out = tmp_path / "kb"
    build_kb(catalogue(tmp_path, "a,Ann,"), out=out)

    def die(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(build, "_write_json", die)
    with pytest.raises(KeyboardInterrupt):
        build_kb(catalogue(tmp_path, "b,Bob,", name="new.csv"), out=out)
    assert [c.id for c in KnowledgeBase.open(out).query("ann")] == ["a"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.csv", "kb", "new.csv"]


@pytest.mark.parametrize("atomic", [True, False])
def test_a_new_build_replaces_the_old_one(tmp_path, monkeypatch, atomic):
    if not atomic:
        monkeypatch.setattr(folders, "_exchange", lambda *_: False)
    for row in ("a,Ann,", "b,Bob,"):
        build_kb(catalogue(tmp_path, row), out=tmp_path / "kb")
    assert KnowledgeBase.open(tmp_path / "kb").ids.to_pylist() == ["b"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.csv", "kb"]


def test_other_folders_are_never_replaced(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").touch()
    with pytest.raises(InputError, match="exists and is not a knowledge base"):
        build_kb(catalogue(tmp_path, "a,Ann,"), out=tmp_path / "photos")
    assert (tmp_path / "photos" / "cat.jpg").exists()


@needs_shared
def test_real_entities_are_found_by_name(tmp_path):
    out = tmp_path / "kb"
    summary = build_kb(SHARED / "wikidata" / "sample_items_100.json.bz2", out=out)
    kb = KnowledgeBase.open(out)
    assert (summary.entities, summary.rejected) == (100, {})
    assert kb.query("Belgium")[0].id == "Q31"
    assert kb.show("Q31").sitelinks == 319


@needs_shared
def test_real_sources_of_all_kinds_go_together(tmp_path):
    names = ("wikidata/sample_items_100.json.bz2", "wikidata/mock-dump-with-bugs.json")
    sources = [*(SHARED / name for name in names), SHARED / "grocery" / "entities.csv"]
    summary = build_kb(sources, out=tmp_path / "kb", settings=KBSettings(preset="full"))
    assert summary.entities == 181
    assert summary.rejected == {"no_name": 55, "property_not_item": 46}
    assert summary.sources[2].note == "took the column 'class_id' for ids"
    assert KnowledgeBase.open(tmp_path / "kb").show("0").types == ["Apple"]
