"""A user's own catalogue and real shop photos, from the listing to the tags of a new image.

The captions are made from the names: most name the product, some only its kind, which several
products share, some another product, and some nothing at all.
"""

import contextlib
import csv
import json
import random

import numpy as np
import pyarrow.parquet as pq
import pytest

from openmofi.cli import app

TEMPLATES = ("fresh {} on a shelf", "{} in the shop", "our {}, today's offer", "a box of {}")
TRAIN = """
loss: {{text: {text}, supervised: {supervised}, mask_same_entity: false}}
model: {{image_size: 48, vocab_size: 1500}}
steps: {steps}
batch_size: {batch_size}
log_every: 10
threads: 1
"""
STORY = (
    "kb build catalogue.csv --out kb",
    "train boot.yaml --data captions.csv --out boot",
    "label captions.csv --kb kb --model boot/model --out i2e",
    "select i2e --false-label-rate 0.05 --min-images 3",
    "select i2e --name names --order caption-match --min-images 3",
    "inspect i2e --out look.html",
    "train multitask.yaml --data i2e/select/default --out run",
    "evaluate run/model --data shop=test.csv --kb kb --out scores",
    "embed run/model i2e/select/default --out emb.parquet",
    "index emb.parquet --out index",
)
PROMISED = (
    "kb/card.json",
    "boot/model/config.json",
    "i2e/plan.parquet",
    "i2e/select/default/keep.parquet",
    "look.html",
    "run/config.yaml",
    "run/metrics.jsonl",
    "run/model/entity_head",
    "scores/scores.json",
    "emb.parquet",
    "index/part-0001/vectors.faiss",
)


def _caption(entity, entities, rng):
    draw, name = rng.random(), entity["name"]
    if draw < 0.05:
        return "IMG_2041"
    if draw < 0.15:
        name = rng.choice(entities)["name"]
    elif draw < 0.30:
        name = entity["coarse"]
    return rng.choice(TEMPLATES).format(name)


def _read_csv(path):
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


def _write_csv(path, head, rows):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([head, *rows])


def _write_shop(grocery, folder):
    """Writes captions.csv and test.csv over a third of the photos; returns {file: true id}."""
    entities = _read_csv(grocery / "entities.csv")
    rng, truth, held_out = random.Random(0), {}, []
    (folder / "images").symlink_to(grocery / "images")
    captions = []
    for number, row in enumerate(_read_csv(grocery / "images.csv")):
        file, identifier = f"images/{row['file']}", row["class_id"]
        if number % 3 == 1 and number % 4 == 3:
            held_out.append((file, identifier))
        elif number % 3 == 0:
            truth[file] = identifier
            captions.append((file, _caption(entities[int(identifier)], entities, rng)))
    _write_csv(folder / "captions.csv", ("file", "caption"), captions)
    _write_csv(folder / "test.csv", ("file", "label"), held_out)
    # the kind of a product is a name that it shares with others of that kind
    catalogue = [(e["class_id"], e["name"], e["coarse"], e["description"]) for e in entities]
    _write_csv(folder / "catalogue.csv", ("id", "name", "aliases", "description"), catalogue)
    return truth


@pytest.fixture(scope="module")
def shop(tmp_path_factory, shared):
    """The folder after all stages, and the truth."""
    folder = tmp_path_factory.mktemp("shop")
    truth = _write_shop(shared / "grocery", folder)
    # An encoder that learnt less hardly tells what is shown, and select keeps as little.
    boot = TRAIN.format(text="[caption]", supervised=0, steps=200, batch_size=64)
    (folder / "boot.yaml").write_text(boot)
    names = "[name, description]"
    multitask = TRAIN.format(text=names, supervised=1, steps=150, batch_size=32)
    (folder / "multitask.yaml").write_text(multitask)
    with contextlib.chdir(folder):
        for line in STORY:
            app(line.split(), exit_on_error=False, result_action="return_value")
    return folder, truth


def _card(folder, name="default"):
    return json.loads((folder / "i2e/select" / name / "card.json").read_text())


def _precision(folder, truth, name):
    """Returns (share of right labels, number of labels)."""
    selection = folder / "i2e/select" / name
    ids = pq.read_table(selection / "vocabulary.parquet")["id"].to_pylist()
    keep = pq.read_table(selection / "keep.parquet").to_pylist()
    right = [ids[c] == truth[row["key"]] for row in keep for c in row["classes"]]
    return sum(right) / len(right), len(right)


def _json(capsys, folder, line):
    capsys.readouterr()
    with contextlib.chdir(folder):
        app(line.split(), exit_on_error=False, result_action="return_value")
    return json.loads(capsys.readouterr().out)


@pytest.mark.slow
@pytest.mark.parametrize("name", PROMISED)
def test_every_stage_leaves_what_it_promised(shop, name):
    assert (shop[0] / name).exists()


def test_every_pair_is_accounted_for(shop):
    folder, truth = shop
    for name in ("default", "names"):
        funnel = _card(folder, name)["funnel"]
        assert funnel["pairs"] == len(truth)
        assert funnel["kept_images"] + sum(funnel["refused"].values()) == len(truth)
        refused = pq.read_table(folder / "i2e/select" / name / "refused.parquet")
        assert len(refused) == sum(funnel["refused"].values())
    vectors = pq.read_metadata(folder / "emb.parquet").num_rows
    assert vectors == _card(folder)["funnel"]["kept_images"]


def test_labels_are_far_better_than_chance_and_than_names_alone(shop):
    folder, truth = shop
    (chosen, count), (named, _) = (_precision(folder, truth, n) for n in ("default", "names"))
    assert count > 64
    assert chosen > 0.75  # chance: one of 81
    assert chosen > named


def test_the_encoder_knows_the_products_of_photos_it_has_not_seen(shop):
    folder, _ = shop
    [record] = json.loads((folder / "scores/scores.json").read_text())
    assert record["unreadable"] == 0
    assert record["metrics"]["retrieval_map"] > 0.06  # chance: about 0.02


def test_a_photo_finds_itself_and_tags_name_products(shop, capsys):
    folder, _ = shop
    photos = pq.read_table(folder / "emb.parquet")
    vectors = np.stack(photos["vector"].to_numpy())
    # the one least like any other: an encoder that learnt so little calls many photos equal
    similarities = vectors @ vectors.T - 2 * np.eye(len(vectors))
    file = photos["path"][int(similarities.max(1).argmin())].as_py()
    hits = _json(capsys, folder, f"search index --image {file} --k 3 --json")
    assert hits[0]["path"] == file
    [found] = _json(capsys, folder, f"tag run/model {file} --kb kb --k 3 --json")
    assert len(found["tags"]) == 3
    assert all(tag["evidence"]["class_score"] == tag["score"] for tag in found["tags"])
    [entity] = hits[0]["entities"][:1]
    hits = _json(capsys, folder, f"search index --entity {entity} --k 5 --json")
    assert all(entity in hit["entities"] for hit in hits)
