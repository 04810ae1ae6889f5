"""The layouts of evaluation data, and that no image gets another one's label."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import fruit
from conftest import write_tar
from openmofi.errors import InputError
from openmofi.evaluate import evaluate
from openmofi.evaluate.layouts import open_labelled
from openmofi.kb import build_kb
from openmofi.model import load_model


@pytest.fixture(scope="module")
def model(nano_dir):
    return load_model(str(nano_dir))


def _listing(folder, text, name="test.csv"):
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def _class_folders(folder):
    for i in range(9):
        name = fruit.NAMES[i % 3]
        (folder / name / "deep").mkdir(parents=True, exist_ok=True)
        (folder / name / "deep" / f"{i}.jpg").write_bytes(fruit.photo(name, i))
    return folder


def _world(folder, *, test=("red", "lime"), train=("green", "lime", "red")):
    """A world as the demo lays it out; its keys are numbers over both splits."""
    truth, number = [], 0
    for split, names in (("test", test), ("shards", train)):
        (folder / split).mkdir(parents=True)
        members = {}
        for name in 3 * names:
            members[f"{number}.jpg"] = fruit.photo(name, number)
            truth.append({"key": str(number), "shown": name})
            number += 1
        write_tar(folder / split / "0.tar", members)
    pq.write_table(pa.Table.from_pylist(truth), folder / "truth.parquet")
    return folder


def test_class_folders_label_by_the_folder(tmp_path):
    found = open_labelled(_class_folders(tmp_path))
    names = [path.split("/")[0] for path in found.places.table["path"].to_pylist()]
    assert list(found.labels) == names
    assert found.classes == ["green", "lime", "red"]


@pytest.mark.parametrize("column", ["label", "entity", "class", "class_id"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_listing_labels_by_its_column(tmp_path, column, delimiter):
    text = f"file,{column}\na.jpg,red\nb.jpg,lime\n".replace(",", delimiter)
    found = open_labelled(_listing(tmp_path, text))
    assert (found.labels, found.classes) == (("red", "lime"), ["lime", "red"])


def test_a_listing_may_have_domains_beside_its_labels(tmp_path):
    text = "file,label,domain\n1.jpg,a,x\n2.jpg,b,\n"
    assert open_labelled(_listing(tmp_path, text)).domains == ("x", "(no domain)")
    text = "file,label,domain\n1.jpg,a,x\n2.jpg,b,x\n"
    assert open_labelled(_listing(tmp_path, text)).domains == ()  # one domain is none


def test_a_listing_of_json_lines_is_read_too(tmp_path):
    lines = [{"file_name": f"{i}.jpg", "label": i % 2} for i in range(4)]
    text = "\n".join(map(json.dumps, lines))
    assert open_labelled(_listing(tmp_path, text, "test.jsonl")).labels == ("0", "1", "0", "1")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"columns \(none\)"),
        ("file,shape\na.jpg,x\n", "has the columns file, shape"),
        ("file,label\na.jpg,red\nb.jpg\n", "Line 3"),
        ("file,label\na.jpg,red, or not\n", "Line 2"),
        ("file,label\n,red\n", "Line 2"),
        ("file,label\na.jpg,red\n", "1 images with their truth"),
    ],
)
def test_a_listing_that_would_give_a_wrong_score_is_refused(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        open_labelled(_listing(tmp_path, text))


def test_labels_that_only_the_gallery_has_are_classes_too(tmp_path):
    world = open_labelled(_world(tmp_path / "w"))
    assert world.gallery is not None
    assert world.classes == ["green", "lime", "red"]
    for images in (world, world.gallery):
        named = [world.classes[code] for code in images.codes(world.classes)]
        assert named == list(images.labels)


def test_a_gallery_of_further_labels_does_not_shift_them(tmp_path, model):
    """With labels looked up among the test's alone, green would have been taken for lime."""
    [scores] = evaluate(model, data={"w": _world(tmp_path / "w")})
    assert scores.classes == 3
    [twins] = evaluate(model, data={"w": _world(tmp_path / "v", train=("lime", "red"))})
    assert twins.metrics["retrieval_map"] == scores.metrics["retrieval_map"]
    assert scores.metrics["knn"] <= twins.metrics["knn"]


def test_a_class_that_the_gallery_lacks_does_not_shift_the_others(tmp_path, model):
    train = ("lime", "red")
    [twins] = evaluate(model, data={"w": _world(tmp_path / "v", test=train, train=train)})
    [more] = evaluate(
        model, data={"w": _world(tmp_path / "w", test=(*train, "green"), train=train)}
    )
    assert more.metrics["knn"] * 9 == pytest.approx(twins.metrics["knn"] * 6)  # green is lost


def test_a_file_listed_twice_would_be_its_own_neighbour(tmp_path):
    text = "file,label\n0.jpg,a\n1.jpg,b\n0.jpg,a\n"
    with pytest.raises(InputError, match=r"Line 4 .* lists '0\.jpg' again"):
        open_labelled(_listing(tmp_path, text))


@pytest.mark.parametrize("test", ["test", "Test", "val", "valid", "validation", "dev"])
def test_splits_are_known_by_their_names(tmp_path, test):
    _class_folders(tmp_path / "d" / test)
    alone = open_labelled(tmp_path / "d")
    assert (alone.classes, alone.gallery) == (["green", "lime", "red"], None)
    _class_folders(tmp_path / "d" / "Train")
    found = open_labelled(tmp_path / "d")
    assert found.gallery is not None
    assert found.labels == alone.labels
    assert {path.split("/")[0] for path in found.places.table["path"].to_pylist()} == {test}


@pytest.mark.parametrize(
    ("folder", "file", "message"),
    [
        ("train", "a.jpg", "'train' .* is named as a split"),
        ("plum", None, "'plum' .* holds no image"),
        ("plum", "a.txt", "'plum' .* holds no image"),
    ],
)
def test_folders_that_are_no_classes_are_refused(tmp_path, folder, file, message):
    data = _class_folders(tmp_path / "d")
    (data / folder).mkdir()
    if file:
        (data / folder / file).write_bytes(fruit.photo("red"))
    with pytest.raises(InputError, match=message):
        open_labelled(data)


def test_hidden_files_are_none_and_other_files_are_counted(tmp_path, model):
    data = _class_folders(tmp_path / "d")
    for name in (".thumbs/a.jpg", "__MACOSX/a.jpg", "red/._a.jpg", "red/notes.txt"):
        (data / name).parent.mkdir(exist_ok=True)
        (data / name).write_bytes(fruit.photo("red"))
    [scores] = evaluate(model, data={"d": data})
    assert (scores.images, scores.classes) == (9, 3)
    assert scores.notes["refused"] == {"no_picture_by_its_name": 1}


def test_images_behind_links_count_and_loops_end(tmp_path):
    data = _class_folders(tmp_path / "d")
    (data / "red" / "loop").symlink_to(data / "red")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "x.tif").write_bytes(fruit.photo("red", kind="TIFF"))
    (data / "red" / "more").symlink_to(tmp_path / "elsewhere")
    found = open_labelled(data)
    assert len(found.labels) == 10
    assert "red/more/x.tif" in found.places.table["path"].to_pylist()


def test_one_class_alone_makes_every_answer_right_and_is_refused(tmp_path):
    for number in range(3):
        (tmp_path / "red").mkdir(exist_ok=True)
        (tmp_path / "red" / f"{number}.jpg").write_bytes(fruit.photo("red", number))
    with pytest.raises(InputError, match="holds one class, 'red'"):
        open_labelled(tmp_path)


def test_a_damaged_shard_of_a_world_is_said(tmp_path, model):
    world = _world(tmp_path / "w")
    tar = world / "test" / "0.tar"
    tar.write_bytes(tar.read_bytes()[:4000])
    [scores] = evaluate(model, data={"w": world})
    assert scores.images < 6
    assert scores.unreadable == sum(scores.notes["refused"].values()) > 0


def test_unreadable_training_images_are_said(tmp_path, model):
    _class_folders(tmp_path / "d" / "test")
    train = _class_folders(tmp_path / "d" / "train")
    (train / "red" / "deep" / "bad.jpg").write_bytes(b"no image")
    [scores] = evaluate(model, data={"d": tmp_path / "d"})
    assert scores.notes["gallery"] == 9
    assert scores.notes["gallery_refused"] == {"corrupt_image": 1}


def test_unreadable_images_leave_the_others_their_labels(tmp_path, model):
    listing = fruit.write_listing(tmp_path, images=12) / "test.csv"
    [whole] = evaluate(model, data={"x": listing})
    text = "file,label\nlost.jpg,lime\n" + "".join(listing.read_text().splitlines(True)[1:])
    [part] = evaluate(model, data={"x": _listing(tmp_path, text, "more.csv")})
    assert (part.images, part.unreadable) == (12, 1)
    assert part.metrics == pytest.approx(whole.metrics)


def test_where_no_two_images_belong_together_retrieval_is_not_defined(tmp_path, model):
    fruit.write_listing(tmp_path, images=3)
    [scores] = evaluate(model, data={"x": tmp_path / "test.csv"})
    assert set(scores.metrics) == {"knn", "zero_shot", "zero_shot_per_class"}
    assert all(np.isfinite(list(scores.metrics.values())))


def test_names_come_from_the_knowledge_base_where_it_knows_them(tmp_path, model):
    build_kb(fruit.write_catalogue(tmp_path), out=tmp_path / "kb")
    photos = fruit.write_listing(tmp_path / "photos") / "test.csv"
    [plain] = evaluate(model, data={"x": photos})
    [named] = evaluate(model, data={"x": photos}, kb=tmp_path / "kb", out=tmp_path / "s")
    assert named.metrics["retrieval_map"] == plain.metrics["retrieval_map"]
    [record] = json.loads((tmp_path / "s/scores.json").read_text())
    assert record["metrics"] == pytest.approx(named.metrics)
    assert (record["dataset"], record["images"], record["classes"]) == ("x", 12, 3)


def test_the_model_that_made_the_images_scores_perfectly(tmp_path):
    """A model whose vectors are the labels themselves: every measure must be 1."""

    class Oracle:
        dim = 3

        class transform:
            draft_size = None

            size = 8

            @staticmethod
            def fit(image):
                return np.asarray(image.resize((8, 8)))

        def encode_pixels(self, pixels):
            means = pixels.reshape(len(pixels), -1, 3).mean(1)
            colours = np.array(list(fruit.COLOURS.values()))
            nearest = np.square(means[:, None] - colours).sum(2).argmin(1)
            return np.eye(3, dtype=np.float32)[nearest]

        def encode_texts(self, texts):
            return np.eye(3, dtype=np.float32)[
                [[n in text for n in fruit.NAMES].index(True) for text in texts]
            ]

    [scores] = evaluate(Oracle(), data={"x": fruit.write_listing(tmp_path) / "test.csv"})
    assert set(scores.metrics.values()) == {1.0}
