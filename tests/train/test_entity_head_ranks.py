"""Two ranks must compute what one computes; one spawn runs all cases and leaves its results."""

import dataclasses

import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
import torch.multiprocessing as mp
from torch.nn import functional as F

from openmofi.config import HeadSettings
from openmofi.errors import InputError
from openmofi.model.class_rows import load_head_rows
from openmofi.train import entity_head, head_files, sharded_softmax
from openmofi.train.entity_head import EntityHead
from openmofi.train.head_files import save_head

# One process writes and reads checkpoints here, too, which is what is announced.
pytestmark = [
    pytest.mark.filterwarnings("ignore:torch.distributed is disabled"),
    pytest.mark.slow,
]

_WORLD, _IMAGES, _DIM, _STEPS = 2, 8, 16, 5
_TOLERANCE = {"rtol": 1e-6, "atol": 1e-6}
_SMALL = HeadSettings(num_sampled=20, optimizer="row-adagrad", learning_rate=0.01)
_CASES = {  # name: (classes, settings, columns at once)
    "all classes": (101, dataclasses.replace(_SMALL, num_sampled=500), 16_384),
    "all classes in blocks": (101, dataclasses.replace(_SMALL, sampler="full"), 16),
    "uniform": (101, _SMALL, 16_384),
    "uniform in blocks": (101, _SMALL, 8),
    "log-uniform": (101, dataclasses.replace(_SMALL, sampler="log-uniform"), 16_384),
    "popularity": (101, dataclasses.replace(_SMALL, sampler="popularity"), 16_384),
    "arcface": (101, dataclasses.replace(_SMALL, loss="arcface"), 16_384),
    "lazy-adam": (101, dataclasses.replace(_SMALL, optimizer="lazy-adam"), 16_384),
    "row-adam": (101, dataclasses.replace(_SMALL, optimizer="row-adam"), 16_384),
    "sgd": (101, dataclasses.replace(_SMALL, optimizer="sgd"), 16_384),
    "fewer classes than ranks": (1, _SMALL, 16_384),
}


def _batch(step, num_classes):
    generator = torch.Generator().manual_seed(100 + step)
    images = torch.randn(_IMAGES, _DIM, generator=generator, dtype=torch.float64)
    targets = torch.randint(num_classes, (_IMAGES, 3), generator=generator)
    targets[::2, 2] = -1
    return F.normalize(images, dim=-1), targets


def _head(case, group):
    num_classes, settings, at_once = _CASES[case]
    sharded_softmax.MOST_AT_ONCE = entity_head.MOST_AT_ONCE = at_once
    counts = torch.arange(num_classes, 0, -1)
    head = EntityHead(num_classes, _DIM, settings, seed=5, group=group, class_counts=counts)
    # Float32 logits of size 16 are exact to 1e-6 only, so the sums are compared in float64.
    head._rows_ND = head._rows_ND.double()
    head._state = {
        name: values.double() if values.dtype == torch.float32 else values
        for name, values in head._state.items()
    }
    return head


def _trained(case, group=None, *, padded=False):
    """Losses, accuracies and image gradients of five steps on this rank's images, and the head."""
    head, results = _head(case, group), []
    head.trim = not padded
    rank, world = (dist.get_rank(group), _WORLD) if group else (0, 1)
    mine = slice(rank * _IMAGES // world, (rank + 1) * _IMAGES // world)
    for step in range(_STEPS):
        images, targets = _batch(step, head.num_classes)
        images = images[mine].requires_grad_()
        loss, accuracy = head.loss(images, targets[mine], step=step)
        loss.backward()
        head.step(learning_rate=0.01)
        results.append((loss.detach(), accuracy, images.grad))
    return results, head


def _work(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=_WORLD)
    group, found = dist.group.WORLD, {}
    for case in _CASES:
        for padded in (False, True):
            results, head = _trained(case, group, padded=padded)
            found[case, padded] = results, head.rows_ND, head.row_range
            assert all(rows.to_local().shape[0] == len(head.rows_ND) for rows in _values(head))
    head, (images, targets) = _head("uniform", group), _batch(0, 2)
    with pytest.raises(
        InputError, match="Target 101 is not among"
    ):  # also where the targets are right
        head.loss(images, torch.full_like(targets, 101) if rank else targets, step=0)
    for case in ("row-adam", "fewer classes than ranks"):
        head = _trained(case, group)[1]
        dcp.save({"head": head.state_dict()}, checkpoint_id=f"{folder}/two {case}")
        again = _head(case, group)
        dcp.load({"head": again.state_dict()}, checkpoint_id=f"{folder}/one {case}")
        found["reloaded", case] = {key: v.to_local() for key, v in again.state_dict().items()}
    head_files._MOST_BYTES = 30 * 4 * _DIM  # four files
    save_head(_trained("uniform", group)[1], [f"Q{i}" for i in range(101)], folder / "head")
    torch.save(found, folder / f"rank{rank}.pt")
    dist.destroy_process_group()


def _values(head):
    return head.state_dict().values()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    for case in ("row-adam", "fewer classes than ranks"):
        state = {"head": _trained(case)[1].state_dict()}
        dcp.save(state, checkpoint_id=folder / f"one {case}", no_dist=True)
    mp.spawn(_work, (folder,), nprocs=_WORLD)
    yield folder, [torch.load(folder / f"rank{rank}.pt") for rank in range(_WORLD)]
    sharded_softmax.MOST_AT_ONCE = entity_head.MOST_AT_ONCE = 16_384


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("case", _CASES)
def test_two_ranks_give_the_losses_and_gradients_of_one(ranks, case, padded):
    alone, _ = _trained(case)
    for step, (loss, accuracy, gradient) in enumerate(alone):
        parts = [found[case, padded][0][step] for found in ranks[1]]
        torch.testing.assert_close(sum(part[0] for part in parts) / _WORLD, loss, **_TOLERANCE)
        torch.testing.assert_close(sum(part[1] for part in parts) / _WORLD, accuracy)
        # Each rank's gradient is of the sum of the ranks' losses.
        shared = torch.cat([part[2] for part in parts]) / _WORLD
        torch.testing.assert_close(shared, gradient, **_TOLERANCE)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("case", _CASES)
def test_two_ranks_move_the_rows_as_one_does(ranks, case, padded):
    alone = _trained(case)[1]
    parts = [found[case, padded] for found in ranks[1]]
    torch.testing.assert_close(torch.cat([part[1] for part in parts]), alone.rows_ND, **_TOLERANCE)
    edge = -(-alone.num_classes // _WORLD)
    assert [part[2] for part in parts] == [(0, edge), (edge, alone.num_classes)]


@pytest.mark.parametrize("case", ["row-adam", "fewer classes than ranks"])
def test_a_checkpoint_of_two_ranks_loads_on_one(ranks, case):
    alone, loaded = _trained(case)[1], _head(case, None)
    dcp.load({"head": loaded.state_dict()}, checkpoint_id=ranks[0] / f"two {case}", no_dist=True)
    for name, values in alone.state_dict().items():
        tolerance = {"rtol": 1e-2, "atol": 1e-5} if values.dtype == torch.bfloat16 else _TOLERANCE
        torch.testing.assert_close(loaded.state_dict()[name], values, **tolerance)


@pytest.mark.parametrize("case", ["row-adam", "fewer classes than ranks"])
def test_a_checkpoint_of_one_rank_loads_on_two(ranks, case):
    for name, values in _trained(case)[1].state_dict().items():
        parts = [found["reloaded", case][name] for found in ranks[1]]
        assert torch.equal(torch.cat(parts), values)


def test_two_ranks_save_the_rows_in_several_files(ranks):
    rows, ids = load_head_rows(ranks[0] / "head")
    assert len(list((ranks[0] / "head").glob("rows-*-of-00004.safetensors"))) == 4
    assert ids[100] == "Q100"
    torch.testing.assert_close(rows, _trained("uniform")[1].rows_ND.float(), **_TOLERANCE)
