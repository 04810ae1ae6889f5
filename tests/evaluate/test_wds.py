"""CLIP_benchmark's folders, whole and damaged."""

import pytest

import fruit
from conftest import write_tar
from openmofi.errors import InputError
from openmofi.evaluate.wds import is_wds, open_wds
from openmofi.pairs import ImageReader


def _split(folder, labels, *, extension="cls", shards=1, kind="webp"):
    """Writes images of red, green and lime in turn, as the webdataset builder does."""
    folder.mkdir(parents=True)
    (folder / "nshards.txt").write_text(f"{shards}\n")
    for shard in range(shards):
        members = {}
        for i, label in list(enumerate(labels))[shard::shards]:
            image = fruit.photo(fruit.NAMES[i % 3], i, kind=kind.upper().replace("JPG", "JPEG"))
            members[f"s{i:07d}.{extension}"] = str(label).encode()
            members[f"s{i:07d}.{kind}"] = image
        write_tar(folder / f"{shard}.tar", members)
    return folder


def _benchmark(root, labels=(2, 0, 1, 2), names="red\ngreen\nlime\nplum\n", **options):
    _split(root / "test", labels, **options)
    (root / "classnames.txt").write_text(names)
    (root / "zeroshot_classification_templates.txt").write_text("a {c}.\nthe {c}.\n")
    return root


@pytest.mark.parametrize("kind", ["webp", "png", "jpg"])
def test_labels_names_and_templates_are_read(tmp_path, kind):
    found = open_wds(_benchmark(tmp_path, kind=kind))
    assert is_wds(tmp_path)
    assert found.labels == ("2", "0", "1", "2")
    assert found.class_names == {"0": "red", "1": "green", "2": "lime", "3": "plum"}
    assert found.templates == ("a {c}.", "the {c}.")
    assert found.gallery is None


def test_each_image_has_its_own_label_over_all_shards(tmp_path):
    found = open_wds(_benchmark(tmp_path, tuple(range(3)) * 3, shards=2))
    reader = ImageReader(found.places.root)
    for row, label in zip(found.places.table.to_pylist(), found.labels, strict=True):
        number = int(row["key"][1:])
        assert reader.read(row) == fruit.photo(fruit.NAMES[int(label)], number, kind="WEBP")


def test_the_training_split_is_the_gallery(tmp_path):
    _split(tmp_path / "train", (1, 1, 0))
    found = open_wds(_benchmark(tmp_path))
    assert found.gallery.labels == ("1", "1", "0")
    assert found.gallery.class_names == found.class_names


@pytest.mark.parametrize(
    ("name", "first"), [("wds_vtab-caltech101", "accordion"), ("wds_mnist", "0"), ("other", None)]
)
def test_the_folders_name_stands_in_for_missing_class_names(tmp_path, name, first):
    _split(tmp_path / name / "test", (1, 0))
    found = open_wds(tmp_path / name)
    assert found.class_names.get("0") == first
    assert bool(found.templates) == (first is not None)


def test_captions_are_the_lines_of_a_text(tmp_path):
    _split(tmp_path / "test", ("a lime\nlime \n\n", "caf\u00e9"), extension="txt")
    (tmp_path / "dataset_type.txt").write_text("retrieval\n")
    assert open_wds(tmp_path).captions == (("a lime", "lime"), ("caf\u00e9",))


@pytest.mark.parametrize("label", ["4", "-1", "x", "1.0"])
def test_a_label_out_of_range_is_refused(tmp_path, label):
    with pytest.raises(InputError, match=rf"1 of 4 labels .* '{label}'; expected a number below 4"):
        open_wds(_benchmark(tmp_path, (0, 1, label, 2)))


@pytest.mark.parametrize(
    ("lost", "says"),
    [("s0000001.cls", "1 images have no .cls"), ("s0000001.webp", "1 .cls have no image")],
)
def test_an_image_without_a_label_or_a_label_without_an_image_is_refused(tmp_path, lost, says):
    members = {f"s000000{i}.cls": b"0" for i in range(3)}
    members |= {f"s000000{i}.webp": fruit.photo("red", i, kind="WEBP") for i in range(3)}
    del members[lost]
    write_tar(_benchmark(tmp_path) / "test" / "0.tar", members)
    with pytest.raises(InputError, match=rf"{says}.*'s0000001' in 0.tar"):
        open_wds(tmp_path)


def test_missing_shards_are_refused(tmp_path):
    _benchmark(tmp_path, shards=2)
    (tmp_path / "test" / "1.tar").unlink()
    with pytest.raises(InputError, match="holds 1 shards, but its nshards"):
        open_wds(tmp_path)


def test_a_shard_that_ends_early_is_refused(tmp_path):
    tar = _benchmark(tmp_path) / "test" / "0.tar"
    tar.write_bytes(tar.read_bytes()[:2500])
    with pytest.raises(InputError, match="truncated_tar"):
        open_wds(tmp_path)


def test_several_labels_per_image_are_refused(tmp_path):
    (_benchmark(tmp_path) / "dataset_type.txt").write_text("multilabel")
    with pytest.raises(InputError, match="'multilabel'; expected classification or retrieval"):
        open_wds(tmp_path)


def test_plain_tars_are_no_benchmark(tmp_path):
    fruit.write_pairs(tmp_path / "test")
    assert not is_wds(tmp_path)
    assert not is_wds(tmp_path / "test" / "0.tar")
