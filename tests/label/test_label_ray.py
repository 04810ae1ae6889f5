"""Labelling on Ray, with the encoder in an actor that is killed on the way."""

import threading
import time
from dataclasses import replace

import pytest

import fruit
from openmofi.config import LabelSettings
from openmofi.errors import InputError
from openmofi.kb import build_kb
from openmofi.label import engine, label
from openmofi.shards import commits
from ray_clusters import RAY_MARKS

ray = pytest.importorskip("ray", reason="the extra openmofi[ray] is not installed")
pytestmark = RAY_MARKS

SETTINGS = LabelSettings(background=16, batch_size=5, workers=1, device="cpu")


@pytest.fixture
def job(tmp_path, nano_dir, monkeypatch):
    """What `label` needs, its settings on Ray aside, and a Ray of two cores."""
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    build_kb(fruit.write_catalogue(tmp_path), out=tmp_path / "kb")
    pairs = fruit.write_pairs(tmp_path / "pairs", shards=12, per_shard=30)
    ray.init("local", num_cpus=2, log_to_driver=False, include_dashboard=False)
    yield {"source": pairs, "kb": tmp_path / "kb", "model": str(nano_dir)}
    ray.shutdown()


def _digests(i2e):
    return {commit.shard: commit.sha256 for commit in commits(i2e)}


def _captured_actors(monkeypatch):
    """Returns a list that will hold the encoder's actors."""
    actors, start = [], engine.start_encoders

    def capturing(*arguments, **more):
        remote = start(*arguments, **more)
        actors.extend(remote._actors)
        return remote

    monkeypatch.setattr(engine, "start_encoders", capturing)
    return actors


def test_a_killed_encoder_is_started_again_and_the_labels_are_those_of_one_process(
    tmp_path, job, monkeypatch
):
    label(**job, out=tmp_path / "local", settings=SETTINGS)
    actors, out = _captured_actors(monkeypatch), tmp_path / "ray"
    settings = replace(SETTINGS, engine="ray", encoders=1, workers=2)
    arguments = job | {"out": out, "settings": settings}
    run = threading.Thread(target=label, kwargs=arguments, daemon=True)
    run.start()
    while not (out / "_done").is_dir() or len(commits(out)) < 2:
        assert run.is_alive()
        time.sleep(0.02)
    ray.kill(actors[0], no_restart=False)
    assert len(commits(out)) < 12
    run.join(120)
    assert not run.is_alive()
    assert _digests(out) == _digests(tmp_path / "local")


def test_two_encoders_share_the_actors_places_and_give_the_bytes_of_one_process(
    tmp_path, job, other_nano_dir, monkeypatch
):
    job, chosen = job | {"then": other_nano_dir}, {"then_share": 0.5, "then_rate": 0.3}
    label(**job, out=tmp_path / "local", settings=replace(SETTINGS, **chosen))
    actors, out = _captured_actors(monkeypatch), tmp_path / "ray"
    settings = replace(SETTINGS, engine="ray", encoders=1, workers=2, **chosen)
    totals = label(**job, out=out, settings=settings)
    assert len(actors) == 2
    assert totals.looked_twice > 0
    assert _digests(out) == _digests(tmp_path / "local")


def test_where_no_cluster_answers_it_is_said(tmp_path, job):
    ray.shutdown()
    settings = replace(SETTINGS, engine="ray", ray_address="127.0.0.1:1")
    with pytest.raises(InputError, match=r"No Ray cluster answers at '127\.0\.0\.1:1'"):
        label(**job, out=tmp_path / "o", settings=settings)
