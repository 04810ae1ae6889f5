"""Tagging: evidence for each name, abstention at an asked rate, and files of many images."""

import csv
import json
import os
import shutil

import numpy as np
import pytest

import fruit
from indexed import unit
from openmofi.embed import embed
from openmofi.errors import InputError, SettingsError
from openmofi.kb import build_kb
from openmofi.model import load_model
from openmofi.search import Index
from openmofi.tag import Tagger, tag
from openmofi.tag.abstain import TagCalibration
from openmofi.tag.calibrate import calibrate
from openmofi.tag.files import find_images, tag_all, write_sidecars, write_tags


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


def _images(shop, tmp_path, count=5):
    for number in range(count):
        shutil.copy(shop / f"photos/{number:03d}.jpg", tmp_path)
    (tmp_path / "below").mkdir()
    (tmp_path / "below/bad.PNG").write_bytes(b"bad")
    (tmp_path / "notes.txt").write_text("no image")
    return find_images([tmp_path])


def test_all_images_below_a_folder_are_found(shop, tmp_path):
    names = [path.name for path in _images(shop, tmp_path)]
    assert names == ["000.jpg", "001.jpg", "002.jpg", "003.jpg", "004.jpg", "bad.PNG"]
    with pytest.raises(InputError, match="There is no image in"):
        find_images([tmp_path / "below/none"][:0])


def test_tags_without_training_go_by_the_entities_texts(shop, nano_dir):
    [tags] = tag(str(nano_dir), [shop / "photos/000.jpg"], kb=shop / "kb", k=9)
    model = load_model(str(nano_dir), precision="auto")
    photo = model.encode_images([shop / "photos/000.jpg"])[0]
    texts = [f"{t.label}: {t.description}" for t in tags]
    assert {t.id for t in tags} == {"red", "green", "lime", "plum"}
    assert [t.score for t in tags] == sorted((t.score for t in tags), reverse=True)
    assert [t.score for t in tags] == pytest.approx(model.encode_texts(texts) @ photo, abs=1e-5)
    assert [t.evidence.text_score for t in tags] == pytest.approx([t.score for t in tags], abs=1e-5)
    assert {t.evidence.class_score for t in tags} == {None}


def test_an_image_that_cannot_be_read_is_named(shop, nano_dir):
    tagger = Tagger(str(nano_dir), shop / "kb")
    for path in (shop / "bad.jpg", shop / "gone.jpg"):
        (shop / "bad.jpg").write_bytes(b"bad")
        with pytest.raises(InputError, match=f"Cannot read the image .*{path.name}"):
            tagger.tag([path])
    with pytest.raises(InputError, match="Cannot read the image given"):
        tagger.tag([b"bytes that are not image"])


def test_an_error_that_nobody_foresaw_is_told_in_a_sentence(shop, nano_dir, monkeypatch):
    def fail(*_):
        raise TypeError("bad operand")

    tagger = Tagger(str(nano_dir), shop / "kb")
    monkeypatch.setattr("openmofi.search.query.read_image", fail)
    with pytest.raises(InputError, match=r"000.jpg': TypeError: bad operand\."):
        tagger.tag([shop / "photos/000.jpg"])


def test_images_tagged_together_get_what_each_gets_alone(shop, tagger, tmp_path):
    images = _images(shop, tmp_path)
    together = list(tag_all(tagger, images, tagger.answer))
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
    calibration = TagCalibration(sure, np.array([True] * 99 + [False]), sure - 1)
    answers = tagger.answer(vectors, calibration=calibration, error_rate=0.01)
    assert [answer.abstains for answer in answers] == [score < middle for score in scores]
    assert all("For an error rate of 0.01, the best scores" in a.reason for a in answers)
    with pytest.raises(SettingsError, match="needs a calibration"):
        tagger.answer(vectors, error_rate=0.1)


def test_labelled_images_calibrate(shop, tagger):
    found = calibrate(tagger, shop / "photos/test.csv")
    assert len(found.score) == 12
    right = [tags[0].id for tags in tagger.tag(sorted((shop / "photos").glob("*.jpg")))]
    expected = [best == fruit.NAMES[i % 3] for i, best in enumerate(right)]
    assert sorted(found.right.tolist()) == sorted(expected)


def test_labels_that_are_no_entities_are_refused(shop, tagger, tmp_path):
    text = (shop / "photos/test.csv").read_text().replace(",red", ",rouge")
    text = text.replace(",green", ",vert").replace(",lime", ",citron")
    (shop / "photos/other.csv").write_text(text)
    with pytest.raises(InputError, match="is one of the model's entities"):
        calibrate(tagger, shop / "photos/other.csv")


# ---- files --------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_a_file_that_was_cut_short_is_continued(shop, tagger, tmp_path, suffix):
    images = _images(shop, tmp_path)
    whole, out = tmp_path / f"whole{suffix}", tmp_path / f"cut{suffix}"
    write_tags(whole, tagger, images, tagger.answer)
    data = whole.read_bytes()
    for cut in (0, 30, len(data) // 3, len(data) - 5, len(data)):
        out.write_bytes(data[:cut])
        again = write_tags(out, tagger, images, tagger.answer)
        assert out.read_bytes() == data
        assert again.total() < len(images) or cut <= 30


def test_a_csv_has_a_row_per_tag_and_the_reason_of_what_cannot_be_read(shop, tagger, tmp_path):
    images = _images(shop, tmp_path)
    write_tags(tmp_path / "t.csv", tagger, images, tagger.answer)
    with open(tmp_path / "t.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    first = [row for row in rows if row["image"] == str(images[0])]
    assert [row["rank"] for row in first] == ["0", "1", "2", "3"]
    assert rows[-1] | {"image": ""} == dict.fromkeys(rows[0], "") | {"error": "corrupt_image"}


def test_jsonl_has_a_line_per_image_with_the_evidence(shop, tagger, tmp_path):
    images = _images(shop, tmp_path)
    write_tags(tmp_path / "t.jsonl", tagger, images, tagger.answer)
    lines = [json.loads(line) for line in (tmp_path / "t.jsonl").read_text().splitlines()]
    assert [line["image"] for line in lines] == [str(path) for path in images]
    assert {"class_score", "text_score", "prior", "nearest"} == {*lines[0]["tags"][0]["evidence"]}
    assert lines[-1]["error"] == "corrupt_image"


@pytest.mark.parametrize(
    "text",
    ["a,b\n1,2\n", "a,b\n1,2", "image,caption\n1,2\n", '{"other": 1}\n', "[1]\n", "plain", "{}"],
)
def test_a_file_of_something_else_is_not_continued(tagger, tmp_path, text):
    out = tmp_path / ("t.csv" if "," in text else "t.jsonl")
    out.write_text(text)
    with pytest.raises(InputError, match="has other content"):
        write_tags(out, tagger, [tmp_path / "x.jpg"], tagger.answer)
    assert out.read_text() == text
    with pytest.raises(InputError, match=r"neither a .csv nor a .jsonl"):
        write_tags(tmp_path / "t.txt", tagger, [], tagger.answer)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_names_with_odd_characters_come_back(shop, tagger, tmp_path, suffix):
    names = ["a\u2028b.jpg", "a\x0bb.jpg", 'a "quoted", b.jpg', os.fsdecode(b"a\xff.jpg"), "\n.jpg"]
    for name in names:
        shutil.copy(shop / "photos/000.jpg", tmp_path / name)
    out, images = tmp_path / f"t{suffix}", find_images([tmp_path])
    assert write_tags(out, tagger, images, tagger.answer) == {"tagged": 5}
    data = out.read_bytes()
    again = write_tags(out, tagger, images, tagger.answer)
    assert again.total() == (1 if suffix == ".csv" else 0)  # the last of a CSV may lack rows
    assert out.read_bytes() == data


def test_an_image_of_which_nothing_is_said_gets_no_sidecar(shop, tagger, tmp_path):
    images = _images(shop, tmp_path, count=2)
    silent = TagCalibration(np.ones(9, np.float32), np.zeros(9, bool), np.ones(9, np.float32))
    for rate, expected in ((0.1, 0), (None, 2)):
        write_sidecars(
            tagger,
            images,
            lambda vectors, rate=rate: tagger.answer(vectors, calibration=silent, error_rate=rate),
        )
        assert len(list(tmp_path.glob("*.xmp"))) == expected
