"""Training starts from dual encoders of any kind and ends in a directory of the same kind."""

import numpy as np
import pytest
import torch
import transformers

from model.tiny_models import write_model
from openmofi.model import load_model
from openmofi.train import train
from selected import losses, tiny, write_selected

pytestmark = pytest.mark.slow

KINDS = ["clip", "siglip", "siglip2", "mobilenet", "bert"]


@pytest.mark.parametrize("image_text", ["infonce", "siglip"])
@pytest.mark.parametrize("kind", KINDS)
def test_any_dual_encoder_is_trained_and_stays_what_it_is(tmp_path, kind, image_text):
    init = write_model(tmp_path / "init", kind)
    changes = {"model": {"init": str(init), "image_size": None}, "steps": 2}
    settings = tiny(**changes, loss={"image_text": image_text})
    summary = train(settings, data=write_selected(tmp_path / "data"), out=tmp_path / "run")
    assert summary.finished
    assert all(np.isfinite(loss) for loss in losses(tmp_path / "run").values())
    before, after = (transformers.AutoModel.from_pretrained(f) for f in (init, _made(tmp_path)))
    assert type(before) is type(after)
    _all_moved(before, after)


def _made(tmp_path):
    return tmp_path / "run/model"


def _all_moved(before, after):
    """Both towers have learnt; what has no gradient but rounding is left out."""
    start = before.state_dict()
    moved = {n for n, p in after.named_parameters() if not torch.equal(p.cpu(), start[n])}
    for tower in ("vision_model.", "text_model."):
        names = {n for n, _ in after.named_parameters() if n.startswith(tower)}
        assert len(moved & names) > len(names) / 2, sorted(names - moved)


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_trained_gives_plain_transformers_the_same_vectors(tmp_path, kind):
    init = write_model(tmp_path / "init", kind)
    settings = tiny(model={"init": str(init), "image_size": None}, steps=2)
    train(settings, data=write_selected(tmp_path / "data"), out=tmp_path / "run")
    folder = _made(tmp_path)
    model, network = load_model(folder), transformers.AutoModel.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    names = ["input_ids", "attention_mask"] if kind == "bert" else ["input_ids"]
    padding = "max_length" if kind.startswith("siglip") else True
    inputs = tokenizer(["red apple", "a lime"], padding=padding, return_tensors="pt")
    assert model.transform == load_model(init).transform
    with torch.inference_mode():
        texts = network.get_text_features(**{name: inputs[name] for name in names}).pooler_output
    unit = torch.nn.functional.normalize(texts, dim=-1).numpy()
    np.testing.assert_allclose(model.encode_texts(["red apple", "a lime"]), unit, atol=1e-5)


def test_siglip_goes_on_from_its_own_bias_and_saves_it(tmp_path):
    data = write_selected(tmp_path)
    init = write_model(tmp_path / "init", "siglip")
    before = load_model(init).network.logit_bias.detach().clone()
    loss = {"image_text": "siglip", "supervised": 0}
    settings = tiny(steps=2, model={"init": str(init), "image_size": None}, loss=loss)
    train(settings, data=data, out=tmp_path / "run")
    after = load_model(tmp_path / "run/model").network.logit_bias.detach()
    assert not torch.equal(after, before)
    torch.testing.assert_close(after, before, rtol=0, atol=0.02)


@pytest.mark.parametrize("image_text", ["infonce", "siglip"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_from_any_dual_encoder_goes_on(tmp_path, kind, image_text):
    data, init = write_selected(tmp_path / "data"), write_model(tmp_path / "init", kind)
    changes = {"model": {"init": str(init), "image_size": None}, "loss": {"image_text": image_text}}
    train(tiny(steps=2, **changes), data=data, out=tmp_path / "run")
    assert train(tiny(steps=3, **changes), data=data, out=tmp_path / "run", resume=True).steps == 3
