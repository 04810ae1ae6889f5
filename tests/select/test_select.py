"""The decision on a hand-made table of labels, in which every number is known."""

import json
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from labelled import (
    BY_TEXT,
    candidate,
    kept_labels,
    pair,
    refusal_reasons,
    select_by_text,
    write_i2e,
)
from openmofi.config import SelectSettings
from openmofi.errors import InputError, SettingsError
from openmofi.schema import KEEP, LABELS, REFUSED, SCORED_ENTITY, VOCABULARY
from openmofi.select import select
from openmofi.select.choose import read_mentions


@pytest.fixture
def i2e(tmp_path):
    """Makes an i2e folder from the rows of its shards."""
    return partial(write_i2e, tmp_path)


TWO_APPLES = (
    candidate("red", prior=0.7, text=0.2, z=0.0),
    candidate("green", prior=0.2, text=0.1, z=4.0),
    candidate("lime", prior=0.1, text=0.7, z=2.0),
)


@pytest.mark.parametrize(
    ("order", "chosen"), [("joint", "green"), ("text-first", "lime"), ("caption-match", "red")]
)
def test_each_order_goes_by_its_own_number(i2e, order, chosen):
    summary = select_by_text(i2e([pair("a", *TWO_APPLES)]), order=order, threshold=0.5)
    assert kept_labels(summary) == {"a": [chosen]}


@pytest.mark.parametrize(
    ("order", "threshold", "kept"),
    [("joint", 0.9999, 0), ("text-first", 5.0, 0), ("caption-match", 5.0, 1)],
)
def test_the_image_may_refuse_except_for_caption_match(i2e, order, threshold, kept):
    rows = [pair("a", *TWO_APPLES), pair("b", candidate("plum", z=9.0))]
    summary = select_by_text(i2e(rows), order=order, threshold=threshold)
    assert ("a" in kept_labels(summary)) == bool(kept)
    assert refusal_reasons(summary) == ({} if kept else {"a": "picture_disagrees"})


def test_every_pair_is_kept_or_refused_with_its_reason(i2e):
    rows = [
        pair("kept", candidate("red", z=3)),
        pair("too", candidate("red", z=2)),
        pair("rare", candidate("lime", z=3)),
        pair("wrong", candidate("red", z=-3)),
        pair("silent"),
        pair("broken", error="corrupt_image"),
    ]
    summary = select_by_text(i2e(rows), min_images=2)
    reasons = {"rare": "entity_too_rare", "wrong": "picture_disagrees", "silent": "no_mention"}
    assert refusal_reasons(summary) == reasons | {"broken": "corrupt_image"}
    assert set(kept_labels(summary)) == {"kept", "too"}
    assert summary.images == summary.kept + sum(summary.refused.values()) == 6


def test_the_funnel_of_the_card_adds_up_over_shards(i2e, rng):
    names = ["red", "green", "lime", "plum"]
    shards = [
        [
            pair(f"{s}-{i}", candidate(str(rng.choice(names)), z=float(rng.normal(1))))
            for i in range(40)
        ]
        for s in range(3)
    ]
    summary = select_by_text(i2e(*shards), min_images=5)
    funnel = json.loads((summary.out / "card.json").read_text())["funnel"]
    assert funnel["pairs"] == funnel["kept_images"] + sum(funnel["refused"].values()) == 120
    counts = pq.read_table(summary.out / "vocabulary.parquet")["images"].to_pylist()
    assert sum(counts) == funnel["kept_labels"] == sum(map(len, kept_labels(summary).values()))
    assert len(pq.read_table(summary.out / "refused.parquet")) == 120 - funnel["kept_images"]


def test_an_image_keeps_its_best_entities_each_once(i2e):
    row = pair(
        "a",
        candidate("red", z=2, text=0.5),
        candidate("plum", z=2, text=0.9, start=10),
        candidate("lime", z=2, text=0.7, start=20),
        candidate("lime", z=2, text=0.8, start=30),
    )
    assert kept_labels(select_by_text(i2e([row]), max_entities=2)) == {"a": ["plum", "lime"]}
    [kept] = pq.read_table(select_by_text(i2e([row])).out / "keep.parquet").to_pylist()
    assert kept["scores"] == pytest.approx([0.9, 0.8, 0.5])


def test_entities_beyond_the_limit_count_for_no_vocabulary(i2e):
    both = candidate("red", z=2, text=0.9), candidate("lime", z=2, text=0.1, start=9)
    summary = select_by_text(
        i2e([pair("a", *both), pair("b", *both)]), max_entities=1, min_images=2
    )
    assert kept_labels(summary) == {"a": ["red"], "b": ["red"]}
    assert summary.classes == 1


def test_the_vocabulary_lists_the_most_frequent_first_with_names(i2e):
    rows = [pair(str(i), candidate("lime", z=2)) for i in range(3)]
    summary = select_by_text(i2e([pair("x", candidate("red", z=2)), *rows]))
    [first, second] = pq.read_table(summary.out / "vocabulary.parquet").to_pylist()
    assert (first["id"], first["label"], first["images"]) == ("lime", "Lime", 3)
    assert (second["id"], second["description"]) == ("red", "a round red fruit")


def test_the_tables_have_the_documented_columns(i2e):
    out = select_by_text(i2e([pair("a", *TWO_APPLES), pair("b")])).out
    schemas = {"keep": KEEP, "refused": REFUSED, "vocabulary": VOCABULARY}
    assert all(pq.read_schema(out / f"{n}.parquet").equals(s) for n, s in schemas.items())


@pytest.mark.parametrize("order", ["joint", "text-first"])
def test_a_stricter_rate_keeps_fewer_labels(i2e, rng, order):
    zs = np.r_[rng.normal(4, 1, 200), rng.normal(0, 1, 200)]
    null = rng.normal(size=400)
    rows = [
        pair(str(i), candidate("red", z=float(zs[i]), other=float(null[i]))) for i in range(400)
    ]
    folder = i2e(rows)
    asked = [{"threshold": None, "order": order, "false_label_rate": r} for r in (0.3, 0.05, 0.01)]
    kept = [select_by_text(folder, **settings).kept for settings in asked]
    assert kept == sorted(kept, reverse=True)
    assert kept[0] > kept[-1] > 100


def test_selecting_again_replaces_that_selection_alone(i2e):
    folder = i2e([pair("a", *TWO_APPLES)])
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    select_by_text(folder, order="joint", threshold=0.5)
    select(folder, name="mine", settings=SelectSettings(**BY_TEXT))
    assert kept_labels(select_by_text(folder, order="caption-match")) == {"a": ["red"]}
    assert sorted(path.name for path in (folder / "select").iterdir()) == ["default", "mine"]
    assert all(path.read_bytes() == data for path, data in before.items())


def test_shards_that_are_not_labelled_yet_are_mentioned(i2e):
    folder = i2e([pair("a", *TWO_APPLES)], [pair("b", *TWO_APPLES)])
    (folder / "_done/s1.json").unlink()
    assert select_by_text(folder).missing_shards == 1


@pytest.mark.parametrize("name", ["..", "../../x", "a/b", "", ".hidden"])
def test_a_name_that_leads_elsewhere_isrefused(i2e, name):
    folder = i2e([pair("a", *TWO_APPLES)])
    with pytest.raises(SettingsError, match="cannot be called"):
        select(folder, name=name)
    assert (folder / "run.json").is_file()


def test_captions_without_any_name_point_at_the_knowledge_base(i2e):
    with pytest.raises(InputError, match=r"No caption of .* names an entity"):
        select_by_text(i2e([pair("a"), pair("b", error="no_caption")]))


def test_nothing_kept_is_explained_and_replaces_nothing(i2e):
    folder = i2e([pair("a", *TWO_APPLES)])
    select_by_text(folder)
    with pytest.raises(InputError, match="of 1 names in captions 0 agree"):
        select_by_text(folder, threshold=50.0)
    with pytest.raises(InputError, match="no entity has 9 images"):
        select_by_text(folder, min_images=9)
    assert (folder / "select/default/keep.parquet").is_file()


def test_labels_of_older_versions_are_read(tmp_path, rng):
    """They hold one mismatched number, or null, in place of a list."""
    path, tables = tmp_path / "old.parquet", []
    rows = [pair(str(i), candidate("red", z=float(rng.normal(3)), other=float(i))) for i in "123"]
    rows.append(pair("4", candidate("red", z=1.0, other=None)))
    new = pa.Table.from_pylist(rows, schema=LABELS)
    for row in rows:
        for one in row["entities"]:
            one["clip_z_other"] = one["clip_z_other"][0] if one["clip_z_other"] else None
    fields = [f.with_type(pa.float32()) if f.name == "clip_z_other" else f for f in SCORED_ENTITY]
    place = LABELS.get_field_index("entities")
    older = LABELS.set(place, pa.field("entities", pa.list_(pa.struct(fields))))
    for table in (new, pa.Table.from_pylist(rows, schema=older)):
        pq.write_table(table, path)
        tables.append(read_mentions(path, "joint").clip_z_other)
    np.testing.assert_array_equal(tables[0][:, :1], tables[1])
    assert tables[1].shape == (4, 1)
    assert np.isnan(tables[0][:, 1:]).all()
