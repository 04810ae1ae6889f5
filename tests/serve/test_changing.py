"""What the server drops and makes again when its index, model or images change."""

import gc
import json
import os
import shutil
import weakref

import numpy as np
import pyarrow.parquet as pq
import pytest

import fruit
from indexed import write_embeddings
from openmofi.search import Index
from openmofi.serve import served
from orchard import client_of, code_of, wait_until, write_orchard


@pytest.fixture(scope="module")
def orchard(tmp_path_factory, nano_dir):
    return write_orchard(tmp_path_factory.mktemp("orchard"), nano_dir)


@pytest.fixture
def index(orchard, tmp_path, monkeypatch):
    monkeypatch.setattr(served, "_LOOK_AGAIN", 0.0)
    return shutil.copytree(orchard.index, tmp_path / "index")


def test_what_a_changed_index_replaces_is_freed(index):
    with client_of(index) as client:
        assert client.post("/api/tag", json={"row": 3}).status_code == 200
        first = weakref.ref(client.app.state.served.library)
        for row in (0, 1):
            generation = Index.open(index).delete([row]).generation
            wait_until(lambda: client.get("/api/info").json()["generation"] == generation)  # noqa: B023
        wait_until(lambda: gc.collect() >= 0 and first() is None, seconds=5)


def test_uploads_mean_nothing_to_another_model(index, nano_dir, tmp_path):
    other = str(shutil.copytree(nano_dir, tmp_path / "other"))
    with client_of(index) as client:
        upload = client.post("/api/uploads", content=fruit.photo("red")).json()["id"]
        question = {"terms": [{"upload": upload}]}
        assert client.post("/api/search", json=question).status_code == 200
        meta = json.loads((index / "meta.json").read_text()) | {"model": other}
        (tmp_path / "meta.json").write_text(json.dumps(meta))
        (tmp_path / "meta.json").replace(index / "meta.json")
        wait_until(lambda: client.get("/api/info").json()["model"] == other)
        wait_until(lambda: client.post("/api/search", json=question).status_code == 404, seconds=5)
        assert code_of(client.post("/api/search", json=question)) == "upload_gone"


@pytest.mark.parametrize(("folder", "time"), [("photos", 2), ("more", 1)])
def test_a_file_that_was_replaced_or_has_a_namesake_gets_its_own_thumbnail(tmp_path, folder, time):
    index = Index.build(_photo(tmp_path / "photos", "red", time=1), tmp_path / "index")
    with client_of(index) as client:
        red = client.get("/api/images/0/thumbnail").content
        assert client.get("/api/images/0/thumbnail").content == red
    index = index.add(_photo(tmp_path / folder, "lime", time=time))
    with client_of(index) as client:
        assert client.get("/api/images/1/thumbnail").content not in (red, b"")


def _photo(folder, name, *, time):
    """Writes a.jpg, and what `embed` says of a folder with it."""
    folder.mkdir(exist_ok=True)
    (folder / "a.jpg").write_bytes(fruit.photo(name).ljust(50_000, b"\0"))
    os.utime(folder / "a.jpg", (time, time))
    loose = {"shard": [""], "offset": [-1], "size": [0]}
    vectors = np.eye(1, 8, dtype=np.float32)
    source = write_embeddings(folder / "e.parquet", vectors, root=folder, **loose)
    rows = pq.read_table(source)
    pq.write_table(rows.set_column(rows.column_names.index("path"), "path", [["a.jpg"]]), source)
    return source
