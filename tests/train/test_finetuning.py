"""Fine-tuning a pretrained encoder: step sizes by layer, class rows from means, WiSE-FT, labels."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import fruit
from model.tiny_models import write_model
from openmofi.config import EvaluationSettings
from openmofi.errors import InputError, SettingsError
from openmofi.model import load_model
from openmofi.model.class_rows import load_head_rows
from openmofi.train import train
from openmofi.train.data import open_train_data
from openmofi.train.data_vectors import class_means, encode_data
from openmofi.train.distributed import World
from openmofi.train.layers import layer_distances
from openmofi.train.loop import make_model
from openmofi.train.run import Run
from openmofi.train.wise_ft import SHARES, WeightAverage, choose_share
from selected import tiny, write_selected

_WORLD = World(0, 1, torch.device("cpu"))
_HELD_OUT = {"holdout": 0.25, "every": 100}
WISE = {"wise_ft": True, "head": {"start": "means"}, "evaluation": _HELD_OUT}


def _init(folder, kind="clip", **optim):
    init = {"init": str(write_model(folder / f"init-{kind}", kind)), "image_size": None}
    return {"model": init, "optim": {"learning_rate": 1e-3, **optim}}


def _run(folder, **changes):
    settings, data = tiny(**changes), open_train_data(write_selected(folder / "data"))
    return Run(make_model(settings, data, device="cpu"), data, settings, _WORLD)


def test_layers_lie_evenly_between_the_output_and_the_embeddings(tmp_path):
    network = load_model(write_model(tmp_path, "clip"), device="cpu").network
    distances = layer_distances(network)
    layers = len(network.vision_model.encoder.layers)
    for number in range(layers):
        name = f"vision_model.encoder.layers.{number}.mlp.fc1.weight"
        assert distances[name] == pytest.approx((layers - number) / (layers + 1))
    assert distances["vision_model.embeddings.patch_embedding.weight"] == 1
    assert distances["text_model.embeddings.token_embedding.weight"] == 1
    for name in ("vision_model.post_layernorm.weight", "visual_projection.weight", "logit_scale"):
        assert distances[name] == 0


def test_stages_layers_are_layers_and_what_lies_inside_them_is_not():
    from transformers import ConvNextConfig, ConvNextModel

    network = torch.nn.Module()
    network.vision_model = ConvNextModel(
        ConvNextConfig(num_stages=2, hidden_sizes=[8, 8], depths=[1, 2])
    )
    found = layer_distances(network)
    inside = [d for name, d in found.items() if ".stages.1.layers.1." in name]
    assert len(inside) > 3
    assert set(inside) == {min(d for d in found.values() if d > 0)}


def test_the_step_size_falls_geometrically_towards_the_first_layer(tmp_path):
    run = _run(tmp_path, **_init(tmp_path, first_layer_factor=0.01, text_learning_rate_factor=0.5))
    peaks = {id(p): g["peak"] for g in run.optimizer.param_groups for p in g["params"]}
    distances = layer_distances(run.model.network)
    for name, parameter in run.model.network.named_parameters():
        if parameter.requires_grad and not name.endswith("token_embedding.weight"):
            factor = 0.5 if name.startswith("text_") else 1.0
            expected = 1e-3 * factor * 0.01 ** distances[name]
            assert peaks[id(parameter)] == pytest.approx(expected), name


@pytest.mark.slow
def test_a_factor_of_zero_trains_only_what_follows_the_last_layer(tmp_path):
    changes = _init(tmp_path, first_layer_factor=0.0)
    train(tiny(**changes), data=write_selected(tmp_path / "data"), out=tmp_path / "run")
    before, after = (
        load_file(folder / "model.safetensors")
        for folder in (tmp_path / "init-clip", tmp_path / "run/model")
    )
    moved = {name for name in after if not torch.equal(before[name], after[name])}
    assert "visual_projection.weight" in moved
    assert not [name for name in moved if ".layers." in name or ".embeddings." in name]


@pytest.mark.slow
@pytest.mark.parametrize(("factor", "kept"), [(0.99, True), (1.0, False)])
def test_batch_norms_keep_their_statistics_where_early_layers_go_slower(tmp_path, factor, kept):
    changes = _init(tmp_path, "mobilenet", first_layer_factor=factor)
    data = write_selected(tmp_path / "data")
    train(tiny(**changes, micro_batch_size=3), data=data, out=tmp_path / "run")
    before, after = (
        load_file(folder / "model.safetensors")
        for folder in (tmp_path / "init-mobilenet", tmp_path / "run/model")
    )
    names = [name for name in after if name.endswith("running_var")]
    assert names
    assert all(torch.equal(before[name], after[name]) for name in names) == kept


def test_class_rows_begin_as_the_means_of_their_images(tmp_path):
    run = _run(tmp_path, **_init(tmp_path), head={"start": "means"})
    data = open_train_data(tmp_path / "data/select")
    vectors, rows = encode_data(run.model, data, _WORLD)
    targets, before = data.targets(rows)[:, 0], run.head.rows_ND.clone()
    means = class_means(run.model, data.take(np.flatnonzero(targets != 1)), _WORLD, seed=0)
    run = Run(run.model, data, run.settings, _WORLD, start_rows=means)
    for number in (0, 2):
        slow = sum(v.astype(float) for v, t in zip(vectors, targets, strict=True) if t == number)
        expected = slow / np.linalg.norm(slow)
        np.testing.assert_allclose(run.head.rows_ND[number].numpy(), expected, atol=1e-6)
    assert torch.equal(run.head.rows_ND[1], before[1])  # a class without images stays as it was


def test_at_most_sixteen_images_of_a_class_are_asked_and_all_where_there_are_fewer(
    tmp_path, monkeypatch
):
    data, asked = open_train_data(write_selected(tmp_path, images=60)), []
    model = load_model(write_model(tmp_path / "clip", "clip"), device="cpu")

    def encode(model, some, world):
        asked.extend(some.targets(np.arange(len(some)))[:, 0].tolist())
        return encode_data(model, some, world)

    monkeypatch.setattr("openmofi.train.data_vectors.encode_data", encode)
    class_means(model, data, _WORLD, seed=0)
    assert np.bincount(asked).tolist() == np.minimum(data.class_counts, 16).tolist()


def _scores(known, unseen):
    return {"heldout_retrieval_map": known, "heldout_unseen_retrieval_map": unseen}


@pytest.mark.parametrize(
    ("unseen", "share"),
    [
        ((0.5, 0.6, 0.7, 0.6, 0.5), 0.5),
        ((0.5, 0.4, 0.4, 0.4, 0.4), 0.0),  # known things gain, but others lose
        ((0.5, 0.5, 0.5, 0.5, 0.5), 1.0),
        ((0.5, 0.4, 0.9, 0.4, 0.6), 0.5),
        ((0.5, 0.5, 0.5, 0.499, 0.496), 0.75),  # less than a tenth of what known things gain
    ],
)
def test_the_mean_that_gains_most_is_chosen_where_losses_count_tenfold(unseen, share):
    found = dict(zip(SHARES, unseen, strict=True))
    choice = choose_share(lambda s: _scores(0.5 + s / 10, found[s]))
    assert choice.share == share
    assert choice.start == _scores(0.5, 0.5)
    assert choice.scores == _scores(0.5 + share / 10, found[share])
    assert choice.tried == {f"{s:g}": _scores(0.5 + s / 10, found[s]) for s in SHARES}


def test_of_equal_means_the_one_nearest_to_the_start_is_chosen():
    assert choose_share(lambda _: _scores(0.5, 0.5)).share == 0
    assert choose_share(lambda s: {"heldout_image_to_text_r1": min(s, 0.5)}).share == 0.5
    assert choose_share(lambda _: {}) is None


@pytest.mark.slow
def test_where_nothing_can_be_compared_the_last_weights_are_saved_with_a_warning(tmp_path, capsys):
    changes = _init(tmp_path) | WISE | {"evaluation": {"holdout": 0.04, "every": 100}}
    summary = train(tiny(**changes), data=write_selected(tmp_path / "data"), out=tmp_path / "run")
    assert summary.choice is None
    assert "the last are saved" in capsys.readouterr().err
    before, after = (
        load_file(folder / "model.safetensors")
        for folder in (tmp_path / "init-clip", tmp_path / "run/model")
    )
    assert not torch.equal(before["visual_projection.weight"], after["visual_projection.weight"])


@pytest.mark.slow
def test_a_training_that_spoils_the_encoder_leaves_it_as_it_was(tmp_path):
    changes = _init(tmp_path, learning_rate=3.0) | WISE
    summary = train(tiny(**changes), data=write_selected(tmp_path / "data"), out=tmp_path / "run")
    assert summary.choice.share == 0
    assert summary.scores == summary.choice.start
    before, after = (
        load_file(folder / "model.safetensors")
        for folder in (tmp_path / "init-clip", tmp_path / "run/model")
    )
    assert all(torch.equal(before[name], after[name]) for name in after)
    assert "0% of the way" in (tmp_path / "run/model/README.md").read_text()
    assert json.loads((tmp_path / "run/wise_ft.json").read_text())["share"] == 0


@pytest.mark.slow
def test_what_is_saved_is_the_mean_of_the_first_and_the_last_weights(tmp_path, monkeypatch):
    changes = _init(tmp_path, "mobilenet") | WISE
    data = write_selected(tmp_path / "data")
    weights = {}
    for share in (0.0, 0.25, 1.0):
        monkeypatch.setattr(
            "openmofi.train.loop.choose_share",
            lambda measure, share=share: WeightAverage(share, measure(share), {}, {}),
        )
        out = tmp_path / f"run-{share}"
        train(tiny(**changes), data=data, out=out)
        rows, _ = load_head_rows(out / "model/entity_head")
        weights[share] = load_file(out / "model/model.safetensors") | {"rows": rows}
    first, some, last = weights.values()
    assert not torch.equal(first["rows"], last["rows"])
    for name in set(some) - {"rows"}:
        if some[name].is_floating_point():
            torch.testing.assert_close(some[name], torch.lerp(first[name], last[name], 0.25))
    mean = torch.nn.functional.normalize(torch.lerp(first["rows"], last["rows"], 0.25), dim=-1)
    torch.testing.assert_close(some["rows"], mean, atol=1e-3, rtol=0)


@pytest.mark.slow
def test_a_resumed_run_averages_with_the_same_start(tmp_path):
    changes, data = _init(tmp_path) | WISE, write_selected(tmp_path / "data")
    train(tiny(**changes), data=data, out=tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    shutil.rmtree(tmp_path / "cut/model")
    (tmp_path / "cut/wise_ft.json").unlink()
    (tmp_path / "cut/checkpoints/latest").write_text("step-2\n")
    train(tiny(**changes), data=data, out=tmp_path / "cut", resume=True)
    choices = [(tmp_path / name / "wise_ft.json").read_text() for name in ("whole", "cut")]
    assert choices[0] == choices[1]
    rows = [load_head_rows(tmp_path / n / "model/entity_head")[0] for n in ("whole", "cut")]
    assert torch.equal(*rows)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"wise_ft": True, "head": {"start": "means"}}, "evaluation.holdout"),
        ({"wise_ft": True, "evaluation": _HELD_OUT, "model": {"init": None}}, "model.init"),
        ({"wise_ft": True, "evaluation": _HELD_OUT}, "head.start=means"),
    ],
)
def test_an_average_without_what_it_needs_is_refused(tmp_path, changes, message):
    settings = tiny(**_init(tmp_path) | changes)
    with pytest.raises(SettingsError, match=message):
        train(settings, data=write_selected(tmp_path / "data"), out=tmp_path / "run")


def test_no_image_of_a_held_out_entity_is_learnt_from(tmp_path):
    data = open_train_data(write_selected(tmp_path, images=40, second=2))
    parts = data.split(EvaluationSettings(holdout=0.2, holdout_entities=0.34), seed=3)
    hidden = set(data.targets(np.arange(len(data))).ravel()) - set(
        parts.learnt.targets(np.arange(len(parts.learnt))).ravel()
    )
    assert len(hidden) == 1
    unseen = parts.unseen.targets(np.arange(len(parts.unseen)))
    assert (unseen == hidden.pop()).any(1).all()
    assert len(parts.held_out) == round(0.2 * (len(data) - len(parts.unseen)))
    assert len(parts.learnt) + len(parts.held_out) + len(parts.unseen) == len(data)


@pytest.mark.slow
def test_retrieval_among_held_out_entities_is_measured(tmp_path):
    evaluation = _HELD_OUT | {"holdout_entities": 0.5}
    changes = _init(tmp_path) | WISE | {"evaluation": evaluation}
    data = write_selected(tmp_path / "data", images=60)
    summary = train(tiny(**changes), data=data, out=tmp_path / "run")
    assert "heldout_unseen_retrieval_map" in summary.scores


def test_entities_of_raw_pairs_cannot_be_held_out(tmp_path):
    write_selected(tmp_path)
    changes = {"loss": {"supervised": 0.0}, "evaluation": {"holdout_entities": 0.2}}
    with pytest.raises(InputError, match="no entities to hold out"):
        train(tiny(**changes), data=tmp_path / "a.tar", out=tmp_path / "run")


def _labelled(folder, lines):
    fruit.write_listing(folder)
    (folder / "labels.csv").write_text("file,label\n" + lines)
    return folder / "captions.csv", folder / "labels.csv"


def test_own_labels_make_pairs_a_dataset_and_images_without_are_left_out(tmp_path):
    lines = "000.jpg,red\n001.jpg,green\n003.jpg,red\n004.jpg,green\n004.jpg,red\n"
    data = open_train_data(_labelled(tmp_path, lines)[0], labels=tmp_path / "labels.csv")
    assert data.entity_ids == ["green", "red"]
    assert data.source["path"].to_pylist() == ["000.jpg", "001.jpg", "003.jpg", "004.jpg"]
    assert data.targets(np.arange(4)).tolist() == [[1, -1], [0, -1], [1, -1], [0, 1]]
    assert data.vocabulary["label"].to_pylist() == ["green", "red"]  # no names are known
    assert data.vocabulary["images"].to_pylist() == [2, 3]


def test_labelled_images_need_no_captions_and_take_their_names_instead(tmp_path):
    (tmp_path / "photos").mkdir()
    for number, name in enumerate(("red", "lime", "red")):
        (tmp_path / f"photos/{number}.jpg").write_bytes(fruit.photo(name, number))
    (tmp_path / "photos/1.txt").write_text("some limes")
    (tmp_path / "labels.csv").write_text("path,label\n0.jpg,red\n1.jpg,lime\n2.jpg,red\n")
    (tmp_path / "texts.csv").write_text("id,name\nred,Red Apple\n")
    files = {"labels": tmp_path / "labels.csv", "texts": tmp_path / "texts.csv"}
    data = open_train_data(tmp_path / "photos", **files)
    assert data.source["path"].to_pylist() == ["0.jpg", "1.jpg", "2.jpg"]
    assert data.source["caption"].to_pylist() == ["Red Apple", "some limes", "Red Apple"]


def test_texts_give_labels_their_names(tmp_path):
    pairs, labels = _labelled(tmp_path, "000.jpg,red\n001.jpg,plum stone\n")
    (tmp_path / "texts.csv").write_text("id,name,description\nred,Red Apple,a round fruit\n")
    data = open_train_data(pairs, labels=labels, texts=tmp_path / "texts.csv")
    assert data.vocabulary["label"].to_pylist() == ["plum stone", "Red Apple"]
    assert data.vocabulary["description"].to_pylist() == ["", "a round fruit"]


def test_a_selection_needs_no_labels(tmp_path):
    _, labels = _labelled(tmp_path, "000.jpg,red\n")
    with pytest.raises(InputError, match="has its own labels"):
        open_train_data(write_selected(tmp_path / "data"), labels=labels)


def test_labels_that_fit_no_image_are_refused(tmp_path):
    pairs, labels = _labelled(tmp_path, "apple.jpg,red\n")
    with pytest.raises(InputError, match=r"No file in .* such as 'apple.jpg'"):
        open_train_data(pairs, labels=labels)


@pytest.mark.slow
def test_an_image_encoder_alone_learns_from_own_labels(tmp_path):
    from transformers import ViTConfig, ViTModel

    small = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = ViTConfig(**small, intermediate_size=24, image_size=32, patch_size=16)
    ViTModel(config, add_pooling_layer=False).save_pretrained(tmp_path / "vit")
    sizes = {"size": {"height": 32, "width": 32}, "do_center_crop": False}
    (tmp_path / "vit/preprocessor_config.json").write_text(json.dumps(sizes))
    fruit.write_listing(tmp_path / "photos", images=24)
    changes = {"model": {"init": str(tmp_path / "vit"), "image_size": None}}
    settings = tiny(**changes, loss={"contrastive": 0.0}, head={"start": "means"})
    pairs, labels = (tmp_path / "photos" / name for name in ("captions.csv", "test.csv"))
    summary = train(settings, data=pairs, labels=labels, out=tmp_path / "run")
    assert summary.classes == 3
    assert not load_model(tmp_path / "run/model", device="cpu").reads_texts
    assert "texts" not in (tmp_path / "run/model/README.md").read_text().split("```")[0]
    rows, ids = load_head_rows(tmp_path / "run/model/entity_head")
    assert ids == sorted(fruit.NAMES)
    assert len(rows) == 3
