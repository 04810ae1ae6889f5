"""Ray clusters of this machine, for tests that lose parts of them."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

RAY_MARKS = [
    pytest.mark.slow,
    # Ray's own: sockets and files that it closes late, and its farewell to old Pythons
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@contextmanager
def cluster_of(nodes: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple]:
    """Yields (cluster, nodes): a head without work, and nodes with one core each."""
    import ray
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    workers = [cluster.add_node(num_cpus=1) for _ in range(nodes)]
    ray.init(address=cluster.address, log_to_driver=False)
    yield cluster, workers
    ray.shutdown()
    cluster.shutdown()
