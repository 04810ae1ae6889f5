"""MobileCLIP's shapes in training: branches until the end, the same bits after a kill."""

import json
import signal
import subprocess
import sys
import time

import pytest
import torch
import torch.distributed.checkpoint as dcp
from mobileclip_published import Published, write
from safetensors.torch import load_file

from openmofi.config import TrainSettings
from openmofi.model import MofiModel, load_model
from openmofi.model.mobileclip_image import MobileClipImageConfig
from openmofi.model.mobileclip_text import MobileClipTextConfig
from openmofi.model.mobileone import has_branches
from openmofi.model.presets import dual_of_towers, preset_transform
from openmofi.model.tokenizer import special_tokens, train_tokenizer
from openmofi.train import loop, train
from openmofi.train.towers import Towers
from selected import losses, tiny, write_selected

SETTINGS = {"steps": 8, "checkpoint_every": 2, "model": {"preset": "s0"}, "micro_batch_size": 4}
KILLED = """
import sys
from pathlib import Path
sys.path[:0] = {path!r}
import test_train_mobileclip as here
from openmofi.train import train
here.loop.build_network = here.small
train(here.tiny(**here.SETTINGS), data=Path({data!r}), out=Path({out!r}))
"""


def small(preset, tokens, *, image_size):
    """Returns a network of the preset's kind that is narrow."""
    assert preset == "s0"
    image = MobileClipImageConfig((1, 1, 1, 1), (8, 16, 32, 64), projection_dim=32)
    ids = {"bos_token_id": tokens.bos, "eos_token_id": tokens.eos, "pad_token_id": tokens.pad}
    text = MobileClipTextConfig(tokens.vocab_size, 32, 1, 2, projection_dim=32, **ids)
    return dual_of_towers(image, text)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
def test_a_killed_run_ends_in_the_same_bytes_and_only_the_model_is_merged(tmp_path, monkeypatch):
    data, out, whole = write_selected(tmp_path), tmp_path / "killed", tmp_path / "whole"
    script = KILLED.format(path=sys.path, data=str(data), out=str(out))
    process = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.DEVNULL)
    while process.poll() is None and not (out / "checkpoints/step-4").is_dir():
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    monkeypatch.setattr(loop, "build_network", small)
    train(tiny(**SETTINGS), data=data, out=out, resume=True)
    train(tiny(**SETTINGS), data=data, out=whole)
    assert losses(out) == losses(whole)
    model, again = (run / "model/model.safetensors" for run in (whole, out))
    assert model.read_bytes() == again.read_bytes()
    kept = dcp.FileSystemReader(whole / "checkpoints/step-8").read_metadata().state_dict_metadata
    assert any(name.endswith("stem.0.conv.full.norm.running_var") for name in kept)
    assert not any(".full." in name for name in load_file(model))
    assert not has_branches(load_model(whole / "model").network)


def _model():
    words = train_tokenizer(["a red apple", "lime"], vocab_size=300, context_length=77)
    torch.manual_seed(0)
    network = small("s0", special_tokens(words), image_size=32)
    return MofiModel(network, words, preset_transform("s0", image_size=32), "cpu")


def test_norms_among_texts_see_the_batch_as_it_is():
    model = _model()
    tokens = model.text_inputs(["apple", "lime", "apple", "a red apple"])
    towers = Towers(model, TrainSettings())
    assert torch.equal(towers._text_features(tokens), model.token_features(tokens))
    # Without a norm, texts are computed once; with one, this would be another batch.
    other = model.token_features({name: ids[[0, 1, 3]] for name, ids in tokens.items()})
    assert not torch.allclose(towers._text_features(tokens)[[0, 1, 3]], other)


@pytest.mark.slow
def test_a_trained_model_goes_on_without_branches(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "build_network", small)
    data = write_selected(tmp_path)
    once = SETTINGS | {"steps": 2}
    train(tiny(**once), data=data, out=tmp_path / "one")
    init = once | {"model": {"init": str(tmp_path / "one/model"), "image_size": None}}
    assert train(tiny(**init), data=data, out=tmp_path / "two").finished
    configs = [json.loads((tmp_path / n / "model/config.json").read_text()) for n in ("one", "two")]
    for name in ("depths", "widths", "branches"):
        assert configs[0]["vision_config"][name] == configs[1]["vision_config"][name]
    assert configs[1]["vision_config"]["branches"] is False


@pytest.mark.slow
def test_a_released_checkpoint_is_trained_with_its_branches(tmp_path):
    words = train_tokenizer(["a red apple", "lime"] * 4, vocab_size=300, context_length=77)
    words.save_pretrained(tmp_path)
    released, out = tmp_path / "mobileclip_s0.pt", tmp_path / "run"
    torch.save(write(Published(vocab=len(words))), released)
    data = write_selected(tmp_path)
    settings = SETTINGS | {"steps": 2, "model": {"init": str(released), "image_size": None}}
    train(tiny(**settings), data=data, out=out)
    train(tiny(**settings | {"steps": 4}), data=data, out=out, resume=True)
    kept = dcp.FileSystemReader(out / "checkpoints/step-4").read_metadata().state_dict_metadata
    assert any(name.endswith("stem.0.conv.full.norm.running_var") for name in kept)
    before, after = (load_model(model, device="cpu") for model in (released, out / "model"))
    assert not has_branches(after.network)
    assert after.transform == before.transform
    pixels = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        old, new = (
            torch.nn.functional.normalize(m.image_features(pixels)) for m in (before, after)
        )
    assert 1e-6 < (old - new).abs().max() < 1
