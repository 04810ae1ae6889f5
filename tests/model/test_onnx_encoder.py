"""Image encoders in ONNX files: used, saved and refused like any other."""

import json
import sys

import numpy as np
import pytest

from openmofi.errors import InputError
from openmofi.model import load_model, save_model

onnx = pytest.importorskip("onnx", reason="the package onnx writes the networks of these tests")
pytest.importorskip("onnxruntime")
SIDE = 8
PIXELS = np.random.default_rng(0).integers(0, 256, (5, SIDE, SIDE, 3), dtype=np.uint8)


def _write(folder, *, batch="n", outputs=("features",), inputs=("image",), processor=True):
    """Writes a network whose features are the means of the three channels."""
    from onnx import TensorProto, helper

    shape = [batch, 3, SIDE, SIDE]
    nodes = [
        helper.make_node("GlobalAveragePool", [inputs[0]], ["map"]),
        helper.make_node("Flatten", ["map"], ["features"]),
        helper.make_node("Transpose", [inputs[0]], ["places"], perm=[0, 1, 3, 2]),
    ]
    kinds = {"features": [batch, 3], "map": [batch, 3, 1, 1], "places": [batch, 3, SIDE, SIDE]}
    graph = helper.make_graph(
        nodes,
        "means",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in inputs],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, kinds[n]) for n in outputs],
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), folder / "net.onnx")
    if processor:
        config = {"size": {"height": SIDE, "width": SIDE}, "do_center_crop": False}
        config |= {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
        (folder / "preprocessor_config.json").write_text(json.dumps(config))
    return folder / "net.onnx"


def _expected():
    means = (PIXELS / 255 - 0.5).mean((1, 2)) / 0.5
    return means / np.linalg.norm(means, axis=1, keepdims=True)


@pytest.mark.parametrize("batch", ["n", 1, 2])
@pytest.mark.parametrize("outputs", [("features",), ("places", "features"), ("places",)])
def test_a_file_gives_its_features_whatever_batch_it_was_written_for(tmp_path, batch, outputs):
    model = load_model(_write(tmp_path, batch=batch, outputs=outputs), device="cpu")
    assert (model.dim, model.reads_texts) == (3, False)
    np.testing.assert_allclose(model.encode_pixels(PIXELS), _expected(), atol=1e-5)


def test_a_saved_model_carries_the_file_along(tmp_path):
    model = load_model(_write(tmp_path), device="cpu")
    save_model(model, tmp_path / "model", card="")
    (tmp_path / "net.onnx").unlink()
    loaded = load_model(tmp_path / "model", device="cpu")
    np.testing.assert_allclose(loaded.encode_pixels(PIXELS), _expected(), atol=1e-5)


def test_a_file_without_a_description_of_its_images_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"preprocessor_config.json' is missing; net.onnx needs"):
        load_model(_write(tmp_path, processor=False), device="cpu")


def test_what_is_no_network_of_one_image_is_refused_in_one_sentence(tmp_path):
    with pytest.raises(InputError, match="There is no file"):
        load_model(tmp_path / "none.onnx", device="cpu")
    file = _write(tmp_path, inputs=("image", "other"))
    with pytest.raises(InputError, match="expected one input"):
        load_model(file, device="cpu")
    file.write_bytes(b"nothing")
    with pytest.raises(InputError, match="onnxruntime cannot open"):
        load_model(file, device="cpu")


def test_a_size_that_the_network_does_not_take_is_refused(tmp_path):
    file = _write(tmp_path)
    config = json.loads((tmp_path / "preprocessor_config.json").read_text())
    config["size"] = {"height": 9, "width": 9}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="does not encode an image of 9 x 9 pixels"):
        load_model(file, device="cpu")


def test_the_extra_is_named_where_the_runtime_is_missing(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(InputError, match=r"pip install 'openmofi\[onnx\]'"):
        load_model(_write(tmp_path), device="cpu")
