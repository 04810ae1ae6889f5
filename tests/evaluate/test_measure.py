"""What is measured of each layout, from a model or from vectors, and what is refused."""

import csv
import json
import pickle
import shutil
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import fruit
from conftest import write_tar
from openmofi.errors import InputError, SettingsError
from openmofi.evaluate import evaluate, gpr1200
from openmofi.evaluate.benchmarks import CHOICES
from openmofi.evaluate.figures import revisited_top1
from openmofi.evaluate.layouts import open_labelled
from openmofi.evaluate.measure import Measured
from openmofi.evaluate.prompts import class_prompts, entity_ids
from openmofi.evaluate.results import Scores
from openmofi.evaluate.revisited import open_revisited
from openmofi.evaluate.vectors import Encoded
from openmofi.kb import KnowledgeBase, build_kb
from openmofi.model import load_model


@pytest.fixture(scope="module")
def model(nano_dir):
    return load_model(str(nano_dir))


def _classes(folder, *, images=6, start=0):
    for number in range(start, start + images):
        place = folder / fruit.NAMES[number % 3]
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number}.jpg").write_bytes(fruit.photo(place.name, number))
    return folder


def _gpr1200(folder):
    """Writes the names of GPR1200's files; their images are not looked at with --embeddings."""
    folder.mkdir()
    for number in range(1200):
        for letter in "abcdefghij":
            (folder / f"{number}_{letter}.jpg").touch()
    return folder


@pytest.fixture(scope="module")
def gpr(tmp_path_factory):
    return _gpr1200(tmp_path_factory.mktemp("gpr") / "images")


@pytest.mark.slow
def test_gpr1200_is_recognised_and_scored_in_class_order(gpr, tmp_path, rng):
    vectors = rng.standard_normal((12_000, 16)).astype(np.float32)
    np.save(tmp_path / "e.npy", vectors)
    [scores] = evaluate(data={"g": gpr.parent}, embeddings=tmp_path / "e.npy")
    expected = gpr1200.mean_average_precision(vectors)
    assert scores.layout == "gpr1200"
    assert scores.metrics == {f"gpr1200_{n}": pytest.approx(v) for n, v in expected.items()}


def test_gpr1200_with_an_image_missing_or_too_many_is_refused(gpr, tmp_path):
    np.save(tmp_path / "e.npy", np.ones((11_999, 4), np.float32))
    extra = gpr / "1200_a.jpg"
    extra.touch()
    try:
        with pytest.raises(InputError, match="12,001"):
            evaluate(data={"g": gpr}, embeddings=tmp_path / "e.npy")
    finally:
        extra.unlink()
    with pytest.raises(InputError, match="holds 11,999 vectors but 'g' has 12,000 images"):
        evaluate(data={"g": gpr}, embeddings=tmp_path / "e.npy")


@pytest.mark.slow
def test_images_of_gpr1200_that_cannot_be_read_are_no_lower_score(gpr, model):
    with pytest.raises(InputError, match=r"12,000 images of 'g' cannot be used \(corrupt_image"):
        evaluate(model, data={"g": gpr})


def test_train_and_test_folders_are_one_dataset(tmp_path, model):
    _classes(tmp_path / "data" / "train", images=12, start=100)
    _classes(tmp_path / "data" / "test")
    [scores] = evaluate(model, data={"d": tmp_path / "data"}, benchmarks=CHOICES)
    assert (scores.images, scores.classes) == (6, 3)
    assert {"retrieval_map", "knn", "zero_shot", "probe", "typographic_attacked"} <= set(
        scores.metrics
    )


def test_a_probe_without_training_images_is_refused(tmp_path, model):
    with pytest.raises(InputError, match="learns from training images"):
        evaluate(model, data={"d": _classes(tmp_path / "d")}, benchmarks=["probe"])


def test_all_benchmarks_are_those_that_the_data_allows(tmp_path, model):
    [scores] = evaluate(model, data={"d": _classes(tmp_path / "d")}, benchmarks=["all"])
    assert "probe" not in scores.metrics
    assert "typographic_fooled" in scores.metrics


def test_images_with_captions_are_searched_both_ways(tmp_path, model):
    lines = [("file", "caption")]
    for number in range(4):
        (tmp_path / f"{number}.jpg").write_bytes(fruit.photo("red", number))
        lines += [(f"{number}.jpg", f"image {number}"), (f"{number}.jpg", f"no {number}")]
    with (tmp_path / "test.csv").open("w", newline="") as file:
        csv.writer(file).writerows(lines)
    [scores] = evaluate(model, data={"c": tmp_path / "test.csv"})
    assert scores.layout == "captions"
    assert scores.notes["captions"] == 8
    assert scores.metrics["image_retrieval_recall@5"] == 1.0
    np.save(tmp_path / "e.npy", np.ones((4, 3), np.float32))
    with pytest.raises(InputError, match="compares images with texts"):
        evaluate(data={"c": tmp_path / "test.csv"}, embeddings=tmp_path / "e.npy")


def test_tagging_answers_with_the_entities_of_the_knowledge_base(tmp_path, model):
    build_kb(fruit.write_catalogue(tmp_path), out=tmp_path / "kb")
    [scores] = evaluate(model, data={"d": _classes(tmp_path / "d")}, kb=tmp_path / "kb")
    assert 0 <= scores.metrics["tag_top1"] <= 1  # of four entities, plum among them


def _numbered_table(folder, names):
    """Writes images of red, green and lime with a ClassLabel, as Hugging Face datasets do."""
    kinds = [number % 3 for number in range(12)]
    cells = [{"bytes": fruit.photo(fruit.NAMES[k], i)} for i, k in enumerate(kinds)]
    features = {"label": {"names": names, "_type": "ClassLabel"}}
    about = {"huggingface": json.dumps({"info": {"features": features}})}
    folder.mkdir()
    table = pa.table({"image": cells, "label": kinds}).replace_schema_metadata(about)
    pq.write_table(table, folder / "test.parquet")
    return folder


def test_the_datas_own_class_names_win_over_ids_that_look_like_its_numbers(tmp_path, model):
    (tmp_path / "catalogue.jsonl").write_text(
        "".join(
            json.dumps({"id": identifier, "name": name, "description": told}) + "\n"
            for identifier, name, told in [
                ("0", "steam engine", "a machine"),
                ("1", "Lime", "a sour fruit"),
                ("7", "Red Apple", "a sweet fruit"),
                ("8", "green apple", "of a kind"),
                ("9", "green apple", "of another kind"),
            ]
        )
    )
    build_kb(tmp_path / "catalogue.jsonl", out=tmp_path / "kb")
    names = ["red apple", "green apple", "lime"]
    data = {"d": _numbered_table(tmp_path / "d", names)}
    images, kb = open_labelled(tmp_path / "d"), KnowledgeBase.open(tmp_path / "kb")
    assert entity_ids(images.classes, images, kb) == {"0": "7", "2": "1"}
    assert entity_ids(images.classes, images, None) == {}
    prompts = class_prompts(images.classes, images, kb, None)
    assert prompts.names == ("red apple", "green apple", "lime")
    assert prompts.descriptions == ("a sweet fruit", "", "a sour fruit")
    [scores] = evaluate(model, data=data, kb=tmp_path / "kb")
    assert scores.notes["prompts"].startswith("the data's names")
    assert scores.notes["labels_not_in_kb"] == 1
    assert scores.metrics["tag_unknown_entities"] == 1


def test_labels_that_the_knowledge_base_lacks_are_said(tmp_path, model):
    build_kb(fruit.write_catalogue(tmp_path), out=tmp_path / "kb")
    data = _classes(tmp_path / "d")
    (data / "lime").rename(data / "kiwi")
    [scores] = evaluate(model, data={"d": data}, kb=tmp_path / "kb")
    assert scores.notes["labels_not_in_kb"] == 1
    for name in ("red", "green"):
        (data / name).rename(data / f"other {name}")
    with pytest.raises(InputError, match="knows none of the 3 labels"):
        evaluate(model, data={"d": data}, kb=tmp_path / "kb")


def test_given_class_names_must_be_as_many_as_the_classes(tmp_path, model):
    data, names = _classes(tmp_path / "d"), tmp_path / "names.txt"
    names.write_text("a green one\na yellow one\na red one\n")
    [scores] = evaluate(model, data={"d": data}, class_names=names)
    assert scores.notes["class_names"] == str(names)
    names.write_text("a green one\na red one\n")
    with pytest.raises(InputError, match="names 2 classes, but the data has 3"):
        evaluate(model, data={"d": data}, class_names=names)
    with pytest.raises(InputError, match="imagenet"):
        evaluate(model, data={"d": data}, class_names="imagenet1q")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "either a model or --embeddings"),
        ({"embeddings": "x.npy", "model": "m"}, "either a model or --embeddings"),
        ({"model": "m", "benchmarks": ["nkk"]}, "no benchmark 'nkk'"),
    ],
)
def test_impossible_wishes_are_refused(tmp_path, arguments, message):
    with pytest.raises(SettingsError, match=message):
        evaluate(data={"d": _classes(tmp_path / "d")}, **arguments)


def test_every_score_of_a_report_is_in_its_page_with_its_images(tmp_path, model):
    out = tmp_path / "out"
    [scores] = evaluate(model, data={"fruit <&>": _classes(tmp_path / "d", images=12)}, out=out)
    page = (out / "report.html").read_text()
    for name, value in scores.metrics.items():
        assert name in page
        assert f"{value:.4g}" in page
    assert "fruit &lt;&amp;&gt;" in page
    assert page.count("data:image/jpeg") >= 12
    assert "http" not in page.replace("http://www.w3.org", "")
    assert json.loads((out / "scores.json").read_text())[0]["metrics"] == scores.metrics


@pytest.mark.slow
def test_a_report_of_unreadable_images_still_stands(gpr, tmp_path, rng):
    np.save(tmp_path / "e.npy", rng.standard_normal((12_000, 8)).astype(np.float32))
    evaluate(data={"g": gpr}, embeddings=tmp_path / "e.npy", out=tmp_path / "out")
    page = (tmp_path / "out/report.html").read_text()
    assert "MOFI H/14" in page  # published beside ours
    assert "no image" in page
    assert "Map of the vectors by domain" in page
    assert "Map of products by class" in page
    rows = json.loads((tmp_path / "out/top1.json").read_text())["g"]
    domains = [row["query"]["name"].split(":")[0] for row in rows]
    assert domains == [name for name in gpr1200.DOMAINS for _ in range(2)]


def test_queries_are_cropped_before_they_are_encoded(tmp_path, model):
    left = Image.new("RGB", (40, 20), (220, 30, 30))
    left.paste((40, 200, 40), (20, 0, 40, 20))
    left.save(tmp_path / "both.png")
    Image.new("RGB", (20, 20), (40, 200, 40)).save(tmp_path / "green.png")
    from openmofi.evaluate.data import file_places
    from openmofi.evaluate.vectors import ModelVectors

    source = ModelVectors(model, device="cpu", cache=None)
    parts = file_places(tmp_path, ["both.png"], crops=[(20, 0, 40, 20)])
    whole = file_places(tmp_path, ["green.png"])
    np.testing.assert_allclose(
        source.images(parts, "q").vectors, source.images(whole, "g").vectors, atol=1e-5
    )


def _oxford(folder):
    """Writes a small ROxford: per fruit an easy, a hard and a junk image, and a query."""
    (folder / "jpg").mkdir(parents=True)
    gallery, truth = [], []
    for number, name in enumerate(fruit.NAMES):
        for part in range(3):
            gallery.append(f"{name}_{part}")
            data = fruit.photo(name, 10 * number + part)
            (folder / "jpg" / f"{name}_{part}.jpg").write_bytes(data)
        (folder / "jpg" / f"{name}_q.jpg").write_bytes(fruit.photo(name, 10 * number + 9))
        places = [[3 * number], [3 * number + 1], [3 * number + 2]]
        kinds = dict(zip(("easy", "hard", "junk"), places, strict=True))
        truth.append({**kinds, "bbx": [2.0, 2.0, 20.0, 20.0]})
    queries = [f"{name}_q" for name in fruit.NAMES]
    content = {"imlist": gallery, "qimlist": queries, "gnd": truth}
    (folder / "gnd_roxford5k.pkl").write_bytes(pickle.dumps(content, 2))
    return folder


def test_roxford_is_measured_from_its_folder_and_shown(tmp_path, model):
    data, out = _oxford(tmp_path / "roxford5k"), tmp_path / "out"
    [scores] = evaluate(model, data={"ox": data}, out=out)
    assert (scores.layout, scores.images) == ("revisited", 9)
    assert scores.notes == {"truth": "roxford5k", "queries": 3}
    assert {"map_easy", "map_medium", "map_hard", "mp10_hard"} <= set(scores.metrics)
    page = (out / "report.html").read_text()
    assert "R101-GeM on ROxford" in page
    assert page.count("data:image/jpeg") == 3 * (7 + 2)  # a query with six images, and with one
    (data / "jpg" / "lime_1.jpg").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"1 images of 'ox' cannot be used \(corrupt_image 1\)"):
        evaluate(model, data={"ox": data})


def test_the_nearest_image_of_a_query_is_the_best_that_is_no_junk(tmp_path):
    dataset = open_revisited(_oxford(tmp_path / "roxford5k"))
    queries = np.eye(3, dtype=np.float32)
    likeness = np.tile([[0.5], [0.25], [1.0]], (3, 1))  # easy, hard, junk of each query
    likeness[3:6] = [[0.1], [0.1], [1.0]]  # the second query finds an image of the third
    gallery = (likeness * np.repeat(queries, 3, axis=0)).astype(np.float32)
    gallery[6] = [0, 0.4, 0.5]
    scores = Scores("m", "ox", 9, 0, 0, {}, "revisited")
    measured = Measured(scores, dataset, Encoded(gallery, np.arange(9)), None, (), queries)
    found = [(row["found"]["name"], row["found"]["kind"]) for row in revisited_top1(measured)]
    assert found == [("red_0", "right"), ("lime_0", "wrong"), ("lime_0", "right")]


def test_distractors_beside_the_folder_make_it_harder(tmp_path, model, monkeypatch):
    monkeypatch.setattr(sys.modules["openmofi.evaluate.benchmarks"], "_DISTRACTORS", 4)
    data = _oxford(tmp_path / "roxford5k")
    [plain] = evaluate(model, data={"ox": data})
    (tmp_path / "revisitop1m" / "jpg").mkdir(parents=True)
    for number in range(10):
        image = fruit.photo(fruit.NAMES[number % 3], 500 + number)
        (tmp_path / "revisitop1m" / "jpg" / f"{number}.jpg").write_bytes(image)
    [harder] = evaluate(model, data={"ox": data})
    assert harder.notes == {"truth": "roxford5k", "queries": 3, "distractors": 10}
    assert harder.metrics["map_medium"] < plain.metrics["map_medium"]


def test_captions_are_shown_beside_their_images_and_escaped(tmp_path, model):
    lines = ["file,caption"]
    for number in range(4):
        (tmp_path / f"{number}.jpg").write_bytes(fruit.photo("red", number))
        lines.append(f"{number}.jpg,<b>{number}</b>")
    (tmp_path / "test.csv").write_text("\n".join(lines))
    evaluate(model, data={"c": tmp_path / "test.csv"}, out=tmp_path / "out")
    page = (tmp_path / "out/report.html").read_text()
    assert "&lt;b&gt;3&lt;/b&gt;" in page
    assert "<b>3</b>" not in page


def test_numeric_classes_go_by_their_value(tmp_path, model):
    for number in range(12):
        (tmp_path / "d" / str(number)).mkdir(parents=True)
        for index in range(2):
            data = fruit.photo("red", 2 * number + index)
            (tmp_path / "d" / str(number) / f"{index}.jpg").write_bytes(data)
    (tmp_path / "names.txt").write_text("\n".join(f"name {n}" for n in range(12)))
    images = open_labelled(tmp_path / "d")
    assert images.classes == [str(n) for n in range(12)]
    prompts = class_prompts(images.classes, images, None, str(tmp_path / "names.txt"))
    assert prompts.names[10] == "name 10"


def test_several_wds_folders_are_measured_each_and_in_the_mean(tmp_path, model):
    for name, labels in (("wds_one", "0120"), ("wds_two", "0101")):
        (tmp_path / "vtab" / name / "test").mkdir(parents=True)
        members = {}
        for number, label in enumerate(labels):
            members[f"{number}.jpg"] = fruit.photo(fruit.NAMES[int(label)], number)
            members[f"{number}.cls"] = label.encode()
        write_tar(tmp_path / "vtab" / name / "test" / "0.tar", members)
        (tmp_path / "vtab" / name / "classnames.txt").write_text("red\ngreen\nlime\n")
    one, two, mean = evaluate(model, data={"vtab": tmp_path / "vtab"}, out=tmp_path / "out")
    assert [s.dataset for s in (one, two, mean)] == ["vtab/wds_one", "vtab/wds_two", "vtab"]
    assert mean.notes == {"mean_of": ["vtab/wds_one", "vtab/wds_two"]}
    for name, value in mean.metrics.items():
        assert value == pytest.approx((one.metrics[name] + two.metrics[name]) / 2)
    assert one.metrics["zero_shot"] in (0, 0.25, 0.5, 0.75, 1)
    assert (one.classes, two.classes) == (3, 3)


def test_names_are_given_to_the_labels_that_bear_them_whatever_their_order(tmp_path, model):
    data, names = _classes(tmp_path / "d"), tmp_path / "names.txt"
    names.write_text("Red\nLime\nGREEN\n")
    (data / "red").rename(data / "Bengal")  # sorts before those in lower case
    names.write_text("lime\nbengal\ngreen\n")
    images = open_labelled(data)
    assert images.classes == ["Bengal", "green", "lime"]
    assert class_prompts(images.classes, images, None, str(names)).names == (
        "bengal",
        "green",
        "lime",
    )
    names.write_text("lime\nbengal\nplum\n")
    with pytest.raises(InputError, match=r"2 of 3 labels are names .* 'green' is not"):
        evaluate(model, data={"d": data}, class_names=names)


@pytest.mark.parametrize("wanted", [["zero-shot"], ["retrieval", "tagging"], ["typographic"]])
def test_texts_asked_of_a_file_of_vectors_are_refused_by_name(tmp_path, wanted):
    np.save(tmp_path / "e.npy", np.eye(6, dtype=np.float32))
    data = {"d": _classes(tmp_path / "d")}
    with pytest.raises(InputError, match="has no texts and no class head"):
        evaluate(data=data, embeddings=tmp_path / "e.npy", benchmarks=wanted)
    [scores] = evaluate(data=data, embeddings=tmp_path / "e.npy")
    assert set(scores.metrics) == {"retrieval_map", "top1", "knn"}


def test_tagging_without_entities_is_refused_if_asked_for(tmp_path, model):
    with pytest.raises(InputError, match="neither knows the labels of 'd'"):
        evaluate(model, data={"d": _classes(tmp_path / "d")}, benchmarks=["tagging"])


def test_what_is_needed_to_repeat_the_numbers_is_noted(tmp_path, model):
    _classes(tmp_path / "d" / "train", images=12, start=100)
    _classes(tmp_path / "d" / "test")
    [scores] = evaluate(model, data={"d": tmp_path / "d"}, benchmarks=["probe", "zero-shot"])
    assert scores.notes["prompts"] == "the labels in plain templates"
    assert scores.notes["probe"]["solver"]
    assert scores.notes["gallery"] == 12


def test_captions_stay_with_their_images_where_one_cannot_be_read(tmp_path, model):
    lines = ["file,caption"]
    for number, name in enumerate(("red", "green", "lime")):
        (tmp_path / f"{number}.jpg").write_bytes(fruit.photo(name, number))
        lines.append(f"{number}.jpg,{name}")
    (tmp_path / "all.csv").write_text("\n".join(lines))
    (tmp_path / "more.csv").write_text("\n".join([lines[0], "bad.jpg,no", *lines[1:]]))
    whole, more = (
        evaluate(model, data={"c": tmp_path / f"{name}.csv"})[0] for name in ("all", "more")
    )
    assert more.metrics == pytest.approx(whole.metrics)
    assert (more.notes["captions"], more.unreadable) == (3, 1)


def test_a_dataset_in_a_folder_of_several_that_is_none_is_refused(tmp_path, model):
    for name in ("one", "two"):
        (tmp_path / "vtab" / name / "test").mkdir(parents=True)
        write_tar(tmp_path / "vtab" / name / "test" / "0.tar", {"a.jpg": b"", "a.cls": b"0"})
    (tmp_path / "vtab" / "one" / "classnames.txt").write_text("red\n")
    with pytest.raises(InputError, match="'two' is not one"):
        evaluate(model, data={"vtab": tmp_path / "vtab"})


def test_entities_that_the_head_lacks_are_wrong_and_the_others_are_asked(tmp_path, nano_dir):
    folder = tmp_path / "model"
    shutil.copytree(nano_dir, folder)
    (folder / "entity_head").mkdir()
    rows = torch.randn(2, load_model(str(nano_dir)).dim)
    save_file({"rows": rows}, folder / "entity_head" / "rows.safetensors")
    (folder / "entity_head" / "ids.json").write_text('["red", "plum"]')
    (folder / "entity_head" / "images.json").write_text("[30, 7]")
    [scores] = evaluate(folder, data={"d": _classes(tmp_path / "d")})
    assert scores.metrics["tag_unknown_entities"] == 2
    assert scores.metrics["tag_top1_seen_0"] == 0
    third = scores.metrics["tag_top1_seen_10_to_99"] / 3
    assert scores.metrics["tag_top1"] == pytest.approx(third)
