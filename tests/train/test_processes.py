"""Several processes must do what one does: losses, batch norm, whole runs, checkpoints."""

import json
import shutil
import warnings

import pytest
import torch
import torch.distributed as dist
from torch.nn import functional as F

from model.tiny_models import write_model
from openmofi.config import override
from openmofi.errors import SettingsError
from openmofi.model import load_model
from openmofi.train.batch_statistics import BatchStatistics
from openmofi.train.checkpoints import Checkpoints
from openmofi.train.distributed import World, join_world, share_batch_norm
from openmofi.train.losses import distillation, info_nce, siglip
from selected import in_processes, losses, tiny, train_in, write_selected

pytestmark = pytest.mark.slow

_PAIRS, _DIM = 8, 6


def _features():
    torch.manual_seed(3)
    images, texts, one, two = (F.normalize(torch.randn(_PAIRS, _DIM), dim=-1) for _ in range(4))
    keys = torch.tensor([[0, 9], [1, 8], [0, 7], [2, 6], [3, 9], [4, 5], [5, 4], [1, 3]])
    shown = torch.tensor([[3], [-1], [4], [-1], [-1], [0], [-1], [2]])
    scalars = [torch.tensor(1.5), torch.tensor(-3.0)]
    return images, texts, (keys, shown), (one, two), scalars


def _losses_on(share, world=None):
    """Returns each loss of a share of the pairs, with the gradients of what went in."""
    images, texts, known, teacher, (scale, bias) = _features()
    masked = {"keys_bM": known[0][share], "shown_bK": known[1][share]}
    found = []
    for number in range(3):
        leaves = [images[share].clone(), texts[share].clone(), scale.clone(), bias.clone()]
        x, y, s, b = (leaf.requires_grad_() for leaf in leaves)
        if number == 0:
            loss = info_nce(x, y, s, world=world, **masked)
        elif number == 1:
            loss = siglip(x, y, s, b, world=world, chunk=3, **masked)
        else:
            pair = (teacher[0][share], teacher[1][share])
            loss = distillation(x, y, s, [pair], world=world)
        loss.backward()
        found.append((loss.detach(), x.grad, y.grad, s.grad))
    return found


def _batch_norm(share, world=None):
    """Returns parameters' gradients and running statistics after one step in float64."""
    torch.manual_seed(1)
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4)).double()
    inputs, wanted = torch.randn(_PAIRS, 3, 6, 6).double(), torch.randn(_PAIRS, 4, 4, 4).double()
    if world is not None:
        share_batch_norm(net, world)
    (net(inputs[share]) * wanted[share]).sum((1, 2, 3)).square().mean().backward()
    grads, moved = [p.grad for p in net.parameters()], [b.double() for b in net.buffers()]
    again = moved if world is None else _in_parts(net, inputs[share])
    return grads + moved + again


def _in_parts(net, inputs):
    """Returns running statistics after one step in two passes, begun again."""
    net[1].reset_running_stats()
    statistics = BatchStatistics(net)
    statistics.begin()
    for part in inputs.split(2):
        statistics.before_pass()
        with torch.no_grad():
            net(part)
        statistics.after_pass(2, more=True)
    statistics.end(torch.tensor(False))
    return [buffer.double() for buffer in net.buffers()]


def _work(folder):
    with join_world("cpu") as world:
        share = world.share(_PAIRS)
        found = (_losses_on(share, world), _batch_norm(share, world), world.any(world.rank == 1))
        torch.save(found, folder / f"rank{world.rank}.pt")
        with pytest.raises(SettingsError, match="such as --set batch_size=10"):
            world.share(9)


def _run(folder, name, parallel, resume=False):
    settings = _settings(folder, parallel=parallel, checkpoint_every=3)
    train_in(settings, folder / "select", folder / name, resume)


def _as_if_stopped(folder, name, copy):
    """Copies a run as if it had been stopped after its third step."""
    shutil.copytree(folder / name, folder / copy)
    (folder / copy / "checkpoints/latest").write_text("step-3\n")
    shutil.rmtree(folder / copy / "model")


def _settings(folder, **changes):
    loss = {"text": ["caption", "name"], "entity": "drawn"}
    optim = {"learning_rate": 1e-3, "text_learning_rate_factor": 1.0}
    head = {"num_sampled": 2, "learning_rate": 1e-3}
    more = {"model": {"init": str(folder / "init"), "image_size": None}, "loss": loss}
    evaluation = {"holdout": 0.25, "every": 3}
    return tiny(**more, optim=optim, head=head, ema=0.9, evaluation=evaluation, **changes)


def _averaging(folder, parallel):
    """A run that begins with class means and ends in a mean of its first and last weights."""
    changes = {"head": {"start": "means"}, "optim": {"first_layer_factor": 0.1}, "wise_ft": True}
    return override(_settings(folder, parallel=parallel), changes)


def _nano():
    return tiny(precision="bf16", steps=2)


def _disk_full_in_one(folder):
    """The first process cannot begin a checkpoint, and the next one is whole again."""
    with join_world("cpu") as world:
        checkpoints = Checkpoints(folder / "checkpoints", world, keep=9)
        for step in (2, 4):
            if step == 2 and world.is_first:
                (folder / "checkpoints").mkdir()
                (folder / "checkpoints/.step-2.tmp").write_text("in the way")
            checkpoints.save(step, {"rank": torch.arange(3)}, {"data": "x"})
            checkpoints.finish()
            if step == 2 and world.is_first:
                (folder / "checkpoints/.step-2.tmp").unlink()


def _all_runs(folder):
    _run(folder, "ddp", "ddp")
    _run(folder, "fsdp", "fsdp")
    for name in ("ddp", "fsdp"):
        settings = _settings(folder, parallel=name, micro_batch_size=3)
        train_in(settings, folder / "select", folder / f"{name} in parts")
        train_in(_averaging(folder, name), folder / "select", folder / f"{name} averaging")
    _disk_full_in_one(folder)
    train_in(_nano(), folder / "select", folder / "nano")
    for name in ("ddp", "fsdp"):
        if dist.get_rank() == 0:
            _as_if_stopped(folder, name, f"{name} again")
        dist.barrier()
        _run(folder, f"{name} again", name, resume=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    write_model(folder / "init", "clip")
    write_selected(folder, second=2)
    _run(folder, "one", "ddp")
    train_in(_averaging(folder, "ddp"), folder / "select", folder / "one averaging")
    in_processes(2, _work, folder)
    in_processes(2, _all_runs, folder)
    return folder


@pytest.fixture(scope="module")
def ranks(folder):
    return [torch.load(folder / f"rank{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("number", range(3), ids=["infonce", "siglip", "distillation"])
def test_two_processes_have_the_losses_and_gradients_of_one(ranks, number):
    loss, *grads = _losses_on(slice(None))[number]
    parts = [found[0][number] for found in ranks]
    torch.testing.assert_close(sum(part[0] for part in parts) / 2, loss)
    for place, grad in enumerate(grads[:2], start=1):
        torch.testing.assert_close(torch.cat([part[place] for part in parts]) / 2, grad)
    torch.testing.assert_close(sum(part[3] for part in parts) / 2, grads[2])


def test_batch_norm_sees_the_images_of_all_processes(ranks):
    for *parts, whole in zip(ranks[0][1], ranks[1][1], _batch_norm(slice(None)), strict=True):
        mean = sum(parts) / 2
        torch.testing.assert_close(mean, whole, rtol=1e-9, atol=1e-9)


def test_what_one_process_knows_all_hear(ranks):
    assert ranks[0][2]
    assert ranks[1][2]


def _weights(run):
    """All but the keys' biases, whose gradient is 0 and of which Adam makes a step of noise."""
    found = load_model(run / "model").network.state_dict()
    return {name: t for name, t in found.items() if not name.endswith("k_proj.bias")}


def _assert_same_run(one, other):
    mine, theirs = _weights(one), _weights(other)
    for name, weight in mine.items():
        torch.testing.assert_close(theirs[name], weight, rtol=1e-6, atol=1e-6, msg=name)
    rows = [load_rows(run) for run in (one, other)]
    torch.testing.assert_close(rows[0], rows[1], rtol=1e-6, atol=1e-6)
    assert losses(other) == pytest.approx(losses(one), abs=2e-5)
    assert held_out_scores(other) == held_out_scores(one)
    assert sorted(held_out_scores(one)) == [3, 6]


def held_out_scores(run):
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return {line["step"]: line for line in lines if "heldout_knn" in line}


def load_rows(run):
    from openmofi.model.class_rows import load_head_rows

    return load_head_rows(run / "model/entity_head")[0]


def test_a_checkpoint_that_one_process_cannot_begin_is_left_out_by_all(folder):
    names = {path.name for path in (folder / "checkpoints").iterdir()}
    assert names == {"step-4", "latest"}
    state = {"rank": torch.zeros(3, dtype=torch.int64)}
    checkpoints = Checkpoints(folder / "checkpoints", World(0, 1, torch.device("cpu")), keep=9)
    with warnings.catch_warnings(action="ignore"):
        checkpoints.load(folder / "checkpoints/step-4", state)
    assert state["rank"].tolist() == [0, 1, 2]


def test_batch_norm_of_several_processes_works_in_half_precision(folder):
    assert sorted(losses(folder / "nano")) == [1, 2]


@pytest.mark.parametrize("name", ["ddp", "fsdp", "ddp in parts", "fsdp in parts"])
def test_two_processes_train_the_model_that_one_trains(folder, name):
    _assert_same_run(folder / "one", folder / name)


@pytest.mark.parametrize("name", ["ddp", "fsdp"])
def test_two_processes_average_the_weights_that_one_averages(folder, name):
    runs = [folder / "one averaging", folder / f"{name} averaging"]
    _assert_same_run(*runs)
    found = [json.loads((run / "wise_ft.json").read_text()) for run in runs]
    assert found[0]["share"] == found[1]["share"]
    for share, scores in found[0]["tried"].items():
        assert found[1]["tried"][share] == pytest.approx(scores, abs=1e-6)


@pytest.mark.parametrize("name", ["ddp", "fsdp"])
def test_two_processes_that_go_on_end_in_the_same_bits(folder, name):
    whole, again = (
        load_model(folder / n / "model").network.state_dict() for n in (name, f"{name} again")
    )
    assert all(torch.equal(whole[key], again[key]) for key in whole)
    assert torch.equal(load_rows(folder / name), load_rows(folder / f"{name} again"))
    assert losses(folder / name) == losses(folder / f"{name} again")


def test_a_run_of_two_processes_goes_on_in_one_and_in_two_again(folder):
    _as_if_stopped(folder, "fsdp", "two, then one")
    _run(folder, "two, then one", "ddp", resume=True)
    _assert_same_run(folder / "one", folder / "two, then one")
    _as_if_stopped(folder, "one", "one, then two")
    in_processes(2, _run, folder, "one, then two", "ddp", True)
    _assert_same_run(folder / "ddp", folder / "one, then two")
    assert losses(folder / "one, then two") == pytest.approx(losses(folder / "one"), abs=2e-5)


def test_one_process_needs_no_group():
    assert not dist.is_initialized()
    world = World(0, 1, torch.device("cpu"))
    assert world.share(7) == slice(0, 7)
    assert world.any(True)
    assert not world.any(False)


def test_checkpoints_say_their_step_and_data(folder):
    card = json.loads((folder / "ddp/checkpoints/step-6/run.json").read_text())
    assert card["step"] == 6
    assert len(card["data"]) == 64
