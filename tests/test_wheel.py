"""What `pip install` brings is whole: the wheel, in an environment of its own, runs the demo."""

import json
import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
RECIPES = {path.stem for path in ROOT.glob("recipes/*.yaml")}


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


def test_the_wheel_is_what_runs(installed, tmp_path):
    found = _run(installed / "python", "-c", "import openmofi; print(openmofi)", folder=tmp_path)
    assert str(installed.parent) in found


def test_recipes_come_with_it(installed, tmp_path):
    code = "from openmofi.train.recipe import built_in_recipes as r; print(*r())"
    assert set(_run(installed / "python", "-c", code, folder=tmp_path).split()) == RECIPES


@pytest.mark.slow
def test_the_demo_runs_outside_the_checkout(installed, tmp_path):
    found = _run(installed / "openmofi", "demo", "--size", "small", "--json", folder=tmp_path)
    results = json.loads(found[found.index("{") :])
    assert results["labels"]["joint"]["f1"] > results["labels"]["caption_match"]["f1"]
    assert (tmp_path / "demo" / "report.html").is_file()
