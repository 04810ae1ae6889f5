"""The whole story on the small world, told by the wheel in an environment of its own.

What `pip install` brings is whole, every stage runs, and what it says is measured.
"""

import json
import os
import re
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from openmofi.cli import app
from openmofi.demo.story import RECIPES, run_demo
from openmofi.errors import MismatchError
from openmofi.serve import make_app
from openmofi.serve.place import find_shown

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """The folder of an environment's programs; the packages that OpenMOFI needs are borrowed."""
    place = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = ["wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", place, ROOT]
    subprocess.run([*pip, *build], check=True)
    venv.create(place / "env", symlinks=True)
    [packages] = place.glob("env/lib/python*/site-packages")
    # Lines of a .pth are searched last, and the .pth files behind them (the checkout's) not read.
    (packages / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    [wheel] = place.glob("*.whl")
    subprocess.run([*pip, "--python", place / "env", "install", "--no-deps", wheel], check=True)
    return place / "env" / "bin"


def _run(program: Path, *words: str, folder: Path) -> str:
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [program, *words], cwd=folder, env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout


@pytest.fixture(scope="module")
def demo(installed, tmp_path_factory):
    """(what the demo wrote, what it says), outside the checkout."""
    folder = tmp_path_factory.mktemp("story")
    _run(installed / "openmofi", "demo", "--size", "small", "--seed", "0", folder=folder)
    return folder / "demo", json.loads((folder / "demo/results.json").read_text())


def test_the_wheel_is_what_runs(installed, tmp_path):
    found = _run(installed / "python", "-c", "import openmofi; print(openmofi)", folder=tmp_path)
    assert str(installed.parent) in found


def test_recipes_come_with_it(installed, tmp_path):
    code = "from openmofi.train.recipe import built_in_recipes as r; print(*r())"
    found = _run(installed / "python", "-c", code, folder=tmp_path).split()
    assert set(found) == {path.stem for path in ROOT.glob("recipes/*.yaml")}


def test_every_stage_leaves_its_output(demo):
    out = demo[0]
    expected = [
        "shards/000000.tar",
        "truth.parquet",
        "dump.json.gz",
        "kb/meta.json",
        "i2e/run.json",
    ]
    expected += [f"runs/{recipe}/model/config.json" for recipe in RECIPES]
    expected += ["index/meta.json", "report.html", "labels.html", "results.json"]
    assert [name for name in expected if not (out / name).exists()] == []


def test_results_have_the_promised_shape(demo):
    _, results = demo
    assert set(results["labels"]) == {"caption_match", "text_first", "joint"}
    assert set(results["models"]) == {"clip", "contrastive", "supervised", "multitask"}
    for row in results["labels"].values():
        assert set(row) == {"precision", "recall", "f1"}
    for row in results["models"].values():
        assert set(row) == {"retrieval_map", "top1", "knn", "zero_shot"}
    values = [
        v for part in ("labels", "models") for r in results[part].values() for v in r.values()
    ]
    assert all(0 <= value <= 1 for value in values)
    assert results["seed"] == 0


def test_images_help_even_in_a_small_world(demo):
    labels = demo[1]["labels"]
    assert labels["joint"]["precision"] > labels["caption_match"]["precision"] + 0.1


def test_models_learn_more_than_chance(demo):
    # 20 entities, 4 photos each: a random order has a mean average precision near .08
    models = demo[1]["models"]
    assert models["supervised"]["retrieval_map"] > 0.2
    assert models["multitask"]["zero_shot"] > 2 / 20


def test_a_second_call_repeats_nothing(demo):
    out, results = demo
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    assert run_demo(out, size="small", seed=0) == results
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_another_seed_is_not_mixed_in(demo):
    with pytest.raises(MismatchError, match="seed 0, not 1"):
        run_demo(demo[0], size="small", seed=1)


@pytest.mark.parametrize("name", ["report.html", "labels.html"])
def test_reports_load_nothing_from_elsewhere(demo, name):
    page = (demo[0] / name).read_text()
    loaded = re.findall(r'(?:src|href)="([^"#]*)"', page)
    assert all(url.startswith("data:") or url in {"", "labels.html"} for url in loaded)
    assert "data:image/jpeg;base64," in page


def test_the_verbs_work_on_what_the_demo_leaves(demo, capsys):
    out, _ = demo
    model, kb = str(out / "runs/multitask/model"), str(out / "kb")
    app(
        ["search", str(out / "index"), "--entity", "Turkey", "--kb", kb, "--json"],
        result_action="return_value",
    )
    hits = json.loads(capsys.readouterr().out)
    assert hits
    assert all("Q43" in hit["entities"] for hit in hits)
    app(
        ["embed", model, str(out / "test"), "--out", str(out / "t.parquet"), "--json"],
        result_action="return_value",
    )
    assert json.loads(capsys.readouterr().out)["rows"] == 80


def test_the_demo_opens_on_something_worth_seeing(demo):
    shown, reports = find_shown(demo[0])
    assert [report.name for report in reports[:2]] == ["report.html", "labels.html"]
    assert [report.parent.name for report in reports[2:]] == sorted(RECIPES)
    with TestClient(make_app(shown, reports=reports), base_url="http://127.0.0.1") as client:
        assert client.get("/evaluation/labels.html").status_code == 200
        info = client.get("/api/info").json()
        assert {name for name, there in info["has"].items() if not there} == set()
        hits = client.post("/api/search", json={}).json()["hits"]
        assert len({hit["entities"][0]["id"] for hit in hits}) > 10
        tags = client.post("/api/tag", json={"row": hits[0]["row"]}).json()
        assert tags["tags"][0]["probability"] is not None
