"""Running statistics of batch norm after a step of several passes, as after one over all images."""

import pytest
import torch

from openmofi.train.batch_statistics import BatchStatistics

_IMAGES = 11


def _network(momentum, **more):
    torch.manual_seed(2)
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4, momentum=momentum, **more)
    )


def _state(network):
    return [buffer.clone() for buffer in network.buffers()]


def _step(network, images, size, *, undone=False):
    """A step in passes of `size` images, each done again for its gradient."""
    statistics, pieces = BatchStatistics(network), images.split(size)
    statistics.begin()
    for piece in pieces:
        statistics.before_pass()
        with torch.no_grad():
            network(piece)
        statistics.after_pass(len(piece), more=True)
    for piece in pieces:
        network(piece).sum().backward()
    statistics.end(torch.tensor(undone))
    return _state(network)


@pytest.mark.parametrize("momentum", [0.1, 0.9997, 1.0])
@pytest.mark.parametrize("size", [1, 3, 4, _IMAGES])
def test_they_move_once_as_by_the_whole_batch(size, momentum):
    whole, parts = _network(momentum), _network(momentum)
    for _ in range(3):
        images = torch.randn(_IMAGES, 3, 5, 5) * 2 + torch.randn(_IMAGES, 1, 1, 1)
        whole(images)
        for one, other in zip(_state(whole), _step(parts, images, size), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
    assert parts[1].num_batches_tracked == 3


def test_a_step_that_does_not_count_moves_nothing():
    network = _network(0.1)
    before = _state(network)
    after = _step(network, torch.randn(_IMAGES, 3, 5, 5), 4, undone=True)
    assert all(torch.equal(*pair) for pair in zip(before, after, strict=True))


def test_a_cumulative_average_counts_a_step_once():
    network, images = _network(None), torch.randn(_IMAGES, 3, 5, 5)
    _step(network, images, 4)
    _step(network, images, 4)
    expected = network[0](images).mean((0, 2, 3))
    torch.testing.assert_close(network[1].running_mean, expected)


def test_layers_without_running_statistics_have_none_to_move():
    network = _network(0.1, track_running_stats=False)
    assert _step(network, torch.randn(_IMAGES, 3, 5, 5), 4) == []
