"""Labels whose uncertain mentions a reader of hard mentions has read."""

import json
import shutil
from dataclasses import replace

import pyarrow.parquet as pq
import pytest

import fruit
from model.test_dual import write_text_encoder
from openmofi.config import FusionSettings, LabelSettings, SelectSettings
from openmofi.errors import InputError, MismatchError
from openmofi.evaluate.linking_data import read_linking
from openmofi.kb import KnowledgeBase, build_kb
from openmofi.label import label
from openmofi.link import Linker, WordEncoder
from openmofi.select import select
from openmofi.shards import commits
from openmofi.train.fusion import fit_fusion

# Of one name, so that the text has to choose.
CATALOGUE = """id,name,aliases,description,weight
red,cherry,,a red fruit,3
tree,cherry,,a tree of two,2
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    kb = build_kb(fruit.write_catalogue(folder, CATALOGUE), out=folder / "kb").out
    write_text_encoder(folder / "encoder", words=("a", "red", "fruit", "tree", "two", "cherry"))
    texts = [("a red cherry", "red"), ("two cherry", "tree")] * 60  # of one name
    lines = [
        {"sentence": text, "mentions": "cherry", "entities": "cherry", "answer": answer}
        for text, answer in texts
    ]
    (folder / "texts.jsonl").write_text("\n".join(map(json.dumps, lines)))
    knowledge = KnowledgeBase.open(kb)
    linker = Linker(knowledge, encoder=WordEncoder(knowledge))
    settings = FusionSettings(epochs=8, learning_rate=3e-3, heads=2)
    data = [read_linking(folder / "texts.jsonl")]
    where = {"encoder": folder / "encoder", "out": folder / "reader", "device": "cpu"}
    fit_fusion(linker, data, settings=settings, **where)
    fruit.write_pairs(folder / "pairs", shards=3, per_shard=8)
    return folder


SETTINGS = LabelSettings(workers=1, background=8, read_above=0)


def labelled(world, out, **changes):
    settings = replace(SETTINGS, **{"fusion": str(world / "reader"), **changes})
    pairs = world / "captions.csv"
    names = ["one", "two", "three"]
    rows = [f"{name}.png,{text}" for name, text in zip(names, CAPTIONS, strict=True)]
    pairs.write_text("\n".join(["file,caption", *rows]) + "\n")
    for name in names:
        if not (world / f"{name}.png").exists():
            fruit_image(world / f"{name}.png")
    label(pairs, kb=world / "kb", out=out, settings=settings)
    (file,) = (out / "labels").glob("*.parquet")
    return pq.read_table(file)


CAPTIONS = ["a red cherry", "two cherry", "a red cherry"]


def fruit_image(path):
    from PIL import Image

    Image.new("RGB", (32, 32), "red").save(path)


def test_labels_say_what_reading_added_and_scores_follow(world, tmp_path):
    plain = labelled(world, tmp_path / "plain", fusion=None)
    read = labelled(world, tmp_path / "read")
    assert "fusion" not in plain.schema.field("entities").type.value_type.names
    for row, (before, after) in enumerate(
        zip(plain["entities"].to_pylist(), read["entities"].to_pylist(), strict=True)
    ):
        added = {entity["id"]: entity["fusion"] for entity in after}
        right, other = ("red", "tree") if "red" in CAPTIONS[row] else ("tree", "red")
        assert added[right] > added[other] + 0.5
        share = {e["id"]: e["text_score"] for e in after}[right]
        assert share > {e["id"]: e["text_score"] for e in before}[right]


def test_what_is_certain_is_not_read(world, tmp_path):
    table = labelled(world, tmp_path / "i2e", read_above=0.99)
    entities = table["entities"].combine_chunks().flatten()
    assert entities.field("fusion").null_count == len(entities) > 0


def test_a_job_goes_on_with_the_same_reader_only(world, tmp_path):
    labelled(world, tmp_path / "i2e")
    run = json.loads((tmp_path / "i2e" / "run.json").read_text())
    assert len(run["fusion_sha256"]) == 16
    for changes in ({"fusion": None}, {"read_above": 0.5}):
        with pytest.raises(MismatchError):
            labelled(world, tmp_path / "i2e", **changes)


def test_what_is_no_reader_is_refused_before_the_job_begins(world, tmp_path):
    with pytest.raises(InputError, match="holds no fusion reader"):
        labelled(world, tmp_path / "i2e", fusion=str(world / "encoder"))
    with pytest.raises(InputError, match="change the context"):
        labelled(world, tmp_path / "i2e", context=str(world / "encoder"))
    assert not (tmp_path / "i2e").exists()


@pytest.mark.slow
def test_shards_are_the_same_bytes_whoever_labels_them(world, tmp_path, nano_dir):
    catalogue = fruit.write_catalogue(tmp_path)
    build_kb(catalogue, out=tmp_path / "kb")
    pairs, digests = world / "pairs", []
    for name, workers in (("one", 1), ("two", 2)):
        own = shutil.copytree(tmp_path / "kb", tmp_path / f"kb-{name}")  # no vectors there yet
        settings = replace(SETTINGS, fusion=str(world / "reader"), workers=workers)
        label(pairs, kb=own, model=str(nano_dir), out=tmp_path / name, settings=settings)
        digests.append({commit.shard: commit.sha256 for commit in commits(tmp_path / name)})
    assert digests[0] == digests[1]
    assert len(digests[0]) == 3
    found = select(tmp_path / "one", name="s", settings=SelectSettings(order="caption-match"))
    assert found.kept > 0
