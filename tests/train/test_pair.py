"""`openmofi pair`: two encoders become one that every verb takes."""

import csv
import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from model.test_dual import write_text_encoder
from openmofi.cli import main
from openmofi.config import LabelSettings
from openmofi.embed import embed
from openmofi.errors import InputError
from openmofi.kb import build_kb
from openmofi.label import label
from openmofi.model import MofiModel, load_model
from openmofi.train.pair import pair

pytestmark = pytest.mark.slow
SIDE = 32
COLOURS = {"red": (220, 30, 30), "two": (30, 60, 220), "flag": (20, 180, 40), "a": (20, 20, 20)}


@pytest.fixture(scope="module")
def encoders(tmp_path_factory):
    from transformers import Dinov2Config, Dinov2Model

    folder = tmp_path_factory.mktemp("encoders")
    torch.manual_seed(0)
    config = Dinov2Config(
        hidden_size=24, num_hidden_layers=1, num_attention_heads=2, image_size=SIDE, patch_size=16
    )
    Dinov2Model(config).save_pretrained(folder / "image")
    processor = {"size": {"height": SIDE, "width": SIDE}, "do_center_crop": False}
    (folder / "image/preprocessor_config.json").write_text(json.dumps(processor))
    write_text_encoder(folder / "text")
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Squares of colours with noise; the caption is four words, each the colour of a quarter."""
    folder = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(0)
    words = list(COLOURS)
    with (folder / "captions.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "caption"])
        for number in range(160):
            chosen = [words[random.integers(4)] for _ in range(4)]
            pixels = np.zeros((SIDE, SIDE, 3))
            for word, (top, left) in zip(chosen, ((0, 0), (0, 16), (16, 0), (16, 16)), strict=True):
                pixels[top : top + 16, left : left + 16] = COLOURS[word]
            pixels = (pixels + random.normal(0, 4, pixels.shape)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{number}.png")
            writer.writerow([f"{number}.png", " ".join(chosen)])
    return folder


def _pair(encoders, photos, out, *, embeddings=None, **changes):
    changes = {"steps": 20, "batch_size": 64, "evaluate_every": 10, "holdout": 0.3} | changes
    return pair(
        encoders / "image", encoders / "text", data=photos / "captions.csv", out=out,
        changes=changes, device="cpu", embeddings=embeddings,
    )  # fmt: skip


@pytest.fixture(scope="module")
def paired(encoders, photos, tmp_path_factory):
    out = tmp_path_factory.mktemp("paired") / "run"
    return out, _pair(encoders, photos, out)


def test_held_out_captions_are_found_better_than_by_chance(paired):
    _, summary = paired
    chance = 10 / summary.held_out
    assert summary.after["image_retrieval_recall@10"] > 1.5 * chance
    assert summary.after["text_retrieval_recall@10"] > 1.5 * chance


def test_the_result_is_never_worse_than_the_closed_form(paired):
    _, summary = paired
    assert np.mean(list(summary.after.values())) >= np.mean(list(summary.closed_form.values()))


def test_the_model_compares_images_with_texts_and_is_what_the_maps_make_of_the_encoders(
    paired, encoders
):
    out, summary = paired
    model = load_model(out / "model", device="cpu")
    assert (model.dim, model.reads_texts) == (summary.dim, True)
    assert model.logit_scale.exp().item() == pytest.approx(summary.logit_scale, rel=1e-5)
    pixels = np.random.default_rng(1).integers(0, 256, (2, SIDE, SIDE, 3), dtype=np.uint8)
    before = load_model(encoders / "image", device="cpu").encode_pixels(pixels)
    last = model.network.visual_projection[-1]
    mapped = last(torch.from_numpy(before)).detach().numpy()
    mapped /= np.linalg.norm(mapped, axis=1, keepdims=True)
    np.testing.assert_allclose(model.encode_pixels(pixels), mapped, atol=1e-5)
    assert model.encode_texts(["red flag"]).shape == (1, summary.dim)


def test_pairs_that_were_learnt_from_are_found_more_often(paired):
    _, summary = paired
    assert summary.learnt.keys() == summary.after.keys()
    assert np.mean(list(summary.learnt.values())) >= np.mean(list(summary.after.values()))


def test_labelling_the_captions_that_were_paired_is_warned_of(paired, photos, tmp_path, capsys):
    out, _ = paired
    (tmp_path / "c.csv").write_text("id,name\n1,red\n2,flag\n")
    build_kb(tmp_path / "c.csv", out=tmp_path / "kb")
    for name in ("same", "other"):
        source = photos / "captions.csv"
        if name == "other":
            source = photos / "some.csv"
            lines = (photos / "captions.csv").read_text().splitlines()[:41]
            source.write_text("\n".join(lines) + "\n")
        settings = LabelSettings(workers=1, background=16)
        label(
            source, kb=tmp_path / "kb", model=out / "model", out=tmp_path / name, settings=settings
        )
        assert ("paired on these very captions" in capsys.readouterr().err) == (name == "same")


def test_the_card_names_both_encoders_and_what_was_measured(paired):
    out, summary = paired
    card = json.loads((out / "pair.json").read_text())
    assert len(card["encoders"]) == 2
    assert all(card["encoders"].values())
    assert card["after"] == summary.after
    readme = (out / "model/README.md").read_text()
    assert all(digest in readme for digest in card["encoders"].values())
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert sum(line["step"] == 0 for line in lines) == 10


def test_a_second_run_encodes_nothing_again(paired, encoders, photos, tmp_path, monkeypatch):
    out, first = paired
    shutil.copytree(out, tmp_path / "run")
    (tmp_path / "run/pair.json").unlink()  # as after a kill behind the vectors
    for name in ("encode_pixels", "encode_texts_alone"):
        monkeypatch.setattr(MofiModel, name, None)
    assert _pair(encoders, photos, tmp_path / "run").after == first.after


def test_lost_and_damaged_vectors_are_made_again(paired, encoders, photos, tmp_path):
    out, first = paired
    shutil.copytree(out, tmp_path / "run")
    stored = sorted((tmp_path / "run/vectors").glob("*/*.vectors.npy"))
    stored[0].unlink()
    stored[1].write_bytes(stored[1].read_bytes()[:-40])
    assert _pair(encoders, photos, tmp_path / "run").after == first.after


def test_a_photo_that_cannot_be_read_costs_its_own_row(encoders, photos, tmp_path):
    shutil.copytree(photos, tmp_path / "photos")
    (tmp_path / "photos/3.png").write_bytes(b"nothing")
    summary = _pair(encoders, tmp_path / "photos", tmp_path / "run", steps=0)
    assert summary.images == 159
    assert sum(summary.refused.values()) == 1


def test_too_few_captions_are_refused(encoders, photos, tmp_path):
    shutil.copytree(photos, tmp_path / "few")
    lines = (tmp_path / "few/captions.csv").read_text().splitlines()[:30]
    (tmp_path / "few/captions.csv").write_text("\n".join(lines) + "\n")
    with pytest.raises(InputError, match="different captions; expected at least 40"):
        _pair(encoders, tmp_path / "few", tmp_path / "run")


def test_a_folder_of_others_is_not_overwritten(encoders, photos, tmp_path):
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(InputError, match="exists and is not the output of `openmofi pair`"):
        _pair(encoders, photos, tmp_path)
    (tmp_path / "other/vectors/mine").mkdir(parents=True)
    (tmp_path / "other/vectors/mine/notes.txt").write_text("x")
    with pytest.raises(InputError, match="exists and is not the output of `openmofi pair`"):
        _pair(encoders, photos, tmp_path / "other")


@pytest.mark.parametrize("left", ["", "key", "key/.12345678.a.vectors.npy", "key/a.vectors.npy"])
def test_a_run_that_was_killed_before_its_first_vectors_goes_on(encoders, photos, tmp_path, left):
    (tmp_path / "run/vectors/key").mkdir(parents=True)
    if left.endswith(".npy"):
        (tmp_path / "run/vectors" / left).write_bytes(b"half")
    elif not left:
        (tmp_path / "run/vectors/key").rmdir()
    assert _pair(encoders, photos, tmp_path / "run", steps=0).images


def test_the_command_line_says_what_was_measured(encoders, photos, tmp_path, capsys):
    arguments = ["pair", str(encoders / "image"), str(encoders / "text")]
    arguments += ["--data", str(photos / "captions.csv"), "--out", str(tmp_path / "run")]
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--set", "steps=0", "--device", "cpu"])
    assert not ended.value.code
    output = capsys.readouterr().out
    assert "held-out image_retrieval_recall@1:" in output
    assert "wrote" in output
    assert f"next: openmofi embed {tmp_path}/run/model" in output


def test_vectors_of_embed_are_taken_instead_of_encoding(encoders, photos, tmp_path, monkeypatch):
    vectors = tmp_path / "vectors"
    embed(encoders / "image", photos / "captions.csv", out=vectors)
    expected = _pair(encoders, photos, tmp_path / "whole")
    monkeypatch.setattr("openmofi.evaluate.vectors.ModelVectors.images", None)
    found = _pair(encoders, photos, tmp_path / "run", embeddings=vectors)
    assert (found.images, found.captions) == (expected.images, expected.captions)
    assert found.after == pytest.approx(expected.after, abs=0.03)  # vectors are kept in 16 bits


def test_vectors_of_another_encoder_are_refused(encoders, photos, tmp_path):
    other = shutil.copytree(encoders / "image", tmp_path / "other")
    vectors = tmp_path / "vectors.parquet"
    _change(other)
    embed(other, photos / "captions.csv", out=vectors)
    with pytest.raises(InputError, match=r"are of .*other', not of .*image'; run"):
        _pair(encoders, photos, tmp_path / "run", embeddings=vectors)
    stored = pq.read_table(vectors)  # as embed wrote it before it named the digest
    about = {k: v for k, v in stored.schema.metadata.items() if k != b"openmofi.model_sha256"}
    pq.write_table(stored.replace_schema_metadata(about), vectors)
    with pytest.raises(InputError, match=r"are of .*other', not of .*image'; run"):
        _pair(encoders, photos, tmp_path / "run", embeddings=vectors)


def test_vectors_of_the_encoder_before_it_was_changed_are_refused(encoders, photos, tmp_path):
    mine, vectors = tmp_path / "encoders", tmp_path / "vectors.parquet"
    shutil.copytree(encoders, mine)
    embed(mine / "image", photos / "captions.csv", out=vectors)
    shutil.move(mine, tmp_path / "mounted")
    assert _pair(tmp_path / "mounted", photos, tmp_path / "run", embeddings=vectors, steps=0).images
    shutil.move(tmp_path / "mounted", mine)
    _change(mine / "image")
    with pytest.raises(InputError, match=r"were made before .*image' was changed; run"):
        _pair(mine, photos, tmp_path / "other", embeddings=vectors)


def _change(encoder):
    config = json.loads((encoder / "config.json").read_text())
    (encoder / "config.json").write_text(json.dumps(config | {"layer_norm_eps": 1e-5}))
