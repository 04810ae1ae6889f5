"""Directories of the shape of MOFI's published weights: CLIPModel, OPT's tokenizer, own transform.

The published weights themselves are not here; what is known of them: CLIPModel directories, a
tokenizer "based on OPT with custom bos, eos and pad", images as in eval/utils.py
(https://github.com/apple/ml-mofi).
"""

import json
import math
import shutil

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from openmofi.errors import InputError
from openmofi.model import load_model, save_model
from openmofi.model.presets import SpecialTokens, build_network
from openmofi.model.transform import OPENAI_MEAN, OPENAI_STD, Transform

BOS, EOS, PAD = "<|bos|>", "<|eos|>", "<|padding|>"
TEXTS = ["a red apple", "lime", "a green lime on the table, on a red apple", "the table"]
WORDS = ["a red apple on the table", "a green lime on the table"]
LEGACY = 2
_TOWER = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2}
_TOWER |= {"num_hidden_layers": 2}


def _vocabulary(folder, order=(BOS, PAD, EOS)):
    """Writes vocab.json and merges.txt as OPT's, with further tokens behind; returns the ids."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.train_from_iterator(
        WORDS * 5,
        trainers.BpeTrainer(
            vocab_size=300,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            special_tokens=["<s>", "<pad>", "</s>", "<unk>"],
            show_progress=False,
        ),
    )
    merges = json.loads(backend.to_str())["model"]["merges"]
    backend.add_special_tokens(list(order))
    ids = backend.get_vocab()
    (folder / "vocab.json").write_text(json.dumps(ids))
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n")
    return ids


def _released(folder, *, eos_token_id=None, add_bos=True, order=(BOS, PAD, EOS)):
    """Writes a directory without tokenizer.json and without preprocessor_config.json."""
    ids = _vocabulary(folder, order)
    settings = {"tokenizer_class": "GPT2Tokenizer", "add_bos_token": add_bos, "errors": "replace"}
    settings |= {"bos_token": BOS, "eos_token": EOS, "pad_token": PAD, "unk_token": "</s>"}
    settings |= {"add_prefix_space": False, "model_max_length": 77}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    eos = ids[EOS] if eos_token_id is None else eos_token_id
    text = _TOWER | {"vocab_size": len(ids), "max_position_embeddings": 77, "eos_token_id": eos}
    text |= {"bos_token_id": ids[BOS], "pad_token_id": ids[PAD]}
    vision = _TOWER | {"image_size": 32, "patch_size": 8}
    torch.manual_seed(0)
    network = transformers.CLIPModel(
        transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)
    )
    for parameter in network.parameters():  # far from their tiny initial values
        parameter.data += 0.1 * torch.randn_like(parameter)
    network.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=[None, LEGACY], ids=["first-eos", "legacy"])
def folder(request, tmp_path_factory):
    return _released(tmp_path_factory.mktemp("released"), eos_token_id=request.param)


# ---- texts ---------------------------------------------------------------------------------------


def test_every_text_has_its_begin_and_its_end(folder):
    model = load_model(folder)
    ids = json.loads((folder / "vocab.json").read_text())
    for text, row in zip(TEXTS, model.tokenize(TEXTS).tolist(), strict=True):
        end = row.index(ids[EOS])
        assert row[0] == ids[BOS]
        assert row.count(ids[BOS]) == row.count(ids[EOS]) == 1
        assert set(row[end + 1 :]) <= {ids[PAD]}
        assert model.tokenizer.decode(row[1:end]) == text


def test_plain_transformers_leaves_the_end_out(folder):
    ids = transformers.AutoTokenizer.from_pretrained(folder)(TEXTS[0])["input_ids"]
    assert json.loads((folder / "vocab.json").read_text())[EOS] not in ids


def test_texts_are_read_where_the_configuration_says(folder):
    model = load_model(folder)
    network, rows = model.network, model.tokenize(TEXTS).tolist()
    wanted = network.config.text_config.eos_token_id
    expected = []
    for row in rows:  # one by one and without padding
        place = row.index(max(row)) if wanted == LEGACY else row.index(wanted)
        with torch.inference_mode():
            states = network.text_model(torch.tensor([row[: place + 1]])).last_hidden_state
            vector = (states[0, -1] @ network.text_projection.weight.T).numpy()
        expected.append(vector / math.sqrt((vector**2).sum()))
    got = model.encode_texts(TEXTS)
    np.testing.assert_allclose(got, np.stack(expected), atol=1e-5)
    assert np.abs(got[0] - got[1]).max() > 0.01


def test_the_legacy_branch_reads_the_largest_id(tmp_path):
    # Where the end is not the largest id, OpenAI's legacy rule reads a text elsewhere: honoured.
    model = load_model(_released(tmp_path, eos_token_id=LEGACY, order=(EOS, PAD, BOS)))
    first = model.encode_texts(["a red apple", "lime"])
    np.testing.assert_allclose(first[0], first[1], atol=1e-6)


def test_a_long_text_keeps_its_end(folder):
    model = load_model(folder)
    row = model.tokenize(["a red apple " * 50])[0].tolist()
    assert len(row) == 77
    assert model.tokenizer.convert_ids_to_tokens(row[-1]) == EOS


def test_without_a_begin_none_is_made_up(tmp_path):
    model = load_model(_released(tmp_path, add_bos=False))
    tokens = model.tokenizer.convert_ids_to_tokens(model.tokenize(["a red apple"])[0])
    assert tokens == ["a", "Ġred", "Ġapple", EOS]


def test_what_is_saved_loads_with_plain_transformers_and_keeps_its_end(folder, tmp_path):
    model = load_model(folder)
    save_model(model, tmp_path, card="# test\n")
    again, tokenizer = load_model(tmp_path), transformers.AutoTokenizer.from_pretrained(tmp_path)
    ids = tokenizer(TEXTS, padding=True, return_tensors="pt")["input_ids"]
    assert torch.equal(ids, model.tokenize(TEXTS))
    assert again.transform == model.transform
    assert np.array_equal(again.encode_texts(TEXTS), model.encode_texts(TEXTS))


def test_what_is_saved_names_a_tokenizer_that_transformers_4_knows(folder, tmp_path):
    save_model(load_model(folder), tmp_path, card="# test\n")
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert config["tokenizer_class"] == "PreTrainedTokenizerFast"


def test_our_own_tokenizer_says_all_that_transformers_4_would_set_anew(nano_dir):
    config = json.loads((nano_dir / "tokenizer_config.json").read_text())
    names = {"tokenizer_class": "PreTrainedTokenizerFast", "add_prefix_space": True}
    assert config | names == config
    backend = json.loads((nano_dir / "tokenizer.json").read_text())
    assert backend["pre_tokenizer"]["add_prefix_space"]


def test_an_end_that_is_never_written_is_refused(tmp_path):
    _released(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["text_config"]["eos_token_id"] = 7
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"at token 7, .* correct text_config.eos_token_id"):
        load_model(tmp_path)


# ---- images ------------------------------------------------------------------------------------


def test_a_clip_directory_without_a_processor_gets_the_published_transform(folder, capfd):
    transform = load_model(folder).transform
    assert transform == Transform(32, resize="mofi", resample=2)
    assert (transform.mean, transform.std) == (OPENAI_MEAN, OPENAI_STD)
    assert "has no preprocessor_config.json: images enter as in MOFI" in capfd.readouterr().err


@pytest.mark.parametrize(("resize", "found"), [({}, "pillow"), ({"openmofi_resize": "mofi"},) * 2])
def test_a_processor_is_believed(folder, tmp_path, resize, found, capfd):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    config = {"size": {"shortest_edge": 48}, "crop_size": {"height": 32, "width": 32}, **resize}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(config))
    transform = load_model(tmp_path).transform
    expected = found if isinstance(found, str) else "mofi"
    assert (transform.resize, transform.size, transform.resized_side) == (expected, 32, 48)
    assert "preprocessor_config" not in capfd.readouterr().err


def _source(length, target):
    """Returns lower neighbour, upper neighbour and weight of the upper for each target pixel.

    Half-pixel centres without align_corners; the places are rounded to float32 once.
    """
    scale = np.float64(np.float32(length) / np.float32(target))
    places = (scale * (np.arange(target) + 0.5) - 0.5).astype(np.float32)
    places = np.maximum(places, np.float32(0))
    lower = np.minimum(places.astype(np.int64), length - 1)
    return lower, np.minimum(lower + 1, length - 1), (places - lower).astype(np.float32)


def _slow_transform(image, side=224):
    """ToTensor, Resize(bilinear, antialias=False), CenterCrop, Normalize; written out in numpy."""
    levels = np.asarray(image, dtype=np.float32).transpose(2, 0, 1) / np.float32(255)
    height, width = levels.shape[1:]
    short, long = min(height, width), int(side * max(height, width) / min(height, width))
    rows, columns = (side if n == short else long for n in (height, width))
    above, below, down = _source(height, rows)
    left, right, across = _source(width, columns)
    upper = levels[:, above][:, :, left] * (1 - across) + levels[:, above][:, :, right] * across
    lower = levels[:, below][:, :, left] * (1 - across) + levels[:, below][:, :, right] * across
    resized = upper * (1 - down)[:, None] + lower * down[:, None]
    top, first = round((rows - side) / 2), round((columns - side) / 2)
    cropped = resized[:, top : top + side, first : first + side]
    mean, std = (np.float32(v)[:, None, None] for v in (OPENAI_MEAN, OPENAI_STD))
    return (cropped - mean) / std


SIZES = [(300, 200), (200, 301), (224, 224), (50, 700), (223, 640), (30, 900)]


@pytest.mark.parametrize("size", SIZES)
def test_the_published_transform_equals_slow_arithmetic(size):
    # To the last bit it is torch's own kernel, which torchvision calls as well. numpy differs by
    # 1e-6, for it fuses no operations; a grey level is 0.015.
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    got = Transform(224, resize="mofi", resample=2)([Image.fromarray(pixels)])[0].numpy()
    np.testing.assert_allclose(got, _slow_transform(Image.fromarray(pixels)), atol=2e-5)


@pytest.mark.parametrize("size", [*SIZES, (640, 480), (13, 999)])
def test_the_published_transform_equals_torchvision_to_the_last_bit(size):
    transforms = pytest.importorskip("torchvision.transforms", exc_type=ImportError)
    published = transforms.Compose(
        [
            transforms.ToTensor(),
            transforms.Resize(224, antialias=False),
            transforms.CenterCrop(224),
            transforms.Normalize(OPENAI_MEAN, OPENAI_STD),
        ]
    )
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    assert torch.equal(Transform(224, resize="mofi", resample=2)([image])[0], published(image))


# ---- sizes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("preset", "image", "text"), [("b16", 86, 64), ("l14", 303, 124), ("h14", 631, 354)]
)
def test_towers_have_the_published_numbers_of_parameters(preset, image, text):
    # https://github.com/apple/ml-mofi; each without its projection into the common space.
    # OPT has 50,265 words, and begin, end and padding are MOFI's own.
    tokens = SpecialTokens(vocab_size=50_268, bos=50_265, eos=50_266, pad=50_267)
    with torch.device("meta"):
        network = build_network(preset, tokens, image_size=224)
    for tower, published in ((network.vision_model, image), (network.text_model, text)):
        assert round(sum(p.numel() for p in tower.parameters()) / 1e6) == published
