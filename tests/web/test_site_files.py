"""The folder of a page that tags by itself: what it needs, and what is refused."""

import json
import random
import shutil
import tarfile

import numpy as np
import pytest

from openmofi.cli.app import app
from openmofi.config import CompileSettings
from openmofi.errors import InputError, SettingsError
from openmofi.kb import build_kb
from openmofi.tag import Tagger
from openmofi.tag.abstain import TagCalibration
from openmofi.web import site, write_site
from openmofi.web.runtime import RUNTIME_FILES, copy_runtime


@pytest.fixture
def fake_runtime(tmp_path):
    """Its names suffice where no browser opens them."""
    folder = tmp_path / "package/dist"
    folder.mkdir(parents=True)
    for name in RUNTIME_FILES:
        (folder / name).write_text(name)
    return folder.parent


def test_vectors_and_names_are_those_of_the_tagger(known, fake_runtime, tmp_path):
    model, kb = known
    summary = write_site(model, out=tmp_path / "site", kb=kb, runtime=fake_runtime)
    tagger = Tagger(model, kb)
    vectors = np.fromfile(summary.out / "vectors.f16", np.float16).reshape(tagger.vectors.shape)
    np.testing.assert_allclose(vectors, tagger.vectors, atol=1e-3)
    names = json.loads((summary.out / "entities.json").read_text())
    assert names[3] == ["thing3", "Thing 3 <b>", "number 3"]
    assert summary.entities == len(names) == len(tagger.ids)
    assert summary.threshold is None


def test_a_page_is_replaced_and_nothing_else(known, fake_runtime, tmp_path):
    model, kb = known
    for _ in range(2):
        write_site(model, out=tmp_path / "site", kb=kb, runtime=fake_runtime)
    with pytest.raises(InputError, match="is not a page"):
        write_site(model, out=fake_runtime, kb=kb, runtime=fake_runtime)


def test_a_model_is_compiled_first(nano_dir, known, fake_runtime, tmp_path):
    (tmp_path / "flag.csv").write_text("id,name\nE0,flag\nE1,crane\n")
    kb = build_kb(tmp_path / "flag.csv", out=tmp_path / "kb").out
    summary = write_site(nano_dir, out=tmp_path / "site", kb=kb, runtime=fake_runtime)
    made = (summary.out / "image_encoder.onnx").read_bytes()
    assert made == (known[0] / "image_encoder.onnx").read_bytes()
    settings = CompileSettings(int8=True)
    with pytest.raises(SettingsError, match="needs --images"):
        write_site(nano_dir, out=tmp_path / "x", kb=kb, runtime=fake_runtime, settings=settings)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"settings": CompileSettings(int8=True)}, "compiled already"),
        ({"k": 0}, "k, the number of entities, cannot be 0"),
        ({"error_rate": 2.0}, "error rate cannot be 2"),
        ({"error_rate": 1e-6}, "would never answer"),
        ({"unknown": 1.5}, "unknown images cannot be 1.5"),
        ({"index": "nowhere"}, "class rows, whose entities are named"),
        ({"kb": "nowhere"}, "nowhere"),
        ({"runtime": "nowhere.tgz"}, "npm pack"),
    ],
)
def test_what_cannot_be_is_refused(known, fake_runtime, tmp_path, given, message):
    model, kb = known
    asked = {"kb": kb, "runtime": fake_runtime, **given}
    with pytest.raises((InputError, SettingsError), match=message):
        write_site(model, out=tmp_path / "site", **asked)
    assert not (tmp_path / "site").exists()


def test_abstaining_needs_a_calibration_of_this_model(known, fake_runtime, tmp_path):
    model = shutil.copytree(known[0], tmp_path / "model")
    (model / "tag_calibration.parquet").unlink()
    with pytest.raises(SettingsError, match="tag calibrate"):
        write_site(model, out=tmp_path / "site", kb=known[1], runtime=fake_runtime, error_rate=0.1)


@pytest.mark.parametrize("int8", [False, True])
def test_a_rate_without_a_calibration_is_refused_before_compiling(
    nano_dir, known, tmp_path, monkeypatch, int8
):
    monkeypatch.delattr(site, "compile_model")
    model = shutil.copytree(nano_dir, tmp_path / "model")
    if int8:  # other scores than those that were calibrated
        shutil.copy(known[0] / "tag_calibration.parquet", model)
    asked = {"error_rate": 0.1, "settings": CompileSettings(int8=int8)}
    with pytest.raises(SettingsError, match="tag calibrate"):
        write_site(model, out=tmp_path / "site", kb=known[1], **asked)


def test_a_filter_that_the_page_does_not_know_is_refused(known, fake_runtime, tmp_path):
    model = shutil.copytree(known[0], tmp_path / "model")
    file = model / "preprocessor_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "resample": 1}))
    with pytest.raises(InputError, match="filter 1"):
        write_site(model, out=tmp_path / "site", kb=known[1], runtime=fake_runtime)


def test_the_runtime_comes_from_a_package_unpacked_or_not(fake_runtime, tmp_path):
    with tarfile.open(tmp_path / "ort.tgz", "w:gz") as archive:
        archive.add(fake_runtime, "package")
    for number, package in enumerate((fake_runtime, fake_runtime / "dist", tmp_path / "ort.tgz")):
        folder = tmp_path / str(number)
        folder.mkdir()
        copy_runtime(package, folder)
        assert {file.name: file.read_text() for file in folder.iterdir()} == {
            name: name for name in RUNTIME_FILES
        }


@pytest.mark.parametrize("damage", ["missing", "torn", "other"])
def test_a_package_that_is_not_whole_is_refused(fake_runtime, tmp_path, damage):
    (fake_runtime / "dist" / RUNTIME_FILES[2]).unlink()
    package = tmp_path / "ort.tgz"
    with tarfile.open(package, "w:gz") as archive:
        archive.add(fake_runtime, "package")
    if damage == "torn":
        package.write_bytes(package.read_bytes()[:-20])
    elif damage == "other":
        package.write_bytes(b"no archive")
    (tmp_path / "out").mkdir()
    with pytest.raises(InputError, match="npm pack onnxruntime-web@"):
        copy_runtime(package, tmp_path / "out")


@pytest.mark.parametrize("place", [0.3, 0.9])
def test_a_package_with_a_wrong_byte_is_refused(fake_runtime, tmp_path, place):
    (fake_runtime / "dist" / RUNTIME_FILES[2]).write_bytes(random.Random(0).randbytes(1 << 16))
    package, out = tmp_path / "ort.tgz", tmp_path / "out"
    out.mkdir()
    with tarfile.open(package, "w:gz") as archive:
        archive.add(fake_runtime, "package")
    copy_runtime(package, out)
    packed = bytearray(package.read_bytes())
    packed[int(place * len(packed))] ^= 1  # which unpacks, to another program
    package.write_bytes(packed)
    with pytest.raises(InputError, match="cannot be read"):
        copy_runtime(package, out)


@pytest.mark.parametrize("npm", [None, "exit 1"])
def test_without_npm_it_says_what_to_do(tmp_path, monkeypatch, npm):
    monkeypatch.setenv("OPENMOFI_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path))
    if npm:
        (tmp_path / "npm").write_text(f"#!/bin/sh\necho no such registry >&2\n{npm}\n")
        (tmp_path / "npm").chmod(0o755)
    with pytest.raises(InputError, match="--runtime") as refusal:
        copy_runtime(None, tmp_path)
    assert ("no such registry" in str(refusal.value)) == bool(npm)
    assert not list((tmp_path / "cache").rglob("*.tgz"))


def test_what_npm_packed_is_kept(fake_runtime, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENMOFI_CACHE", str(tmp_path / "cache"))
    tar = shutil.which("tar")
    script = f"{tar} czf onnxruntime-web-1.30.0.tgz -C {fake_runtime.parent} package\n"
    (tmp_path / "npm").write_text(f"#!/bin/sh\n{script}")
    (tmp_path / "npm").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        copy_runtime(None, tmp_path / name)
        (tmp_path / "npm").unlink(missing_ok=True)
    assert {file.name for file in (tmp_path / "two").iterdir()} == {*RUNTIME_FILES}


def test_the_curve_is_that_of_the_probability():
    rng = np.random.default_rng(0)
    score = rng.random(300).astype(np.float32)
    calibration = TagCalibration(score, rng.random(300) < score, score * 0.9)
    at = np.linspace(-0.1, 1.1, 50)
    scores, probabilities = calibration.curve(unknown=0.3)
    assert np.all(np.diff(scores) >= 0)
    assert np.all(np.diff(probabilities) >= 0)
    inside = np.interp(at, scores, probabilities)
    np.testing.assert_array_equal(calibration.probability(at, unknown=0.3), inside)


def test_the_command_line_tells_what_goes_with_what(known, tmp_path):
    model, kb = known
    with pytest.raises(SettingsError, match="needs --kb"):
        app(["compile", str(model), "--to", "web", "--out", str(tmp_path / "site")])
    options = {"--kb": str(kb), "--k": "3", "--error-rate": "0.1", "--unknown": "0"}
    for option, value in options.items():
        with pytest.raises(SettingsError, match=f"{option} goes with --to web"):
            app(["compile", str(model), option, value, "--out", str(tmp_path / "small")])


def test_the_command_line_writes_a_page(known, fake_runtime, tmp_path, capsys):
    model, kb = known
    words = ["compile", str(model), "--to", "web", "--kb", str(kb), "--out", str(tmp_path / "s")]
    words += ["--runtime", str(fake_runtime), "--error-rate", "0.1"]
    app(words, result_action="return_value")
    said = capsys.readouterr().out
    assert "names 20 entities" in said
    assert "http.server" in said
    app([*words, "--json"], result_action="return_value")
    assert json.loads(capsys.readouterr().out)["threshold"] > 0.75
    assert (tmp_path / "s/index.html").is_file()
