"""Tagging: evidence for each name, abstention at an asked rate, and files of many pictures."""

import csv
import json
import os
import shutil
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fruit
from indexed import unit
from openmofi.embed import embed
from openmofi.errors import InputError, SettingsError
from openmofi.kb import build_kb
from openmofi.search import Index, Tagger
from openmofi.search.abstain import Calibration, measure
from openmofi.search.tag import Evidence, Tag
from openmofi.search.tag_files import find_pictures, tag_all, write_sidecars, write_tags
from openmofi.search.xmp import write_sidecar

# ---- abstaining ---------------------------------------------------------------------------------

cases = st.lists(
    st.tuples(st.integers(0, 20), st.booleans(), st.integers(0, 20)), min_size=1, max_size=40
)


def _calibration(rows):
    score, right, unknown = zip(*rows, strict=True)
    return Calibration(
        np.array(score, np.float32) / 20, np.array(right), np.array(unknown, np.float32) / 20
    )


@settings(max_examples=200, deadline=None)
@given(cases, st.sampled_from([0.05, 0.2, 0.5]), st.sampled_from([0.0, 0.3]))
def test_the_threshold_is_the_least_that_keeps_the_rate(rows, rate, unknown):
    found = _calibration(rows)
    count, least = len(rows), float("inf")
    for t in sorted({*found.score.tolist(), *(found.unknown_score.tolist() if unknown else [])}):
        known = found.score >= t
        strangers = unknown * (found.unknown_score >= t).sum()
        wrong = (1 - unknown) * (known & ~found.right).sum() + strangers
        answered = (1 - unknown) * known.sum() + strangers
        if (wrong + 1) / (answered + 1) <= rate + 1e-9:
            least = min(least, t)
    assert count
    assert found.threshold(rate, unknown=unknown) == pytest.approx(least)


@pytest.mark.parametrize("rate", [0.02, 0.05, 0.1])
@pytest.mark.parametrize("unknown", [0.0, 0.3])
def test_the_rate_asked_for_holds_on_other_pictures(rate, unknown):
    rng = np.random.default_rng(3)

    def draw(count):
        score = rng.random(count).astype(np.float32)
        strange = (0.8 * rng.random(count)).astype(np.float32)
        return Calibration(score, rng.random(count) < 0.5 + 0.5 * score**0.2, strange)

    least = draw(4000).threshold(rate, unknown=unknown)
    fresh = draw(100_000)
    strangers = unknown * (fresh.unknown_score >= least).sum()
    answered = fresh.score >= least
    wrong = (1 - unknown) * (answered & ~fresh.right).sum() + strangers
    assert wrong / ((1 - unknown) * answered.sum() + strangers) == pytest.approx(rate, rel=0.3)


def test_probabilities_rise_with_the_score_and_fall_with_strangers():
    rng = np.random.default_rng(4)
    score = rng.random(2000).astype(np.float32)
    found = Calibration(score, rng.random(2000) < score, score / 2)
    grid = np.linspace(0, 1, 30)
    sure, with_strangers = found.probability(grid), found.probability(grid, unknown=0.5)
    assert (np.diff(sure) >= 0).all()
    assert np.abs(sure - grid).max() < 0.12
    assert (with_strangers <= sure + 1e-9).all()


def test_measuring_hides_the_true_entity_to_see_what_strangers_score(rng):
    entities = unit(rng.standard_normal((5, 8)))
    found = Calibration.measure(entities[[0, 3, 4]], ["a", "d", "?"], entities, [*"abcde"])
    assert found.right.tolist() == [True, True, False]
    others = entities @ entities.T - 2 * np.eye(5)
    assert found.score == pytest.approx([1, 1, 1], abs=1e-5)
    assert found.unknown_score == pytest.approx([*others.max(1)[[0, 3]], 1.0], abs=1e-5)


def test_a_calibration_comes_back_from_its_file(tmp_path):
    found = _calibration([(3, True, 1), (5, False, 2)])
    found.write(tmp_path / "c.parquet")
    again = Calibration.read(tmp_path / "c.parquet")
    assert again.score.tolist() == found.score.tolist()
    assert again.right.tolist() == [True, False]
    (tmp_path / "c.parquet").write_bytes(b"other")
    with pytest.raises(InputError, match="is not a calibration"):
        Calibration.read(tmp_path / "c.parquet")


@pytest.mark.parametrize(("rate", "unknown"), [(0, 0), (1, 0), (0.1, 1), (0.1, -0.1)])
def test_impossible_shares_are_refused(rate, unknown):
    with pytest.raises(SettingsError, match="cannot be"):
        _calibration([(3, True, 1)]).threshold(rate, unknown=unknown)


# ---- with a model -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shop(tmp_path_factory, nano_dir):
    folder = tmp_path_factory.mktemp("tagging")
    build_kb(fruit.write_catalogue(folder), out=folder / "kb")
    fruit.write_listing(folder / "photos")
    embed(str(nano_dir), folder / "photos", out=folder / "e.parquet")
    Index.build(folder / "e.parquet", folder / "index", kb=folder / "kb")
    return folder


@pytest.fixture(scope="module")
def tagger(shop, nano_dir):
    return Tagger(str(nano_dir), shop / "kb")


def _pictures(shop, tmp_path, count=5):
    for number in range(count):
        shutil.copy(shop / f"photos/{number:03d}.jpg", tmp_path)
    (tmp_path / "below").mkdir()
    (tmp_path / "below/bad.PNG").write_bytes(b"bad")
    (tmp_path / "notes.txt").write_text("no picture")
    return find_pictures([tmp_path])


def test_all_pictures_below_a_folder_are_found(shop, tmp_path):
    names = [path.name for path in _pictures(shop, tmp_path)]
    assert names == ["000.jpg", "001.jpg", "002.jpg", "003.jpg", "004.jpg", "bad.PNG"]
    with pytest.raises(InputError, match="There is no picture in"):
        find_pictures([tmp_path / "below/none"][:0])


def test_pictures_tagged_together_get_what_each_gets_alone(shop, tagger, tmp_path):
    pictures = _pictures(shop, tmp_path)
    together = list(tag_all(tagger, pictures, tagger.answer))
    assert [item.error for item in together] == [""] * 5 + ["corrupt_image"]
    for item in together[:5]:
        [alone] = tagger.tag([item.image], k=5)
        assert [t.id for t in item.answer.tags] == [t.id for t in alone]
        scores = [t.score for t in item.answer.tags]
        assert scores == pytest.approx([t.score for t in alone], abs=1e-5)


def test_evidence_names_prior_text_and_nearest_images(shop, nano_dir):
    index = Index.open(shop / "index")
    rows = index.num_rows
    labelled = Tagger(str(nano_dir), shop / "kb", index=_labelled(index, [["red"], ["lime"]], rows))
    [answer] = labelled.answer(index.vectors(np.array([0])))
    by_id = {tag.id: tag for tag in answer.tags}
    assert {*by_id} == {"red", "lime"}
    assert by_id["red"].evidence.prior == pytest.approx(3 / 5, abs=0.1)
    assert by_id["red"].evidence.nearest[0].row == 0
    assert {hit.entities for hit in by_id["lime"].evidence.nearest} == {("lime",)}
    assert by_id["red"].evidence.class_score is None
    assert by_id["red"].evidence.text_score == pytest.approx(by_id["red"].score, abs=1e-5)


def _labelled(index, labels, count):
    """The same index with other labels, which take turns."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = index.folder / "part-0001/rows.parquet"
    table = pq.read_table(file)
    column = pa.array([labels[i % len(labels)] for i in range(count)], pa.list_(pa.string()))
    at = table.schema.get_field_index("entities")
    pq.write_table(table.set_column(at, table.schema.field(at), column), file)
    entities = pa.table(
        {"id": ["red", "lime"], "label": ["R", "L"], "description": ["", ""], "types": [[], []]},
        schema=pq.read_schema(index.folder / "part-0001/entities.parquet"),
    )
    pq.write_table(entities, index.folder / "part-0001/entities.parquet")
    return Index.open(index.folder)


def test_nothing_is_said_below_the_threshold(tagger):
    vectors = unit(np.random.default_rng(1).standard_normal((6, tagger.model.dim)))
    scores = [answer.tags[0].score for answer in tagger.answer(vectors)]
    middle = sorted(scores)[3]
    sure = np.array([middle] * 99 + [middle - 1], np.float32)
    calibration = Calibration(sure, np.array([True] * 99 + [False]), sure - 1)
    answers = tagger.answer(vectors, calibration=calibration, error_rate=0.01)
    assert [answer.abstains for answer in answers] == [score < middle for score in scores]
    assert all("For an error rate of 0.01, the best scores" in a.reason for a in answers)
    with pytest.raises(SettingsError, match="needs a calibration"):
        tagger.answer(vectors, error_rate=0.1)


def test_labelled_pictures_calibrate(shop, tagger):
    found = measure(tagger, shop / "photos/test.csv")
    assert len(found.score) == 12
    right = [tags[0].id for tags in tagger.tag(sorted((shop / "photos").glob("*.jpg")))]
    expected = [best == fruit.NAMES[i % 3] for i, best in enumerate(right)]
    assert sorted(found.right.tolist()) == sorted(expected)


def test_labels_that_are_no_entities_are_refused(shop, tagger, tmp_path):
    text = (shop / "photos/test.csv").read_text().replace(",red", ",rouge")
    text = text.replace(",green", ",vert").replace(",lime", ",citron")
    (shop / "photos/other.csv").write_text(text)
    with pytest.raises(InputError, match="is one of the model's entities"):
        measure(tagger, shop / "photos/other.csv")


# ---- files --------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_a_file_that_was_cut_short_is_continued(shop, tagger, tmp_path, suffix):
    pictures = _pictures(shop, tmp_path)
    whole, out = tmp_path / f"whole{suffix}", tmp_path / f"cut{suffix}"
    write_tags(whole, tagger, pictures, tagger.answer)
    data = whole.read_bytes()
    for cut in (0, 30, len(data) // 3, len(data) - 5, len(data)):
        out.write_bytes(data[:cut])
        again = write_tags(out, tagger, pictures, tagger.answer)
        assert out.read_bytes() == data
        assert again.total() < len(pictures) or cut <= 30


def test_a_csv_has_a_row_per_tag_and_the_reason_of_what_cannot_be_read(shop, tagger, tmp_path):
    pictures = _pictures(shop, tmp_path)
    write_tags(tmp_path / "t.csv", tagger, pictures, tagger.answer)
    with open(tmp_path / "t.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    first = [row for row in rows if row["image"] == str(pictures[0])]
    assert [row["rank"] for row in first] == ["0", "1", "2", "3"]
    assert rows[-1] | {"image": ""} == dict.fromkeys(rows[0], "") | {"error": "corrupt_image"}


def test_jsonl_has_a_line_per_picture_with_the_evidence(shop, tagger, tmp_path):
    pictures = _pictures(shop, tmp_path)
    write_tags(tmp_path / "t.jsonl", tagger, pictures, tagger.answer)
    lines = [json.loads(line) for line in (tmp_path / "t.jsonl").read_text().splitlines()]
    assert [line["image"] for line in lines] == [str(path) for path in pictures]
    assert {"class_score", "text_score", "prior", "nearest"} == {*lines[0]["tags"][0]["evidence"]}
    assert lines[-1]["error"] == "corrupt_image"


@pytest.mark.parametrize(
    "text",
    ["a,b\n1,2\n", "a,b\n1,2", "image,caption\n1,2\n", '{"other": 1}\n', "[1]\n", "plain", "{}"],
)
def test_a_file_of_something_else_is_not_continued(tagger, tmp_path, text):
    out = tmp_path / ("t.csv" if "," in text else "t.jsonl")
    out.write_text(text)
    with pytest.raises(InputError, match="holds something else"):
        write_tags(out, tagger, [tmp_path / "x.jpg"], tagger.answer)
    assert out.read_text() == text
    with pytest.raises(InputError, match=r"neither a .csv nor a .jsonl"):
        write_tags(tmp_path / "t.txt", tagger, [], tagger.answer)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_names_with_odd_characters_come_back(shop, tagger, tmp_path, suffix):
    names = ["a\u2028b.jpg", "a\x0bb.jpg", 'a "quoted", b.jpg', os.fsdecode(b"a\xff.jpg"), "\n.jpg"]
    for name in names:
        shutil.copy(shop / "photos/000.jpg", tmp_path / name)
    out, pictures = tmp_path / f"t{suffix}", find_pictures([tmp_path])
    assert write_tags(out, tagger, pictures, tagger.answer) == {"tagged": 5}
    data = out.read_bytes()
    again = write_tags(out, tagger, pictures, tagger.answer)
    assert again.total() == (1 if suffix == ".csv" else 0)  # the last of a CSV may lack rows
    assert out.read_bytes() == data


# ---- XMP ----------------------------------------------------------------------------------------

DC = "{http://purl.org/dc/elements/1.1/}"
RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
OTHER = """<x:xmpmeta xmlns:x="adobe:ns:meta/">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about="" xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmp:Rating="4"
    xmlns:dc="http://purl.org/dc/elements/1.1/">
   <dc:subject><rdf:Bag><rdf:li>holiday</rdf:li><rdf:li>France</rdf:li></rdf:Bag></dc:subject>
  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta>"""


def _tag(identifier, label):
    return Tag(identifier, label, "", 0.9, None, Evidence(None, 0.1, None, ()))


def _keywords(path):
    return [item.text for item in ET.parse(path).findall(f".//{DC}subject/{RDF}Bag/{RDF}li")]


def test_keywords_of_others_stay_and_ours_make_room(tmp_path):
    path = tmp_path / "a.jpg.xmp"
    path.write_text(OTHER)
    for tags, ours in (
        ([_tag("Q142", "France"), _tag("Q183", "Germany")], ["Germany"]),
        ([_tag("Q38", "Italy")], ["Italy"]),
        ([], []),
    ):
        write_sidecar(path, tags)
        assert _keywords(path) == ["holiday", "France", *ours]
        assert 'xmp:Rating="4"' in path.read_text()


def test_a_wikidata_id_is_written_as_a_term_with_its_uri(tmp_path):
    write_sidecar(tmp_path / "a.xmp", [_tag("Q142", "France"), _tag("sku-7", "<Apple> & Co")])
    text = (tmp_path / "a.xmp").read_text()
    assert text.count("http://www.wikidata.org/entity/Q142") == 2  # the term, and our list
    assert "sku-7" not in text
    assert _keywords(tmp_path / "a.xmp") == ["France", "<Apple> & Co"]


def test_keywords_go_where_keywords_are_and_the_rest_stays(tmp_path):
    parts = OTHER.replace("rdf:Bag", "rdf:Seq").split("  <rdf:Description")
    first = '  <!-- mine --><rdf:Description rdf:about="" xmlns:a="urn:a" a:b="1"/>\n'
    packet = '<?xpacket begin="" id="W5M0"?>\n', '\n<?xpacket end="w"?>\n'
    path = tmp_path / "a.xmp"
    path.write_text(packet[0] + parts[0] + first + "  <rdf:Description" + parts[1] + packet[1])
    write_sidecar(path, [_tag("Q38", "Italy\x0b")])
    text = path.read_text()
    keywords = ET.fromstring(text).findall(f".//{DC}subject")
    assert [[item.text for item in k[0]] for k in keywords] == [["holiday", "France", "Italy"]]
    assert text.startswith(packet[0])
    assert text.endswith(packet[1])
    assert "<!-- mine -->" in text
    write_sidecar(path, [])
    assert "openmofi" not in path.read_text().replace("xmlns:openmofi", "")


def test_what_is_no_xmp_is_left_alone(tmp_path):
    for content in ("<html/>", "plain", ""):
        (tmp_path / "a.xmp").write_text(content)
        with pytest.raises(InputError, match="is no XMP"):
            write_sidecar(tmp_path / "a.xmp", [_tag("Q1", "x")])
        assert (tmp_path / "a.xmp").read_text() == content


def test_a_picture_of_which_nothing_is_said_gets_no_sidecar(shop, tagger, tmp_path):
    pictures = _pictures(shop, tmp_path, count=2)
    silent = Calibration(np.ones(9, np.float32), np.zeros(9, bool), np.ones(9, np.float32))
    for rate, expected in ((0.1, 0), (None, 2)):
        write_sidecars(
            tagger,
            pictures,
            lambda vectors, rate=rate: tagger.answer(vectors, calibration=silent, error_rate=rate),
        )
        assert len(list(tmp_path.glob("*.xmp"))) == expected
