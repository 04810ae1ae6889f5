"""`openmofi embed` on Ray writes the bytes of one process, wherever the encoder is held."""

import pytest

import fruit
from openmofi.config import EmbedSettings
from openmofi.embed import embed
from openmofi.shards import commits

pytestmark = pytest.mark.slow
ray = pytest.importorskip("ray", reason="the extra openmofi[ray] is not installed")


@pytest.fixture
def cluster(monkeypatch):
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    ray.init("local", num_cpus=2, log_to_driver=False, include_dashboard=False)
    yield
    ray.shutdown()


def test_tasks_and_actors_write_the_bytes_of_one_process(tmp_path, nano_dir, cluster):
    source = fruit.write_pairs(tmp_path / "in", shards=4)
    found = {}
    for engine, encoders in (("local", None), ("ray", 0), ("ray", 1)):
        settings = EmbedSettings(engine=engine, workers=1, encoders=encoders, device="cpu")
        out = tmp_path / f"{engine}-{encoders}"
        embed(nano_dir, source, out=out, settings=settings)
        found[out.name] = [commit.sha256 for commit in commits(out)]
    assert found["ray-0"] == found["ray-1"] == found["local-None"]
