import numpy as np
import pytest
import torch
from PIL import Image

from openmofi.errors import InputError, SettingsError
from openmofi.model import load_model
from openmofi.model.presets import VIT_PRESETS, SpecialTokens, build_network


def test_a_saved_model_loads_with_plain_transformers(nano_dir):
    from transformers import AutoModel, AutoTokenizer

    ours, network = load_model(nano_dir), AutoModel.from_pretrained(nano_dir).eval()
    tokens = AutoTokenizer.from_pretrained(nano_dir)(["a flag"], return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        features = network.get_text_features(input_ids=tokens).pooler_output
    unit = torch.nn.functional.normalize(features, dim=-1).numpy()
    np.testing.assert_allclose(ours.encode_texts(["a flag"]), unit, atol=1e-6)


def test_vectors_have_unit_length_and_do_not_depend_on_the_batch(nano_dir):
    model = load_model(nano_dir)
    images = [Image.new("RGB", (40, 30), (i * 9, 20, 99)) for i in range(5)]
    together = model.encode_images(images)
    apart = np.concatenate([model.encode_images([image]) for image in images])
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(together, apart, atol=1e-5)
    assert together.shape == (5, model.dim)


def test_nothing_to_encode_gives_no_vectors(nano_dir):
    model = load_model(nano_dir)
    assert model.encode_images([]).shape == model.encode_texts([]).shape == (0, model.dim)


def test_long_texts_are_cut_at_the_context(nano_dir):
    model = load_model(nano_dir)
    assert model.tokenize(["word " * 500]).shape[1] == 20
    assert np.isfinite(model.encode_texts(["word " * 500, ""])).all()


def test_text_is_pooled_at_its_end_and_not_at_the_padding(nano_dir):
    model = load_model(nano_dir)
    alone = model.encode_texts(["a flag"])
    padded = model.encode_texts(["a flag", "a flag of georgia over a harbour"])[:1]
    np.testing.assert_allclose(alone, padded, atol=1e-6)


@pytest.mark.parametrize(
    ("preset", "image", "text"), [("b16", 86, 64), ("l14", 304, 124), ("h14", 632, 355)]
)
def test_presets_have_the_published_numbers_of_parameters(preset, image, text):
    # method: 86/64M, 303/124M, 631/354M, each with its projection
    tokens = SpecialTokens(vocab_size=50_272, bos=50_265, eos=50_266, pad=1)
    with torch.device("meta"):
        network = build_network(preset, tokens, image_size=224)
    towers = (network.vision_model, network.visual_projection)
    count = sum(p.numel() for tower in towers for p in tower.parameters()) / 1e6
    texts = sum(p.numel() for p in network.text_model.parameters()) / 1e6
    assert round(count) == image
    assert texts == pytest.approx(text, rel=0.01)
    assert set(VIT_PRESETS) == {"b16", "l14", "h14"}


@pytest.mark.parametrize("source", ["./nowhere", "/no/such/model", "not a hub id!"])
def test_a_missing_model_is_one_sentence(source):
    with pytest.raises(InputError, match="There is no model directory"):
        load_model(source)


def test_a_folder_without_configuration_says_what_was_expected(tmp_path):
    with pytest.raises(InputError, match=r"has no config\.json"):
        load_model(tmp_path)


def test_a_single_tower_is_refused(tmp_path):
    from transformers import CLIPVisionConfig, CLIPVisionModel

    config = CLIPVisionConfig(
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        image_size=16,
        patch_size=8,
    )
    CLIPVisionModel(config).save_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"Cannot load a model|does not encode both"):
        load_model(tmp_path)


def test_an_unknown_preset_lists_the_known_ones():
    with pytest.raises(SettingsError, match="nano, b16, l14, h14"):
        build_network("b17", SpecialTokens(10, 1, 9, 3), image_size=32)


def test_saving_twice_gives_the_same_files(nano_dir, tmp_path):
    from openmofi.model import save_model

    model = load_model(nano_dir)
    model.encode_texts(["a flag", "a longer flag of georgia"])
    save_model(model, tmp_path, card="# test\n")
    for name in ("tokenizer.json", "model.safetensors"):
        assert (tmp_path / name).read_bytes() == (nano_dir / name).read_bytes()


@pytest.mark.parametrize("device", ["gpu", "cuda:99"])
def test_a_device_that_is_not_there_is_one_sentence(nano_dir, device):
    with pytest.raises(SettingsError, match=r"no device 'gpu'|not 'cuda:99'"):
        load_model(nano_dir, device=device)


def test_a_half_precision_checkpoint_is_loaded_in_full(nano_dir, tmp_path):
    from openmofi.model import save_model

    model = load_model(nano_dir)
    model.network.half()
    save_model(model, tmp_path, card="# test\n")
    assert {p.dtype for p in load_model(tmp_path).network.parameters()} == {torch.float32}


def test_batch_norm_keeps_its_momentum_through_saving(nano_dir):
    norms = [
        m for m in load_model(nano_dir).network.modules() if isinstance(m, torch.nn.BatchNorm2d)
    ]
    assert {norm.momentum for norm in norms} == {0.1}
