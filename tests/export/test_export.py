"""Exports, read back by the plain tools of their formats."""

import hashlib
import io
import json
import tarfile
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

import fruit
from labelled import candidate, pair, write_i2e
from openmofi.config import SelectSettings
from openmofi.errors import InputError, SettingsError
from openmofi.export import export
from openmofi.pairs import find_shards, read_shard
from openmofi.select import select

BY_TEXT = SelectSettings(order="text-first", threshold=1.0, min_images=1)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A selection of 7 images, two of which are gone or damaged since; their bytes by key."""
    folder = tmp_path_factory.mktemp("export")
    photos = {f"p/{i}.1": fruit.photo("red", i) for i in range(5)}
    photos["png"] = fruit.photo("lime", 9, kind="PNG")
    rows = [pair(key, candidate("red", z=3.0), caption=f"“äpple” {key}") for key in photos]
    rows[1]["entities"].append(candidate("lime", z=2.0, text=0.4, start=9))
    rows += [pair("gone", candidate("red", z=3.0)), pair("bad", candidate("red", z=3.0))]
    (folder / "p").mkdir()
    for key, data in (photos | {"bad": b"no image"}).items():
        (folder / f"{key}.jpg").write_bytes(data)
    i2e = write_i2e(folder, rows)
    return select(i2e, settings=BY_TEXT).out, photos


@pytest.fixture(scope="module")
def selection(made):
    return made[0]


@pytest.fixture(scope="module")
def webdataset(made, tmp_path_factory):
    return export(made[0], out=tmp_path_factory.mktemp("w") / "wds", shard_size=4)


@pytest.fixture(scope="module")
def huggingface(made, tmp_path_factory):
    out = tmp_path_factory.mktemp("h") / "hf"
    return export(made[0], out=out, format="huggingface", shard_size=4, license="cc0-1.0")


def _members(folder):
    """Returns {key: {extension: bytes}} of all tars."""
    samples = {}
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as archive:
            for info in archive:
                key, extension = info.name.split(".")
                samples.setdefault(key, {})[extension] = archive.extractfile(info).read()
    return samples


def test_a_webdataset_holds_the_original_bytes(webdataset, made):
    samples = _members(webdataset.out)
    found = {}
    for files in samples.values():
        about = json.loads(files["json"])
        [extension] = files.keys() - {"json", "txt"}
        assert hashlib.sha256(files[extension]).hexdigest() == about["sha256"]
        assert files["txt"].decode() == about["caption"] == f"“äpple” {about['source_key']}"
        found[about["source_key"]] = files[extension]
    assert found == made[1]
    assert len(samples) == 6


def test_an_image_keeps_its_kind_and_its_entities(webdataset):
    about = {json.loads(f["json"])["source_key"]: f for f in _members(webdataset.out).values()}
    assert "png" in about["png"]
    entities = json.loads(about["p/1.1"]["json"])["entities"]
    assert [(e["id"], e["label"]) for e in entities] == [("red", "Red Apple"), ("lime", "Lime")]
    assert entities[1]["score"] == pytest.approx(0.4)
    assert json.loads(about["png"]["json"])["width"] == 24


def test_beside_each_tar_lies_a_table_of_its_texts(webdataset):
    tables = [pq.read_table(path) for path in sorted(webdataset.out.glob("0*.parquet"))]
    rows = {row["key"]: row for row in pa.concat_tables(tables).to_pylist()}
    for key, files in _members(webdataset.out).items():
        about = json.loads(files["json"])
        scores = [entity.pop("score") for entity in (*about["entities"], *rows[key]["entities"])]
        assert len(set(np.round(scores, 5))) == len(scores) // 2
        assert about == rows[key]


def test_an_export_is_an_input_again(webdataset):
    found = find_shards(webdataset.out)
    pairs = [read_shard(found.root, shard).table for shard in found.shards]
    captions = [caption for table in pairs for caption in table["caption"].to_pylist()]
    assert captions[:2] == ["“äpple” p/0.1", "“äpple” p/1.1"]
    assert len(captions) == 6


def test_shards_hold_as_many_images_as_asked_for(webdataset, huggingface):
    assert (webdataset.files, huggingface.files) == (2, 2)
    tars = sorted(path.name for path in webdataset.out.glob("*.tar"))
    assert tars == ["00000.tar", "00001.tar"]
    parts = sorted((huggingface.out / "data").iterdir())
    assert [part.name for part in parts] == [f"train-0000{i}-of-00002.parquet" for i in (0, 1)]
    assert [pq.read_metadata(part).num_rows for part in parts] == [4, 2]


def test_images_that_cannot_be_read_are_left_out_and_counted(webdataset):
    assert webdataset.unreadable == {"image_missing": 1, "corrupt_image": 1}
    card = json.loads((webdataset.out / "card.json").read_text())
    assert card["export"]["unreadable"] == webdataset.unreadable
    assert card["export"]["images"] == webdataset.images == 6


def test_the_same_export_again_gives_the_same_bytes(selection, webdataset, tmp_path):
    again = export(selection, out=tmp_path / "wds", shard_size=4).out
    again = export(selection, out=again, shard_size=4).out  # takes the place of the first
    for path in webdataset.out.glob("*.tar"):
        assert path.read_bytes() == (again / path.name).read_bytes()


def test_a_hugging_face_folder_holds_images_with_their_feature(huggingface, made):
    table = pa.concat_tables(map(pq.read_table, sorted((huggingface.out / "data").iterdir())))
    rows = {row["source_key"]: row for row in table.to_pylist()}
    assert {key: row["image"]["bytes"] for key, row in rows.items()} == made[1]
    assert rows["png"]["image"]["path"].endswith(".png")
    features = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]
    assert features["image"] == {"_type": "Image"}
    assert features.keys() == set(table.column_names)
    Image.open(io.BytesIO(rows["p/0.1"]["image"]["bytes"])).verify()


def test_the_dataset_card_has_a_head_and_the_funnel(huggingface):
    _, head, text = (huggingface.out / "README.md").read_text().split("---\n", 2)
    head = yaml.safe_load(head)
    assert (head["license"], head["size_categories"]) == ("cc0-1.0", ["n<1K"])
    assert head["dataset_info"]["splits"][0]["num_examples"] == 6
    assert "| pairs | 8 |" in text
    assert (huggingface.out / "vocabulary.parquet").is_file()


@pytest.mark.parametrize("kind", ["webdataset", "huggingface"])
def test_croissant_names_every_file_with_its_hash(kind, request):
    folder = request.getfixturevalue(kind).out
    document = json.loads((folder / "croissant.json").read_text())
    assert document["conformsTo"] == "http://mlcommons.org/croissant/1.0"
    objects = [d for d in document["distribution"] if d["@type"] == "cr:FileObject"]
    assert len(objects) == (4 if kind == "webdataset" else 2)
    for item in objects:
        data = (folder / item["contentUrl"]).read_bytes()
        assert item["sha256"] == hashlib.sha256(data).hexdigest()
    ids = {d["@id"] for d in document["distribution"]}
    for field in (f for r in document["recordSet"] for f in r["field"]):
        assert field["source"]["fileSet"]["@id"] in ids


# ---- DataComp --------------------------------------------------------------------------------

UIDS = [hashlib.md5(bytes([i])).hexdigest() for i in range(6)]


def _with_uids(folder, kind):
    """Returns a selection whose images have uids in a sidecar, a Parquet shard, or as keys."""
    keys = UIDS if kind == "key" else [str(i) for i in range(6)]
    rows = [pair(key, candidate("red", z=3.0)) for key in keys]
    table = pa.table({"key": keys, "uid": UIDS})
    for number, row in enumerate(rows):
        if kind == "sidecar":
            row |= {"shard": "a/0.tar", "offset": 512, "path": ""}
        if kind == "rows":
            row |= {"shard": "a/0.parquet", "path": f"row:{5 - number}"}
        if kind == "beside":
            row |= {"shard": "", "path": f"a/{number}.jpg"}
    if kind == "rows":
        table = pa.table({"uid": UIDS[::-1]})
    (folder / "a").mkdir()
    if kind == "beside":
        for number, uid in enumerate(UIDS):
            (folder / f"a/{number}.json").write_text(json.dumps({"uid": uid}))
    elif kind != "key":
        pq.write_table(table, folder / "a/0.parquet")
    i2e = write_i2e(folder, rows[:4], rows[4:])
    return select(i2e, settings=BY_TEXT).out


@pytest.mark.parametrize("kind", ["sidecar", "rows", "key", "beside"])
def test_datacomp_gets_the_sorted_uids(tmp_path, kind):
    summary = export(_with_uids(tmp_path, kind), out=tmp_path / "out", format="datacomp")
    uids = np.load(summary.out / "uids.npy")
    assert uids.dtype == np.dtype("u8,u8")
    assert [f"{a:016x}{b:016x}" for a, b in uids.tolist()] == sorted(UIDS)


def test_datacomp_needs_uids(selection, tmp_path):
    with pytest.raises(InputError, match="8 of 8 kept images have no uid of 32 hex digits"):
        export(selection, out=tmp_path / "out", format="datacomp")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("format", ["webdataset", "huggingface"])
def test_what_was_exported_can_be_labelled_again(selection, tmp_path, format):
    summary = export(selection, out=tmp_path / "out", format=format)
    source = find_shards(summary.out)
    tables = [read_shard(source.root, shard).table for shard in source.shards]
    rows = [row for table in tables for row in table.to_pylist()]
    assert {row["error"] for row in rows} == {""}
    assert len(rows) == summary.images


# ---- mistakes --------------------------------------------------------------------------------


def test_another_folder_is_never_replaced(selection, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("all of it")
    with pytest.raises(InputError, match="exists and is not an export"):
        export(selection, out=tmp_path / "mine")
    with pytest.raises(InputError, match="exists and is not an export"):
        export(selection, out=selection)


def test_what_is_no_selection_says_so(tmp_path):
    with pytest.raises(InputError, match="is not a selection; pass I2E/select/NAME"):
        export(tmp_path, out=tmp_path / "out")


@pytest.mark.parametrize("given", [{"shard_size": 0}, {"format": "tfrecord"}])
def test_impossible_settings_are_refused(selection, tmp_path, given):
    with pytest.raises(SettingsError, match="expected"):
        export(selection, out=tmp_path / "out", **given)


def test_an_export_without_any_image_is_none(tmp_path):
    make = partial(select, settings=BY_TEXT)
    out = make(write_i2e(tmp_path, [pair("a", candidate("red", z=3.0))])).out
    with pytest.raises(InputError, match=r"can be read \(image_missing 1\)"):
        export(out, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
