"""A site whose entities are images that an untrained encoder saw, and a browser to open it."""

import functools
import http.server
import json
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from chromium import chromium, is_required, open_page
from openmofi.compile import compile_model
from openmofi.kb import build_kb
from openmofi.model import load_model
from openmofi.model.class_rows import FOLDER
from openmofi.tag.abstain import TagCalibration
from openmofi.web import write_site
from openmofi.web.runtime import copy_runtime
from soft_patches import NUM_THINGS, draw


@pytest.fixture(scope="session")
def runtime(tmp_path_factory) -> Path:
    """The unpacked files of onnxruntime-web."""
    if not shutil.which("npm") and not is_required():
        pytest.skip("there is no npm to fetch onnxruntime-web")
    folder = tmp_path_factory.mktemp("runtime")
    copy_runtime(None, folder)
    return folder


@pytest.fixture(scope="session")
def known(tmp_path_factory, nano_dir) -> tuple[Path, Path]:
    """A compiled model with a class row for each of some images, calibrated; and its names."""
    pytest.importorskip("onnxscript", reason="the extra onnx writes ONNX files")
    folder = tmp_path_factory.mktemp("known")
    compile_model(nano_dir, out=folder / "model")
    model = load_model(folder / "model", device="cpu")
    rows = np.concatenate([model.encode_images([draw(i)]) for i in range(NUM_THINGS)])
    ids = [f"thing{i}" for i in range(NUM_THINGS)]
    head = folder / "model" / FOLDER
    head.mkdir()
    save_file({"rows": torch.from_numpy(rows)}, head / "rows.safetensors")
    (head / "ids.json").write_text(json.dumps(ids))
    scores = np.linspace(0.5, 1, 50, dtype=np.float32)
    TagCalibration(scores, scores > 0.8, scores).write(folder / "model/tag_calibration.parquet")
    lines = [f"{name},Thing {i} <b>,number {i}" for i, name in enumerate(ids)]
    (folder / "things.csv").write_text("\n".join(["id,name,description", *lines]))
    return folder / "model", build_kb(folder / "things.csv", out=folder / "kb").out


@pytest.fixture(scope="session")
def site_folder(tmp_path_factory, known, runtime) -> Path:
    model, kb = known
    out = tmp_path_factory.mktemp("site") / "site"
    return write_site(model, out=out, kb=kb, runtime=runtime, error_rate=0.1).out


@pytest.fixture(scope="session")
def site(site_folder):
    """The address of a plain file server."""
    handler = functools.partial(_Quiet, directory=site_folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="package")  # its event loop must not outlive the tests that need it
def browser():
    with chromium() as running:
        yield running


@pytest.fixture
def page(browser, site):
    """A page that asks nobody but the server, is refused nothing and logs no error."""
    yield from open_page(browser, site, refusals=True)


@pytest.fixture
def troubled(browser, site):
    """A page that may be refused something."""
    yield from open_page(browser, site, refusals=False)
