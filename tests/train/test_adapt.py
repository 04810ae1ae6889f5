"""Adapting on cached vectors: it helps where it can, is refused where not, and folds exactly."""

import csv
import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file

from indexed import write_embeddings
from openmofi import schema
from openmofi.config import AdaptSettings
from openmofi.errors import InputError, MismatchError, SettingsError
from openmofi.evaluate.metrics import average_precisions
from openmofi.kb import build_kb
from openmofi.model import load_model
from openmofi.model.class_rows import load_head_rows
from openmofi.tag import Tagger
from openmofi.train.adapt import adapt
from openmofi.train.linear_maps import apply_map

pytestmark = pytest.mark.slow

QUICK = {"steps": 60, "evaluate_every": 20, "batch_size": 128}


def _noisy(*, entities=60, each=8, dim=16, seed=0):
    """Vectors in which four dimensions tell the entity, and the rest is noise."""
    random = np.random.default_rng(seed)
    signal = random.normal(size=(entities, 4))
    signal /= np.linalg.norm(signal, axis=1, keepdims=True)
    vectors = 1.5 * random.normal(size=(entities * each, dim)) / dim**0.5
    vectors[:, :4] = np.repeat(signal, each, 0) + 0.05 * random.normal(size=(len(vectors), 4))
    return vectors.astype(np.float32), np.repeat(np.arange(entities), each)


def _write(folder, vectors, labels, name="label"):
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "v.npy", vectors)
    lines = "".join(f"e{label}\n" for label in labels)
    (folder / "labels.csv").write_text(f"{name}\n{lines}")
    return folder / "v.npy", folder / "labels.csv"


def _adapt(folder, vectors, labels, **changes):
    embeddings, csv_file = _write(folder, vectors, labels)
    return adapt(embeddings, labels=csv_file, out=folder / "run", changes=QUICK | changes)


def _map(folder, side="image"):
    return load_file(folder / "run" / "maps.safetensors")[side]


def _mapped(folder, vectors, side="image"):
    return apply_map(vectors, _tensor(_map(folder, side)), _tensor(_map(folder, f"{side}_mean")))


def _mean_ap(vectors, labels):
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return average_precisions(unit.astype(np.float32), labels, include_self=False).mean()


def _embeddings(path, vectors, *, ids=None, entities=None, model="", shard=""):
    """Writes what `openmofi embed` writes of images in a folder."""
    count = len(vectors)
    columns = {
        "id": ids or [f"k{i}" for i in range(count)],
        "shard": [shard] * count if isinstance(shard, str) else shard,
        "path": [f"{i}.jpg" for i in range(count)],
        "offset": [-1] * count,
        "size": [0] * count,
        "caption": [""] * count,
        "entities": entities or [[]] * count,
    }
    return write_embeddings(path, vectors, model=model, **columns)


def test_unseen_entities_are_told_apart_better_once_the_noise_is_out(tmp_path):
    vectors, labels = _noisy()
    summary = _adapt(tmp_path, vectors, labels)
    new, new_labels = _noisy(seed=1)
    assert summary.adapted
    assert summary.after["unseen"] > summary.before["unseen"] + 0.05
    assert _mean_ap(_mapped(tmp_path, new), new_labels) > _mean_ap(new, new_labels) + 0.05


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_labels_by_chance_take_off_the_mean_at_most(tmp_path, seed):
    vectors, labels = _noisy(seed=seed)
    shuffled = np.random.default_rng(seed).permutation(labels)
    summary = _adapt(tmp_path, vectors, shuffled, seed=seed)
    assert summary.start in ("identity", "centred")
    assert ("No map was better" in summary.note) == (not summary.adapted)
    np.testing.assert_allclose(_map(tmp_path), np.eye(16))


def test_the_identity_still_comes_with_class_rows_that_are_the_means(tmp_path):
    vectors, labels = _noisy(entities=10)
    _adapt(tmp_path, vectors, np.random.default_rng(0).permutation(labels), learning_rate=0.0)
    rows, ids = load_head_rows(tmp_path / "run" / "entity_head")
    assert ids == sorted(f"e{i}" for i in range(10))
    assert rows.shape == (10, 16)


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_any_integer_is_a_seed(tmp_path, seed):
    _adapt(tmp_path, *_noisy(), seed=seed)
    assert np.isfinite(_map(tmp_path)).all()


def test_the_same_seed_gives_the_same_maps(tmp_path):
    vectors, labels = _noisy()
    for name in ("a", "b"):
        _adapt(tmp_path / name, vectors, labels, pull=1.0)
    np.testing.assert_array_equal(_map(tmp_path / "a"), _map(tmp_path / "b"))


def test_the_card_says_what_was_done_and_measured(tmp_path):
    vectors, labels = _noisy()
    summary = _adapt(tmp_path, vectors, labels, pull=1.0)
    card = json.loads((tmp_path / "run" / "adapt.json").read_text())
    lines = [json.loads(s) for s in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert card["before"] == summary.before == {k: lines[0][k] for k in summary.before}
    assert card["after"]["mean"] == max(line["mean"] for line in lines)
    assert card["settings"]["steps"] == 60
    assert card["vectors"] == 480
    assert card["entities"] == 60


def test_a_run_replaces_an_older_one_and_nothing_else(tmp_path):
    vectors, labels = _noisy()
    _adapt(tmp_path, vectors, labels, pull=1.0)
    _adapt(tmp_path, vectors, labels, pull=1.0)
    (tmp_path / "run" / "adapt.json").unlink()
    with pytest.raises(InputError, match="exists and is not the output"):
        _adapt(tmp_path, vectors, labels)


@pytest.fixture(scope="module")
def encoder(nano_dir):
    return load_model(str(nano_dir), device="cpu")


def _encoded(encoder, tmp_path, *, model):
    """Embeddings in the encoder's space, whose file names the encoder."""
    vectors, labels = _noisy(dim=encoder.dim)
    entities = [[f"e{label}"] for label in labels]
    return _embeddings(tmp_path / "e.parquet", vectors, entities=entities, model=model)


def test_the_folded_checkpoint_gives_what_the_maps_give(tmp_path, nano_dir, encoder):
    source = _encoded(encoder, tmp_path, model=nano_dir)
    summary = adapt(source, out=tmp_path / "run", changes=QUICK, device="cpu")
    assert summary.adapted
    adapted = load_model(tmp_path / "run" / "model", device="cpu")
    side = encoder.transform.size
    pixels = np.random.default_rng(5).integers(0, 256, (3, side, side, 3), dtype=np.uint8)
    expected = _mapped(tmp_path, encoder.encode_pixels(pixels))
    np.testing.assert_allclose(adapted.encode_pixels(pixels), expected, atol=1e-5)
    card = (tmp_path / "run/model/README.md").read_text()
    assert "zero-shot" not in card  # the images were moved, and no text was looked at


def test_texts_are_mapped_with_the_text_map(tmp_path, nano_dir, encoder):
    source = _encoded(encoder, tmp_path, model=nano_dir)
    with (tmp_path / "t.csv").open("w", newline="") as file:
        rows = [("id", "name", "description")]
        csv.writer(file).writerows(rows + [(f"e{i}", f"flag {i}", "a flag") for i in range(60)])
    changes = QUICK | {"contrastive": 0.05}  # the texts of an untrained tower teach nothing
    summary = adapt(source, texts=tmp_path / "t.csv", out=tmp_path / "run", changes=changes)
    assert summary.adapted
    text_map = _map(tmp_path, "text")
    assert np.abs(text_map - np.eye(len(text_map))).max() > 1e-3
    expected = _mapped(tmp_path, encoder.encode_texts(["flag of georgia"]), "text")
    found = load_model(tmp_path / "run" / "model", device="cpu").encode_texts(["flag of georgia"])
    np.testing.assert_allclose(found, expected, atol=1e-5)
    card = (tmp_path / "run/model/README.md").read_text()
    assert "zero-shot-image-classification" in card.splitlines()[2]


def test_an_encoder_of_images_alone_names_entities_by_their_rows(tmp_path, vit_dir, rng):
    vit = load_model(str(vit_dir), device="cpu")
    source = _encoded(vit, tmp_path, model=vit_dir)
    adapt(source, out=tmp_path / "run", changes=QUICK, device="cpu")
    (tmp_path / "kb.csv").write_text("id,name\n" + "".join(f"e{i},flag {i}\n" for i in range(60)))
    tagger = Tagger(tmp_path / "run/model", build_kb(tmp_path / "kb.csv", out=tmp_path / "kb").out)
    rows, ids = load_head_rows(tmp_path / "run/entity_head")
    assert tagger.ids == ids
    [answer] = tagger.answer(rows[7:8].numpy())
    assert answer.tags[0].id == ids[7]
    assert answer.tags[0].evidence.text_score is None


def _tensor(array):
    import torch

    return torch.from_numpy(array)


def test_written_embeddings_are_the_mapped_ones_of_every_row(tmp_path, nano_dir, encoder):
    source = _encoded(encoder, tmp_path, model=nano_dir)
    adapt(source, out=tmp_path / "run", changes=QUICK, write_embeddings=True)
    written = pq.read_table(tmp_path / "run" / "embeddings.parquet")
    before = pq.read_table(source)
    assert written.schema.equals(schema.embeddings(encoder.dim))
    assert written.schema.metadata[b"openmofi.model"].decode() == str(tmp_path / "run" / "model")
    assert written["id"].equals(before["id"])
    old = np.array(before["vector"].to_pylist(), np.float32)
    new = np.array(written["vector"].to_pylist(), np.float32)
    np.testing.assert_allclose(new, _mapped(tmp_path, old), atol=1e-3)


def test_an_encoder_that_cannot_be_found_costs_only_the_checkpoint(tmp_path, encoder):
    source = _encoded(encoder, tmp_path, model="/nowhere/model")
    summary = adapt(source, out=tmp_path / "run", changes=QUICK | {"pull": 1.0})
    assert summary.model is None
    assert "not folded" in summary.note
    assert not (tmp_path / "run" / "model").exists()


def test_a_projection_with_a_bias_is_not_folded(tmp_path, nano_dir):
    import torch

    model = load_model(str(nano_dir), device="cpu")
    model.network.visual_projection.bias = torch.nn.Parameter(torch.zeros(model.dim))
    source = _encoded(model, tmp_path, model="")
    changes = QUICK | {"pull": 1.0}
    summary = adapt(source, model=model, out=tmp_path / "run", changes=changes)
    assert summary.model is None
    assert "two projections without bias" in summary.note


def test_a_model_in_memory_is_left_as_it_was(tmp_path, nano_dir):
    model = load_model(str(nano_dir), device="cpu")
    before = model.network.visual_projection.weight.detach().clone()
    source = _encoded(model, tmp_path, model="")
    adapt(source, model=model, out=tmp_path / "run", changes=QUICK | {"pull": 1.0})
    assert (model.network.visual_projection.weight == before).all()


def test_labels_are_found_by_key_by_path_and_within_shards(tmp_path):
    vectors, labels = _noisy()
    keys = [f"k{i % 240}" for i in range(480)]
    shards = ["a.tar"] * 240 + ["b.tar"] * 240
    source = _embeddings(tmp_path / "e.parquet", vectors, ids=keys, shard=shards)
    order = np.random.default_rng(0).permutation(480)
    texts = {
        "key,shard,label": [f"{keys[i]},{shards[i]},e{labels[i]}" for i in order],
        "path,class_id": [f"{i}.jpg,e{labels[i]}" for i in order],
    }
    maps = []
    for head, lines in texts.items():
        (tmp_path / "l.csv").write_text("\n".join([head, *lines]) + "\n")
        changes = QUICK | {"pull": 1.0}
        adapt(source, labels=tmp_path / "l.csv", out=tmp_path / "run", changes=changes)
        maps.append(_map(tmp_path))
    np.testing.assert_array_equal(*maps)


def test_vectors_and_labels_without_counterpart_are_counted(tmp_path):
    vectors, labels = _noisy()
    source = _embeddings(tmp_path / "e.parquet", vectors)
    lines = [f"k{i},e{label}" for i, label in enumerate(labels) if i >= 3] + ["gone,e1"]
    (tmp_path / "l.csv").write_text("\n".join(["id,label", *lines]) + "\n")
    changes = QUICK | {"pull": 1.0}
    summary = adapt(source, labels=tmp_path / "l.csv", out=tmp_path / "run", changes=changes)
    assert summary.dropped == {"no_label": 3, "label_without_image": 1}
    assert summary.vectors == 477


def _fails(tmp_path, match, *, error=InputError, **arguments):
    with pytest.raises(error, match=match) as caught:
        adapt(**({"out": tmp_path / "run"} | arguments))
    assert str(caught.value).count(". ") == 0, "one sentence"


def test_missing_and_empty_files_are_named(tmp_path):
    _fails(tmp_path, "There is no file", embeddings=tmp_path / "no.parquet")
    (tmp_path / "bad.parquet").write_bytes(b"nothing")
    _fails(tmp_path, "not a readable", embeddings=tmp_path / "bad.parquet")
    embeddings, labels = _write(tmp_path, np.zeros((0, 4), np.float32), [])
    _fails(tmp_path, "holds no vectors", embeddings=embeddings, labels=labels)
    embeddings, labels = _write(tmp_path, np.ones((3, 4), np.float32), [])
    _fails(tmp_path, "holds no lines", embeddings=embeddings, labels=labels)
    _fails(tmp_path, "names no entities; pass --labels", embeddings=embeddings)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_vectors_that_are_no_numbers_are_refused(tmp_path, value):
    vectors, labels = _noisy()
    vectors[3, 1] = value
    embeddings, file = _write(tmp_path, vectors, labels)
    _fails(tmp_path, "1 of the 480 vectors", embeddings=embeddings, labels=file)


@pytest.mark.parametrize(
    ("labels", "match"),
    [([0] * 8, "name 1 entities"), ([0] * 4 + [1] * 4, "too few"), (range(8), "too few")],
)
def test_too_few_entities_are_refused(tmp_path, labels, match):
    embeddings, file = _write(tmp_path, np.eye(8, dtype=np.float32), labels)
    _fails(tmp_path, match, embeddings=embeddings, labels=file)


def test_labels_that_fit_no_vector_are_refused(tmp_path):
    vectors, labels = _noisy()
    embeddings, file = _write(tmp_path, vectors, labels[:-1])
    _fails(tmp_path, "has 479 lines for the 480", embeddings=embeddings, labels=file)
    source = _embeddings(tmp_path / "e.parquet", vectors)
    _fails(tmp_path, "expected the image in one of", embeddings=source, labels=file)
    (tmp_path / "l.csv").write_text("key,label\nx,y\n")
    _fails(tmp_path, "No key .* such as 'x'", embeddings=source, labels=tmp_path / "l.csv")
    _fails(tmp_path, "carries no entities", embeddings=source)
    twice = _embeddings(tmp_path / "t.parquet", vectors, ids=["x"] * 480)
    _fails(tmp_path, "is the id of 480 images", embeddings=twice, labels=tmp_path / "l.csv")


def test_an_encoder_of_another_width_is_refused(tmp_path, nano_dir):
    vectors, labels = _noisy()
    embeddings, file = _write(tmp_path, vectors, labels)
    arguments = {"embeddings": embeddings, "labels": file, "model": nano_dir}
    _fails(tmp_path, "have 16 dimensions but", error=MismatchError, **arguments)


def test_texts_need_an_encoder(tmp_path):
    vectors, labels = _noisy()
    embeddings, file = _write(tmp_path, vectors, labels)
    arguments = {"embeddings": embeddings, "labels": file, "texts": file}
    _fails(tmp_path, "does not name its encoder", **arguments)


@pytest.mark.parametrize("change", [{"holdout": 0.9}, {"steps": 0}, {"push": 1}])
def test_impossible_settings_are_refused(tmp_path, change):
    with pytest.raises(SettingsError):
        adapt(tmp_path / "no.npy", out=tmp_path / "run", changes=change)


def test_the_defaults_are_within_their_bounds():
    assert AdaptSettings().pull is None
