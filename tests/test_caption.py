"""`openmofi caption`: what it writes, kills, mistakes, and a student that learns from it."""

import io
import json
import random
import shlex
import shutil
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from transformers import BlipForConditionalGeneration, BlipProcessor

import fruit
from conftest import write_tar
from killing import kill_at_random, records
from model.tiny_models import write_captioner, write_model
from openmofi.cli import main
from openmofi.config import CaptionSettings
from openmofi.errors import InputError, MismatchError
from openmofi.shards import commits, committed_files
from openmofi.train import train
from openmofi.train.caption import caption
from openmofi.train.data import open_train_data, with_synthetic
from selected import tiny, write_selected

pytestmark = pytest.mark.slow
SHORT = {"captions": 2, "max_tokens": 6, "device": "cpu", "workers": 1}


@pytest.fixture(scope="module")
def blip(tmp_path_factory):
    return write_captioner(tmp_path_factory.mktemp("captioner") / "blip")


def _noise(number):
    """A photo that resembles no other."""
    levels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), np.uint8)
    encoded = io.BytesIO()
    Image.fromarray(levels).resize((40, 40)).save(encoded, "PNG")
    return encoded.getvalue()


@pytest.fixture
def photos(tmp_path):
    """Two shards of three photos, one of which is damaged."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for shard in range(2):
        members = {}
        for number in range(3):
            damaged = (shard, number) == (1, 0)
            members[f"{shard}{number}.png"] = b"x" if damaged else _noise(10 * shard + number)
            members[f"{shard}{number}.txt"] = b"a photo"
        write_tar(folder / f"{shard}.tar", members)
    return folder


def _tables(out):
    return pa.concat_tables([pq.read_table(file) for file in committed_files(out)])


def _alone(blip, png):
    """What the model says of one image, by transformers alone."""
    processor = BlipProcessor.from_pretrained(blip)
    network = BlipForConditionalGeneration.from_pretrained(blip).eval()
    inputs = processor(images=Image.open(io.BytesIO(png)).convert("RGB"), return_tensors="pt")
    how = {"num_beams": 2, "num_return_sequences": 2, "max_new_tokens": 6, "do_sample": False}
    with torch.inference_mode():
        tokens = network.generate(**inputs, **how)
    texts = [text.strip() for text in processor.batch_decode(tokens, skip_special_tokens=True)]
    return [text for text in dict.fromkeys(texts) if text]


def test_captions_are_those_of_each_image_alone(blip, photos, tmp_path):
    summary = caption(blip, photos, out=tmp_path / "c", settings=CaptionSettings(**SHORT))
    rows = {row["key"]: row["synthetic"] for row in _tables(summary.out).to_pylist()}
    assert list(rows) == ["00", "01", "02", "11", "12"]
    for key, texts in rows.items():
        assert texts == _alone(blip, _noise(int(key)))
    assert len({tuple(texts) for texts in rows.values()}) > 2
    assert (summary.images, summary.refused) == (5, {"corrupt_image": 1})
    assert summary.captions == sum(map(len, rows.values()))
    [refused] = (summary.out / "refused").iterdir()
    assert pq.read_table(refused)["key"].to_pylist() == ["10"]


def test_after_kills_at_random_the_captions_are_those_of_an_undisturbed_job(blip, tmp_path):
    many = fruit.write_pairs(tmp_path / "many", shards=12, per_shard=4)
    settings = CaptionSettings(**SHORT | {"captions": 1})
    whole = caption(blip, many, out=tmp_path / "whole", settings=settings).out
    out, rng = tmp_path / "killed", random.Random(0)
    flags = ["--captions", "1", "--max-tokens", "6", "--device", "cpu"]
    for workers in ("1", "2"):
        line = [sys.executable, "-m", "openmofi", "caption", blip, many, "--out", out, *flags]
        kill_at_random([*line, "--workers", workers], out, rng)
    with pytest.raises(InputError, match="is not finished; repeat the command"):
        with_synthetic(open_train_data(many), out, source=many)
    caption(blip, many, out=out, settings=settings)
    assert len(records(out)) == 12
    digests = [[commit.sha256 for commit in commits(folder)] for folder in (whole, out)]
    assert digests[0] == digests[1]


@pytest.mark.parametrize("source", ["select", "a.tar"])
def test_what_it_names_next_trains_a_student(blip, tmp_path, capsys, monkeypatch, source):
    select, out = write_selected(tmp_path / "data"), tmp_path / "captions"
    data = select.parent / source
    flags = ["--captions", "2", "--max-tokens", "6", "--device", "cpu"]
    assert _run("caption", blip, data, "--out", out, *flags) == 0
    wrote, then = capsys.readouterr().out.splitlines()
    assert wrote.endswith("captions of 24 images)")
    words = shlex.split(then.removeprefix("next: openmofi "))
    changes = [word for word in words if word.startswith("loss.")]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipe.yaml").write_text("{steps: 2, batch_size: 8, threads: 1}")
    sets = [part for change in changes for part in ("--set", change)]
    assert _run("train", "recipe.yaml", "--data", data, "--out", "run", *sets) == 0
    known = {row["key"]: row["synthetic"] for row in _tables(out).to_pylist()}
    images = with_synthetic(open_train_data(data), out, source=data)
    keys = pq.read_table(select / "keep.parquet")["key"].to_pylist()
    own = images.records(np.arange(24))["caption"].to_pylist()
    expected = [known[key] or [text] for key, text in zip(keys, own, strict=True)]
    assert images.synthetic_texts(np.arange(24)) == expected


def _run(*arguments):
    with pytest.raises(SystemExit) as stopped:
        main([str(argument) for argument in arguments])
    return stopped.value.code


def test_mistakes_are_one_sentence(blip, photos, tmp_path, capsys):
    chatting = shutil.copytree(blip, tmp_path / "chatting")
    (chatting / "chat_template.jinja").write_text("{{ messages }}")
    for model, message in (
        (chatting, "has to be asked in a chat; pass an"),
        (write_model(tmp_path / "clip", "clip"), "does not write texts of images; pass an"),
        (tmp_path / "nothing", "Cannot load a model from"),
    ):
        assert _run("caption", model, photos, "--out", tmp_path / "c") == 1
        said = capsys.readouterr().err
        assert message in said
        assert said.count("\n") == 1
    assert not (tmp_path / "c").exists()
    settings = CaptionSettings(**SHORT)
    caption(blip, photos, out=tmp_path / "c", settings=settings)
    with pytest.raises(MismatchError, match="was begun with"):
        caption(
            blip, photos, out=tmp_path / "c", settings=CaptionSettings(**SHORT | {"captions": 1})
        )
    with pytest.raises(InputError, match="is not an output of `caption`"):
        caption(blip, photos, out=photos.parent, settings=settings)
    status = _run("status", tmp_path / "c", "--json")
    assert (status or 0, json.loads(capsys.readouterr().out)["totals"]["kept"]) == (0, 5)


def test_a_student_of_captions_that_fit_no_image_is_refused(blip, photos, tmp_path):
    caption(blip, photos, out=tmp_path / "c", settings=CaptionSettings(**SHORT))
    data = write_selected(tmp_path / "data")
    loss = {"text": ["synthetic"], "synthetic": str(tmp_path / "c")}
    with pytest.raises(InputError, match="is an image of"):
        train(tiny(loss=loss), data=data, out=tmp_path / "run")
