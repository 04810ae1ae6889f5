"""Encoders as ONNX files: the same vectors, every verb's model, and int8 that is checked."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from openmofi.compile import compile_model
from openmofi.compile.check import middles, reciprocal_ranks
from openmofi.compile.int8 import to_int8
from openmofi.config import CompileSettings, ModelSettings, TrainSettings
from openmofi.embed import embed
from openmofi.embeddings import read_embeddings
from openmofi.errors import InputError, SettingsError
from openmofi.label.encoder import model_digest
from openmofi.model import MofiModel, load_model, save_model
from openmofi.model.dual import DualModel
from openmofi.model.mobileclip_image import MobileClipImageConfig
from openmofi.model.mobileclip_text import MobileClipTextConfig
from openmofi.model.presets import dual_of_towers
from openmofi.model.tokenizer import special_tokens, train_tokenizer
from openmofi.model.transform import Transform
from openmofi.train.loop import make_model

pytest.importorskip("onnxscript", reason="the extra onnx writes ONNX files")
pytest.importorskip("onnxruntime")

TEXTS = ["a crane", "a grey crane beside the lake, early in the morning", "lake", "", "flag " * 40]


def tiny_clip(tokenizer) -> transformers.CLIPModel:
    ids = special_tokens(tokenizer)
    sides = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2}
    config = transformers.CLIPConfig(
        text_config={
            **{**sides, "num_hidden_layers": 2, "vocab_size": ids.vocab_size},
            **{"max_position_embeddings": 16, "eos_token_id": ids.eos, "pad_token_id": ids.pad},
        },
        vision_config={**sides, "num_hidden_layers": 2, "image_size": 32, "patch_size": 8},
        projection_dim=24,
    )
    return transformers.CLIPModel(config)


def tiny_siglip(tokenizer) -> transformers.SiglipModel:
    sides = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2}
    sides["num_hidden_layers"] = 1
    config = transformers.SiglipConfig(
        text_config={**sides, "vocab_size": len(tokenizer), "max_position_embeddings": 16},
        vision_config={**sides, "image_size": 32, "patch_size": 8},
    )
    return transformers.SiglipModel(config)


def bert_dual(tokenizer) -> transformers.VisionTextDualEncoderModel:
    sides = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2}
    sides["num_hidden_layers"] = 1
    vision = transformers.ViTConfig(**sides, image_size=32, patch_size=8)
    text = transformers.BertConfig(**sides, vocab_size=len(tokenizer), max_position_embeddings=16)
    config = transformers.VisionTextDualEncoderConfig.from_vision_text_configs(
        vision, text, projection_dim=24
    )
    return transformers.VisionTextDualEncoderModel(config)


def tiny_mobileclip(tokenizer) -> DualModel:
    ids = special_tokens(tokenizer)
    image = MobileClipImageConfig((1, 1, 1, 1), (8, 16, 32, 64), image_size=32, projection_dim=24)
    text = MobileClipTextConfig(
        ids.vocab_size, 32, 1, 2, True, 24, 16, eos_token_id=ids.eos, pad_token_id=ids.pad
    )
    return dual_of_towers(image, text)


NETWORKS = {
    "clip": tiny_clip,
    "siglip": tiny_siglip,
    "bert": bert_dual,
    "mobileclip": tiny_mobileclip,
}


@pytest.fixture(scope="module")
def originals(tmp_path_factory, nano_dir) -> dict[str, Path]:
    """Directories of untrained dual encoders: causal, filled up to the context, masked."""
    torch.manual_seed(0)
    tokenizer = train_tokenizer(TEXTS, vocab_size=400, context_length=16)
    folders = {"nano": nano_dir}
    for name, make in NETWORKS.items():
        folders[name] = tmp_path_factory.mktemp(name)
        model = MofiModel(make(tokenizer).eval(), tokenizer, Transform(32))
        save_model(model, folders[name], card="# test\n")
    return folders


@pytest.fixture(scope="module")
def compiled(tmp_path_factory, originals) -> dict[str, Path]:
    made = {}
    for name, folder in originals.items():
        made[name] = tmp_path_factory.mktemp("compiled") / name
        compile_model(folder, out=made[name])
    return made


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """300 images, each of two colours and a little noise, with captions."""
    rng, folder = np.random.default_rng(0), tmp_path_factory.mktemp("photos")
    for i in range(300):
        image = rng.integers(0, 256, (2, 2, 3)).repeat(16, 0).repeat(16, 1)
        noisy = np.clip(image + rng.normal(0, 4, image.shape), 0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(folder / f"{i:03d}.png")
        (folder / f"{i:03d}.txt").write_text(f"flag number {i}")
    return folder


def _is_weighted(node, file: Path) -> bool:
    """Tells whether a product's second factor is a weight, be it rounded."""
    import onnx

    weights = {weight.name for weight in onnx.load(str(file)).graph.initializer}
    inputs = {name: list(n.input) for n in _nodes(file) for name in n.output}
    factor = node.input[1]
    return factor in weights or set(inputs[factor]) <= weights


def _nodes(file: Path) -> list:
    import onnx

    return list(onnx.load(str(file)).graph.node)


@pytest.mark.parametrize("kind", ["nano", *NETWORKS])
def test_a_compiled_model_gives_the_same_vectors(originals, compiled, kind):
    one, other = (load_model(folders[kind], device="cpu") for folders in (originals, compiled))
    pixels = np.random.default_rng(1).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    for count in (1, 5):
        np.testing.assert_allclose(
            one.encode_pixels(pixels[:count]), other.encode_pixels(pixels[:count]), atol=1e-5
        )
    for encode in ("encode_texts", "encode_texts_alone"):
        np.testing.assert_allclose(
            getattr(one, encode)(TEXTS), getattr(other, encode)(TEXTS), atol=1e-5
        )
    np.testing.assert_allclose(one.encode_texts("flag"), other.encode_texts("flag"), atol=1e-5)
    scales = [float(model.logit_scale.detach().reshape(())) for model in (one, other)]
    assert scales[0] == pytest.approx(scales[1])
    assert (one.dim, one.context_length) == (other.dim, other.context_length)


def test_an_encoder_of_images_alone_has_one_tower_and_keeps_its_class_rows(vit_dir, tmp_path):
    shutil.copytree(vit_dir, tmp_path / "vit")
    (tmp_path / "vit" / "entity_head").mkdir()
    (tmp_path / "vit" / "entity_head" / "ids.json").write_text("[]")
    summary = compile_model(tmp_path / "vit", out=tmp_path / "out")
    assert set(summary.largest_difference) == {"images"}
    assert not (tmp_path / "out" / "text_encoder.onnx").exists()
    assert not load_model(tmp_path / "out", device="cpu").reads_texts
    assert (tmp_path / "out" / "entity_head" / "ids.json").read_text() == "[]"


def test_it_is_a_model_like_any_other(compiled, photos, tmp_path):
    card = json.loads((compiled["nano"] / "compile.json").read_text())
    assert card["settings"]["int8"] is False
    assert card["model_sha256"]
    embed(compiled["nano"], photos, out=tmp_path / "photos.parquet")
    assert len(read_embeddings(tmp_path / "photos.parquet").vectors) == 300
    copy = tmp_path / "copy"
    save_model(load_model(compiled["nano"], device="cpu"), copy, card="# test\n")
    assert load_model(copy, device="cpu").encode_texts("flag").shape == (1, 256)
    assert model_digest(str(compiled["nano"])) != model_digest(str(compiled["clip"]))


def test_int8_is_smaller_and_close(nano_dir, compiled, photos, tmp_path):
    settings = CompileSettings(int8=True, sample=150, max_loss=100)
    summary = compile_model(nano_dir, out=tmp_path / "out", settings=settings, images=photos)
    assert set(summary.found) == {"crops", "captions"}
    assert all(0 < value <= 100 for pair in summary.found.values() for value in pair)
    assert summary.least_cosine is not None
    for file in ("image_encoder.onnx", "text_encoder.onnx"):
        small, large = (folder / file for folder in (tmp_path / "out", compiled["nano"]))
        assert small.stat().st_size < 0.5 * large.stat().st_size
    nodes = _nodes(tmp_path / "out" / "image_encoder.onnx")
    inputs = {name: node for node in nodes for name in node.output}
    [projection] = [node for node in nodes if node.op_type in ("Gemm", "MatMul")]
    assert projection.input[1] not in inputs, "its weights are no dequantised integers"
    assert any(node.op_type == "QuantizeLinear" for node in nodes)
    full, small = (load_model(folder, device="cpu") for folder in (nano_dir, tmp_path / "out"))
    pixels = np.stack([full.transform.pixels(path) for path in sorted(photos.glob("*.png"))])
    images = (full.encode_pixels(pixels) * small.encode_pixels(pixels)).sum(1)
    texts = (full.encode_texts(TEXTS) * small.encode_texts(TEXTS)).sum(1)
    assert images.mean() > 0.7  # untrained, its activations are wild
    assert texts.min() > 0.95


def test_in_int8_no_vector_depends_on_its_company(originals, photos, tmp_path):
    settings = CompileSettings(int8=True, sample=100, max_loss=100)
    compile_model(originals["bert"], out=tmp_path / "out", settings=settings, images=photos)
    model = load_model(tmp_path / "out", device="cpu")
    pixels = np.random.default_rng(1).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    for encode in (model.encode_pixels, lambda part: model.encode_pixels_alone(part, 64)):
        assert np.array_equal(encode(pixels)[3:4], encode(pixels[3:4]))
    for encode in (model.encode_texts, model.encode_texts_alone):
        assert np.array_equal(encode(TEXTS)[:1], encode(TEXTS[:1]))


def test_without_captions_texts_stay_in_32_bits(nano_dir, compiled, photos, tmp_path):
    bare = tmp_path / "bare"
    bare.mkdir()
    for path in photos.glob("*.png"):
        (bare / path.name).write_bytes(path.read_bytes())
    (bare / "broken.png").write_bytes(b"no image")
    settings = CompileSettings(int8=True, sample=172, max_loss=100)
    summary = compile_model(nano_dir, out=tmp_path / "out", settings=settings, images=bare)
    assert set(summary.found) == {"crops"}
    sizes = {
        folder: (folder / "text_encoder.onnx").stat().st_size
        for folder in (tmp_path / "out", compiled["nano"])
    }
    assert sizes[tmp_path / "out"] == pytest.approx(sizes[compiled["nano"]], rel=0.01)


def test_the_digest_is_that_of_the_networks_and_not_of_their_speed(compiled, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(compiled["nano"], copy)
    card = json.loads((copy / "compile.json").read_text())
    card["images_per_cpu_second"] = {}
    (copy / "compile.json").write_text(json.dumps(card))
    assert model_digest(str(copy)) == model_digest(str(compiled["nano"]))
    (copy / "text_encoder.onnx").write_bytes(b"another")
    assert model_digest(str(copy)) != model_digest(str(compiled["nano"]))


def test_a_transformer_in_int8_keeps_its_patches(compiled, tmp_path):
    assert to_int8(
        compiled["clip"] / "image_encoder.onnx", tmp_path / "small.onnx", np.zeros((1, 3, 32, 32))
    )
    kinds = [node.op_type for node in _nodes(tmp_path / "small.onnx")]
    assert "Conv" in kinds
    assert "MatMulInteger" in kinds


def test_in_int8_depthwise_convolutions_stay_in_32_bits_where_some_are_large(compiled, tmp_path):
    images = np.random.default_rng(0).random((16, 3, 32, 32), dtype=np.float32)
    out = tmp_path / "int8.onnx"
    assert not to_int8(compiled["mobileclip"] / "image_encoder.onnx", out, images)
    groups = {node.name: [a.i for a in node.attribute if a.name == "group"] for node in _nodes(out)}
    made = {name for node in _nodes(out) if "Dequantize" in node.op_type for name in node.output}
    rounded = {n.name for n in _nodes(out) if n.op_type == "Conv" and n.input[1] in made}
    whole = {node.name for node in _nodes(out) if node.op_type == "Conv"} - rounded
    assert rounded
    assert whole
    assert all(groups[name] == [1] for name in rounded)
    assert all(groups[name] > [1] for name in whole)
    products = [node for node in _nodes(out) if node.op_type in ("Gemm", "MatMul")]
    weighted = [node for node in products if _is_weighted(node, out)]
    assert len(weighted) > 1
    *inside, projection = [node.input[1] in made for node in weighted]
    assert all(inside)
    assert not projection
    between = [name in made for n in products if n not in weighted for name in n.input]
    assert between
    assert not any(between)


def test_int8_that_finds_less_is_refused_and_leaves_nothing(
    nano_dir, photos, tmp_path, monkeypatch
):
    def spoilt(file, out, examples=None):
        import onnx

        model = onnx.load(str(file))
        for weight in model.graph.initializer:
            values = onnx.numpy_helper.to_array(weight)
            if values.ndim > 1 and values.dtype == np.float32:
                lost = onnx.numpy_helper.from_array(np.zeros_like(values), weight.name)
                weight.CopyFrom(lost)
        onnx.save(model, str(out))

    monkeypatch.setattr("openmofi.compile.compile.to_int8", spoilt)
    settings = CompileSettings(int8=True, sample=150, max_loss=0)
    with pytest.raises(InputError, match=r"In 8 bits, \w+ find their image worse: mAP .* nothing"):
        compile_model(nano_dir, out=tmp_path / "out", settings=settings, images=photos)
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_compiled_is_refused(nano_dir, compiled, photos, tmp_path):
    int8 = CompileSettings(int8=True)
    with pytest.raises(SettingsError, match="--int8 needs --images"):
        compile_model(nano_dir, out=tmp_path / "out", settings=int8)
    few = tmp_path / "few"
    few.mkdir()
    (few / "000.png").write_bytes((photos / "000.png").read_bytes())
    with pytest.raises(InputError, match="has 1 readable images; --int8 needs at least 228"):
        compile_model(nano_dir, out=tmp_path / "out", settings=int8, images=few)
    with pytest.raises(InputError, match="is an ONNX file already"):
        compile_model(compiled["nano"], out=tmp_path / "out")
    with pytest.raises(InputError, match="exists and is not a compiled model"):
        compile_model(nano_dir, out=few)
    assert not (tmp_path / "out").exists()


def test_a_compiled_model_is_not_trained(compiled):
    settings = TrainSettings(model=ModelSettings(init=str(compiled["nano"])))
    with pytest.raises(InputError, match="computed by onnxruntime, which cannot train it"):
        make_model(settings, None, device="cpu")


def test_reciprocal_ranks_are_those_of_a_slow_count():
    rng = np.random.default_rng(0)
    queries, targets = rng.integers(-2, 3, (6, 2)).astype(float), rng.integers(-2, 3, (8, 2))
    own = rng.integers(0, 8, 6)
    for query, row, found in zip(
        queries, own, reciprocal_ranks(queries, targets, own), strict=True
    ):
        cosines = [float(query @ target) for target in targets]
        better = sum(cosine > cosines[row] for cosine in cosines)
        equal = sum(cosine == cosines[row] for cosine in cosines) - 1
        assert found == 1 / (1 + better + equal / 2)


def test_a_middle_is_the_inner_part_enlarged():
    image = np.zeros((1, 20, 20, 3), np.uint8)
    image[0, 3:17, 3:17] = 200
    assert (middles(image) == 200).all()
