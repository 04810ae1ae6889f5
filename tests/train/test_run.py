"""One step at a time: micro-batches, skipped steps, moving averages, repeats."""

import json
from dataclasses import replace

import pytest
import torch

from model.tiny_models import write_model
from openmofi.errors import OpenMOFIError, SettingsError
from openmofi.model import load_model
from openmofi.train import train
from openmofi.train.data import open_train_data
from openmofi.train.distributed import World
from openmofi.train.loop import _make_loader, make_model
from openmofi.train.losses import MAX_LOGIT_SCALE
from openmofi.train.recipe import with_steps
from openmofi.train.run import Run
from openmofi.train.texts import TextMix
from selected import losses, tiny, write_selected
from waiting import RefuseToWait

pytestmark = pytest.mark.slow


@pytest.fixture
def data(tmp_path):
    return open_train_data(write_selected(tmp_path))


def _begin(data, **changes):
    settings, world = tiny(**changes), World(0, 1, torch.device("cpu"))
    torch.manual_seed(0)
    model = make_model(settings, data, device="cpu")
    loader = _make_loader(settings, data, model, TextMix(data, settings.loss.text), [], world)
    return Run(model, data, settings, world), list(loader.batches(0, 4))


def _clip(tmp_path):
    optim = {"learning_rate": 1e-3, "text_learning_rate_factor": 1.0}
    init = {"init": str(write_model(tmp_path / "init", "clip")), "image_size": None}
    return {"model": init, "optim": optim}


def _state(run):
    names = dict(run.model.network.named_parameters())
    # Keys' biases have no gradient but rounding, and Adam makes a whole step of that.
    return {n: p.detach().clone() for n, p in names.items() if not n.endswith("k_proj.bias")}


def _with_head(run):
    return _state(run) | {"head": run.head.rows_ND.detach().clone()}


def _assert_same_way(one, other, start, tolerance=1e-3):
    """Two states moved from the start alike. Adam magnifies the rounding of single weights."""
    for name, weight in one.items():
        moved = (weight - start[name]).norm()
        assert moved > 0, name
        assert (weight - other[name]).norm() <= tolerance * moved, name


@pytest.mark.parametrize("image_text", ["infonce", "siglip"])
@pytest.mark.parametrize("micro", [1, 3])
def test_micro_batches_learn_what_the_whole_batch_learns(data, tmp_path, micro, image_text):
    more = _clip(tmp_path) | {"loss": {"image_text": image_text}}
    whole, batches = _begin(data, **more)
    pieces, _ = _begin(data, micro_batch_size=micro, **more)
    start = _with_head(whole)
    for batch in batches:
        one, other = whole.train_step(batch), pieces.train_step(batch)
        assert {n: v.item() for n, v in one.items()} == pytest.approx(
            {n: v.item() for n, v in other.items()}, rel=1e-5, abs=1e-5
        )
    _assert_same_way(_with_head(whole), _with_head(pieces), start)


def test_micro_batches_move_the_statistics_of_batch_norm_once(data):
    whole, batches = _begin(data, augment={"crop": 1.0, "colour": 0.0})
    pieces, _ = _begin(data, micro_batch_size=3, augment={"crop": 1.0, "colour": 0.0})
    norms = [
        [m for m in run.model.network.modules() if isinstance(m, torch.nn.BatchNorm2d)]
        for run in (whole, pieces)
    ]
    for run in (whole, pieces):
        run.train_step(batches[0])
    torch.testing.assert_close(norms[0][0].running_mean, norms[1][0].running_mean)
    torch.testing.assert_close(norms[0][0].running_var, norms[1][0].running_var)
    assert {int(norm.num_batches_tracked) for side in norms for norm in side} == {1}


def test_micro_batches_replay_dropout(data, tmp_path):
    more = _clip(tmp_path)
    pieces, batches = _begin(data, micro_batch_size=3, **more)
    for module in pieces.model.network.modules():
        if hasattr(module, "dropout") and isinstance(module.dropout, float):
            module.dropout = 0.5
    batch, piece = batches[0], slice(3, 6)
    pieces.towers.train()
    first = pieces._forward(batch, 1, piece)
    torch.rand(5)
    again, other = pieces._forward(batch, 1, piece), pieces._forward(batch, 2, piece)
    later = pieces._forward(replace(batch, step=1), 1, piece)
    assert torch.equal(first.images, again.images)
    assert not torch.equal(first.images, other.images)
    assert not torch.equal(first.images, later.images)


def test_processes_drop_out_independently(data, tmp_path):
    run, batches = _begin(data, **_clip(tmp_path))
    for module in run.model.network.modules():
        if hasattr(module, "dropout") and isinstance(module.dropout, float):
            module.dropout = 0.5
    run.towers.train()
    found = []
    for rank in (0, 1):
        run.world = World(rank, 2, torch.device("cpu"))
        found.append(run._forward(batches[0], 0, slice(0, 8)).images)
    assert not torch.equal(*found)


def test_a_step_whose_gradient_is_not_finite_changes_nothing(data):
    run, batches = _begin(data)
    run.train_step(batches[0])
    before = {n: t.clone() for n, t in run.model.network.state_dict().items()}
    rows, moments = run.head.rows_ND.clone(), run.optimizer.state_dict()["state"][0]
    moments = {name: value.clone() for name, value in moments.items()}
    bad = run.model.transform.normalise
    run.model.transform.__class__.normalise = lambda self, pixels: bad(pixels) * float("nan")
    try:
        run.train_step(batches[1])
    finally:
        run.model.transform.__class__.normalise = bad.__func__
    after = run.model.network.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert torch.equal(run.head.rows_ND, rows)
    assert all(
        torch.equal(run.optimizer.state_dict()["state"][0][n], v) for n, v in moments.items()
    )
    assert run.skipped.tolist() == [1, 1]
    assert not run.is_sound()
    run.train_step(batches[2])
    assert run.skipped.tolist() == [1, 0]
    assert run.is_sound()


@pytest.mark.parametrize(("image_text", "capped"), [("infonce", True), ("siglip", False)])
def test_the_scale_is_capped_at_one_hundred_where_clip_caps_it(data, image_text, capped):
    run, batches = _begin(data, loss={"image_text": image_text})
    with torch.no_grad():
        run.model.logit_scale.fill_(MAX_LOGIT_SCALE + 0.2)  # SigLIP's own are beyond it
    run.train_step(batches[0])
    assert (run.model.logit_scale.item() <= MAX_LOGIT_SCALE + 1e-6) == capped


@pytest.mark.parametrize(
    ("image_text", "scale", "bias"), [("infonce", 1 / 0.07, None), ("siglip", 10, -10)]
)
def test_scale_and_bias_begin_where_clip_and_siglip_begin(data, image_text, scale, bias):
    run, _ = _begin(data, loss={"image_text": image_text})
    assert run.model.logit_scale.exp().item() == pytest.approx(scale)
    assert bias is None or run.towers.bias.item() == bias


def test_a_run_that_only_skips_stops(data):
    run, _ = _begin(data, max_skipped=1)
    run.skipped += 2
    run.step = 7
    with pytest.raises(OpenMOFIError, match="since step 5; lower optim"):
        run.is_sound()


def test_the_moving_average_is_what_it_says_and_can_be_looked_at(data):
    run, batches = _begin(data, ema=0.9)
    name = "visual_projection.weight"
    average = run.model.network.visual_projection.weight.detach().clone()
    for step, batch in enumerate(batches):
        run.train_step(batch)
        decay = min(0.9, (1 + step) / (10 + step))
        now = run.model.network.visual_projection.weight.detach()
        average = decay * average + (1 - decay) * now
    torch.testing.assert_close(run.averages[name], average)
    with run.averaged():
        torch.testing.assert_close(run.model.network.visual_projection.weight.data, average)
    assert torch.equal(run.model.network.visual_projection.weight.data, now)


@pytest.mark.parametrize("image_text", ["infonce", "siglip"])
def test_a_step_never_waits_for_the_device(data, image_text):
    run, batches = _begin(data, ema=0.9, loss={"image_text": image_text})
    run.head.trim = False  # as on a GPU
    with RefuseToWait():
        for batch in batches:
            run.train_step(batch)


def test_the_loader_has_a_tokenizer_of_its_own(data):
    """It tokenises in other threads, and a tokenizer keeps settings between calls."""
    settings, world = tiny(), World(0, 1, torch.device("cpu"))
    model = make_model(settings, data, device="cpu")
    loader = _make_loader(settings, data, model, TextMix(data, settings.loss.text), [], world)
    assert loader.maker.tokenize.func.tokenizer is not model.tokenizer
    batch = loader.maker[0]
    model.text_inputs(["a text that is far longer than any of those in the batch, by itself"])
    assert torch.equal(loader.maker[0].tokens["input_ids"], batch.tokens["input_ids"])


def test_images_are_changed_as_the_seed_says(data):
    batches = [_begin(data, seed=seed)[1][0] for seed in (0, 0, 1)]
    assert torch.equal(batches[0].draws, batches[1].draws)
    assert not (batches[0].draws == batches[2].draws).any()


def test_repeats_are_changed_and_first_sights_are_not(data):
    run, batches = _begin(data, augment={"when": "repeats"})
    assert [batch.epochs.tolist() for batch in batches] == [[0] * 8] * 3 + [[1] * 8]
    assert torch.equal(run._augmented(batches[0]), batches[0].pixels)
    assert not torch.equal(run._augmented(batches[3]), batches[3].pixels)


def test_activations_computed_twice_give_the_same_step(data, tmp_path):
    more = _clip(tmp_path)
    kept, batches = _begin(data, **more)
    twice, _ = _begin(data, grad_checkpointing=True, **more)
    calls = []
    layer = twice.model.network.vision_model.encoder.layers[0].mlp
    layer.register_forward_pre_hook(lambda *_: calls.append(1))
    one, other = kept.train_step(batches[0]), twice.train_step(batches[0])
    assert one["loss"].item() == other["loss"].item()
    assert len(calls) == 2
    assert all(torch.equal(p, _state(twice)[n]) for n, p in _state(kept).items())


def test_a_network_that_cannot_compute_twice_is_one_sentence(data):
    with pytest.raises(SettingsError, match="leave out grad_checkpointing"):
        _begin(data, grad_checkpointing=True)


@pytest.mark.parametrize(
    ("changes", "steps"), [({"epochs": 2}, 6), ({"examples": 17}, 3), ({"steps": 5}, 5)]
)
def test_epochs_and_examples_are_steps(changes, steps):
    assert with_steps(tiny(**changes), images=24).steps == steps


def test_epochs_and_examples_together_are_refused():
    with pytest.raises(SettingsError, match="both set"):
        with_steps(tiny(epochs=1, examples=9), images=24)


def test_without_texts_the_text_side_stays_as_it_was(data):
    run, batches = _begin(data, loss={"contrastive": 0})
    before = _state(run)
    for batch in batches:
        assert not batch.tokens
        run.train_step(batch)
    changed = {n for n, p in _state(run).items() if not torch.equal(p, before[n])}
    assert changed
    assert all(name.startswith(("vision_model.", "visual_projection.")) for name in changed)


@pytest.mark.parametrize(
    "changes",
    [
        {"balance": 1.0, "loss": {"image_text": "siglip", "entity": "drawn"}},
        {"precision": "bf16", "ema": 0.99, "workers": 1},
        {"head": {"loss": "arcface", "sampler": "popularity", "num_sampled": 2}},
    ],
    ids=lambda changes: "-".join(changes),
)
def test_every_kind_of_run_ends_in_a_model(tmp_path, changes):
    path = write_selected(tmp_path)
    summary = train(tiny(**changes), data=path, out=tmp_path / "run")
    assert summary.finished
    assert len(losses(tmp_path / "run")) == 6
    assert load_model(tmp_path / "run/model").encode_texts(["lime"]).shape[0] == 1


def test_held_out_images_are_measured_and_never_learnt_from(tmp_path):
    path = write_selected(tmp_path)
    settings = tiny(evaluation={"holdout": 0.4, "every": 3})
    summary = train(settings, data=path, out=tmp_path / "run")
    assert summary.images == 14
    names = {"retrieval_map", "top1", "knn", "zero_shot"}
    assert set(summary.scores) == {f"heldout_{name}" for name in names}
    lines = map(json.loads, (tmp_path / "run/metrics.jsonl").read_text().splitlines())
    measured = [line["step"] for line in lines if "heldout_knn" in line]
    assert measured == [3, 6]
    assert "heldout_knn" in (tmp_path / "run/model/README.md").read_text()


def test_of_raw_pairs_recall_is_measured(tmp_path):
    write_selected(tmp_path)
    loss = {"supervised": 0, "text": ["caption"]}
    settings = tiny(loss=loss, evaluation={"holdout": 0.5})
    summary = train(settings, data=tmp_path / "a.tar", out=tmp_path / "run")
    assert set(summary.scores) == {"heldout_image_to_text_r1", "heldout_text_to_image_r1"}
    assert all(0 < score <= 1 for score in summary.scores.values())
