"""Shared test set-up: few threads, runtime shape checks, and tiny inputs made on the spot."""

import atexit
import io
import json
import os
import shutil
import sys
import tarfile
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Read when Triton, where it is installed, is first imported; the kernels are tested without a GPU.
os.environ.setdefault("TRITON_INTERPRET", "1")
# Verbs keep vectors there; a test's own must not outlive it, nor those of the user help it.
os.environ["OPENMOFI_CACHE"] = tempfile.mkdtemp(prefix="openmofi-test-cache-")
atexit.register(shutil.rmtree, os.environ["OPENMOFI_CACHE"], ignore_errors=True)

from jaxtyping import install_import_hook  # noqa: E402

# The modules that are dense maths: their shape annotations are checked at every call.
install_import_hook(
    [
        "openmofi.evaluate.metrics",
        "openmofi.label.background",
        "openmofi.label.joint_weights",
        "openmofi.label.score",
        "openmofi.model.transform",
        "openmofi.select.calibrate",
        "openmofi.train.augment",
        "openmofi.train.entity_head",
        "openmofi.train.linear_maps",
        "openmofi.train.losses",
        "openmofi.train.margins",
        "openmofi.train.order",
    ],
    "beartype.beartype",
)

import numpy as np  # noqa: E402
import pytest  # noqa: E402
from hypothesis import settings  # noqa: E402
from PIL import Image  # noqa: E402

# How long an example takes says more of the machine's other work than of the code.
settings.register_profile("openmofi", deadline=None)
settings.load_profile("openmofi")

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first, so that no core waits for the other at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(autouse=True)
def _same_random_numbers() -> None:
    """A test draws the same numbers, whatever ran before it in its process."""
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real material for development; tests that need it skip where it is absent."""
    if not SHARED.is_dir():
        pytest.skip("the shared development data is not beside this checkout")
    return SHARED


def jpeg(colour: tuple[int, int, int] = (200, 30, 30), side: int = 32) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), colour).save(buffer, "JPEG")
    return buffer.getvalue()


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


@pytest.fixture(scope="session")
def nano_dir(tmp_path_factory) -> Path:
    """An untrained nano model, saved."""
    return _write_nano(tmp_path_factory.mktemp("nano"), seed=0, size=32)


@pytest.fixture(scope="session")
def other_nano_dir(tmp_path_factory) -> Path:
    """Another one, which sees larger images."""
    return _write_nano(tmp_path_factory.mktemp("nano"), seed=1, size=48)


def _write_nano(folder: Path, *, seed: int, size: int) -> Path:
    import torch

    from openmofi.model import MofiModel, save_model
    from openmofi.model.presets import build_network
    from openmofi.model.tokenizer import special_tokens, train_tokenizer
    from openmofi.model.transform import Transform

    torch.manual_seed(seed)
    tokenizer = train_tokenizer(["a flag of georgia"], vocab_size=400, context_length=20)
    network = build_network("nano", special_tokens(tokenizer), image_size=size)
    for module in network.modules():  # without real statistics its features would vanish
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    pixels = torch.randn(8, 3, size, size)
    network.train()(input_ids=torch.ones(8, 4).long(), pixel_values=pixels)
    save_model(MofiModel(network, tokenizer, Transform(size)), folder, card="# test\n")
    return folder


@pytest.fixture(scope="session")
def vit_dir(tmp_path_factory) -> Path:
    """An untrained encoder of images alone, saved by transformers."""
    import torch
    import transformers

    torch.manual_seed(0)
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    config = transformers.ViTConfig(**shape, num_attention_heads=2, image_size=16, patch_size=8)
    folder = tmp_path_factory.mktemp("vit")
    transformers.ViTModel(config).save_pretrained(folder)
    processor = {"size": {"height": 16, "width": 16}, "image_mean": [0.5] * 3}
    processor |= {"image_std": [0.5] * 3, "do_resize": True}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)
