"""Any image encoder and any text encoder as one network, and either alone."""

import json

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from openmofi.errors import InputError
from openmofi.model import MofiModel, load_model, load_text_encoder, save_model
from openmofi.model.dual import pool
from openmofi.model.sides import EncoderSide, image_side, join, load_text_side, text_side

SIDE = 32
PIXELS = np.random.default_rng(0).integers(0, 256, (3, SIDE, SIDE, 3), dtype=np.uint8)
TEXTS = ["a red flag", "two", ""]


def _processor(folder, **changes):
    config = {"size": {"height": SIDE, "width": SIDE}, "do_center_crop": False, **changes}
    (folder / "preprocessor_config.json").write_text(json.dumps(config))


def _image_encoders():
    from transformers import (
        ConvNextConfig,
        ConvNextModel,
        Dinov2Config,
        Dinov2Model,
        SiglipVisionConfig,
        SiglipVisionModel,
        ViTConfig,
        ViTModel,
    )

    small = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    small |= {"intermediate_size": 24, "image_size": SIDE, "patch_size": 16}
    return {
        "vit": lambda: ViTModel(ViTConfig(**small), add_pooling_layer=False),
        "dinov2": lambda: Dinov2Model(Dinov2Config(**small)),
        "siglip": lambda: SiglipVisionModel(SiglipVisionConfig(**small)),
        "convnext": lambda: ConvNextModel(
            ConvNextConfig(hidden_sizes=[8, 8, 16, 24], depths=[1, 1, 1, 1])
        ),
    }


@pytest.fixture(scope="module", params=["vit", "dinov2", "siglip", "convnext"])
def image_dir(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    torch.manual_seed(0)
    _image_encoders()[request.param]().save_pretrained(folder)
    _processor(folder)
    return folder


WORDS = ("a", "red", "flag", "two")


def write_text_encoder(
    folder, *, pooling="pooling_mode_mean_tokens", words=WORDS, max_length=6, layers=1, **modules
):
    """Writes a small BERT as sentence-transformers does."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    torch.manual_seed(1)
    config = BertConfig(
        vocab_size=len(words) + 4, hidden_size=16, num_hidden_layers=layers, num_attention_heads=2,
        intermediate_size=16,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    known = {word: number for number, word in enumerate(("[PAD]", "[UNK]", *words))}
    backend = Tokenizer(models.WordLevel(known, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]"
    ).save_pretrained(folder)
    steps = [
        {"type": "sentence_transformers.models.Transformer", "path": ""},
        {"type": "sentence_transformers.models.Pooling", "path": "1_Pooling"},
    ]
    steps += [{"type": f"sentence_transformers.models.{name}", "path": ""} for name in modules]
    (folder / "modules.json").write_text(json.dumps(steps))
    (folder / "1_Pooling").mkdir(exist_ok=True)
    (folder / "1_Pooling/config.json").write_text(json.dumps({pooling: True}))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": max_length}))
    return folder


def _linear(wide, out, *, bias=True, seed=0):
    torch.manual_seed(seed)
    return torch.nn.Linear(wide, out, bias=bias)


def test_an_image_encoder_alone_gives_what_transformers_gives(image_dir):
    model = load_model(image_dir, device="cpu")
    assert not model.reads_texts
    inputs = model.transform.normalise(torch.from_numpy(PIXELS))
    with torch.inference_mode():
        output = model.network.vision_model(pixel_values=inputs)
    pooled = output.last_hidden_state[:, 0] if image_dir.name.startswith("vit") else None
    pooled = output.pooler_output if pooled is None else pooled
    expected = F.normalize(pooled.flatten(1), dim=-1).numpy()
    np.testing.assert_allclose(model.encode_pixels(PIXELS), expected, atol=1e-6)


def test_texts_are_refused_by_an_image_encoder_in_one_sentence(image_dir):
    with pytest.raises(InputError, match=r"reads images alone.*openmofi pair"):
        load_model(image_dir, device="cpu").encode_texts("a")


def test_two_encoders_joined_are_saved_and_loaded_to_the_bit(image_dir, tmp_path):
    text = load_text_side(str(write_text_encoder(tmp_path / "text")))
    alone = load_model(image_dir, device="cpu")
    image = image_side(alone.network, alone.transform)
    maps = (*image.maps, _linear(24, 8)), (*text.maps, _linear(16, 8, bias=False))
    network = join(
        EncoderSide(image.encoder, image.pooling, maps[0], image.reads),
        EncoderSide(text.encoder, text.pooling, maps[1], text.reads),
        dim=8,
    )
    model = MofiModel(network, text.reads, alone.transform, "cpu")
    with torch.inference_mode():
        expected = F.normalize(maps[0][-1](torch.from_numpy(alone.encode_pixels(PIXELS))), dim=-1)
    np.testing.assert_allclose(model.encode_pixels(PIXELS), expected.numpy(), atol=1e-6)
    save_model(model, tmp_path / "model", card="")
    loaded = load_model(tmp_path / "model", device="cpu")
    np.testing.assert_array_equal(loaded.encode_pixels(PIXELS), model.encode_pixels(PIXELS))
    np.testing.assert_array_equal(loaded.encode_texts(TEXTS[:2]), model.encode_texts(TEXTS[:2]))
    assert loaded.context_length == 6


def test_sides_of_a_dual_encoder_make_the_same_vectors(nano_dir):
    model = load_model(str(nano_dir), device="cpu")
    size = model.transform.size
    pixels = np.random.default_rng(1).integers(0, 256, (2, size, size, 3), dtype=np.uint8)
    sides = image_side(model.network, model.transform), text_side(model.network, model.tokenizer)
    again = MofiModel(join(*sides, dim=model.dim), model.tokenizer, model.transform, "cpu")
    np.testing.assert_allclose(again.encode_pixels(pixels), model.encode_pixels(pixels), atol=1e-5)
    np.testing.assert_allclose(
        again.encode_texts(TEXTS[:2]), model.encode_texts(TEXTS[:2]), atol=1e-5
    )


def _pooled_slowly(pooling, tokens, mask):
    kept = [t for t, m in zip(tokens, mask, strict=True) if m]
    if pooling == "mean":
        return [sum(column) / len(kept) for column in zip(*kept, strict=True)]
    if pooling == "max":
        return [max(column) for column in zip(*kept, strict=True)]
    return tokens[0] if pooling == "cls" else kept[-1]


@pytest.mark.parametrize("pooling", ["mean", "max", "cls", "last"])
@pytest.mark.parametrize("mask", [[1, 1, 1, 1], [1, 1, 0, 0], [0, 0, 1, 1]])
def test_pooling_equals_a_slow_one_with_padding_on_either_side(pooling, mask):
    from transformers.modeling_outputs import BaseModelOutput

    tokens = torch.randn(1, 4, 3, generator=torch.Generator().manual_seed(2))
    found = pool(BaseModelOutput(last_hidden_state=tokens), pooling, torch.tensor([mask]))
    expected = _pooled_slowly(pooling, tokens[0].tolist(), mask)
    assert found[0].tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("pooling", "expected"),
    [("pooling_mode_mean_tokens", "mean"), ("pooling_mode_cls_token", "cls"),
     ("pooling_mode_lasttoken", "last"), ("pooling_mode_max_tokens", "max")],
)  # fmt: skip
def test_a_text_encoder_is_pooled_as_its_directory_says(tmp_path, pooling, expected):
    assert load_text_side(str(write_text_encoder(tmp_path, pooling=pooling))).pooling == expected


def test_a_text_encoder_without_a_directory_of_modules_is_pooled_by_the_mean(tmp_path):
    write_text_encoder(tmp_path)
    (tmp_path / "modules.json").unlink()
    assert load_text_side(str(tmp_path)).pooling == "mean"


def test_a_text_encoder_alone_and_that_of_a_dual_encoder_encode_texts(tmp_path, nano_dir):
    alone = load_text_encoder(write_text_encoder(tmp_path), device="cpu").encode_texts(TEXTS)
    assert alone.shape == (3, 16)
    # The empty text has no token here.
    assert np.linalg.norm(alone, axis=1) == pytest.approx([1, 1, 0], abs=1e-5)
    dual = load_text_encoder(nano_dir, device="cpu").encode_texts(TEXTS)
    assert np.array_equal(dual, load_model(nano_dir, device="cpu").encode_texts(TEXTS))


def test_the_transformer_of_sentence_transformers_may_lie_in_a_folder_of_its_own(tmp_path):
    whole = write_text_encoder(tmp_path / "whole")
    parts = write_text_encoder(tmp_path / "parts")
    (parts / "0_Transformer").mkdir()
    for file in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"):
        (parts / file).rename(parts / "0_Transformer" / file)
    modules = (parts / "modules.json").read_text()
    (parts / "modules.json").write_text(modules.replace('"path": ""', '"path": "0_Transformer"', 1))
    found, expected = (load_text_encoder(one, device="cpu") for one in (parts, whole))
    assert np.array_equal(found.encode_texts(TEXTS), expected.encode_texts(TEXTS))


def test_what_reads_no_texts_is_not_a_text_encoder(tmp_path, image_dir):
    with pytest.raises(InputError, match="expected a text encoder"):
        load_text_encoder(image_dir)
    save_model(load_model(image_dir, device="cpu"), tmp_path / "images", card="")
    with pytest.raises(InputError, match="reads images alone"):
        load_text_encoder(tmp_path / "images")
    with pytest.raises(InputError, match="There is no model directory '/nowhere'"):
        load_text_encoder("/nowhere")


def test_unknown_steps_and_poolings_are_refused(tmp_path):
    with pytest.raises(InputError, match="through Transformer, Pooling, Dense; expected"):
        load_text_side(str(write_text_encoder(tmp_path / "a", Dense=True)))
    weighted = write_text_encoder(tmp_path / "b", pooling="pooling_mode_weightedmean_tokens")
    with pytest.raises(InputError, match="pools by pooling_mode_weightedmean_tokens"):
        load_text_side(str(weighted))


def test_what_is_no_encoder_of_its_kind_is_refused_in_one_sentence(tmp_path, image_dir):
    with pytest.raises(InputError, match="expected a text encoder"):
        load_text_side(str(image_dir))
    with pytest.raises(InputError, match="does not encode images; pass a dual encoder"):
        load_model(write_text_encoder(tmp_path), device="cpu")


def test_a_checkpoint_that_lacks_weights_is_refused(tmp_path):
    from safetensors.torch import load_file, save_file

    _image_encoders()["dinov2"]().save_pretrained(tmp_path)
    _processor(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    weights.pop("layernorm.weight")
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"lacks weights of its Dinov2Model, such as layernorm"):
        load_model(tmp_path, device="cpu")
