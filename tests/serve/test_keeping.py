"""What the server keeps: thumbnails on the disk, counts, and the page's files."""

import os
import time

import pytest

import fruit
from openmofi.errors import InputError
from openmofi.refused import Refused
from openmofi.search import Searcher
from openmofi.serve.metrics import Metrics
from openmofi.serve.thumbnail_cache import Side, ThumbnailCache
from orchard import client_of, together, write_orchard


@pytest.fixture(scope="module")
def orchard(tmp_path_factory, nano_dir):
    return write_orchard(tmp_path_factory.mktemp("orchard"), nano_dir)


def _image(number=0):
    return fruit.photo("lime", number, side=300)


def test_a_thumbnail_is_read_from_the_image_once(tmp_path):
    cache, asked = ThumbnailCache(tmp_path, 2**20, Metrics()), []

    def read():
        asked.append(1)
        return _image()

    made = [cache.get(("a", 1), Side.SMALL, read) for _ in range(3)]
    assert len(set(made)) == len(asked) == 1
    assert made[0][:4] + made[0][8:12] == b"RIFFWEBP"
    assert cache.get(("a", 1), Side.LARGE, read) != made[0]
    assert cache.get(("a", 2), Side.SMALL, read) == made[0]
    assert len(asked) == 3


def test_many_at_once_leave_whole_files(tmp_path):
    cache = ThumbnailCache(tmp_path, 2**30, Metrics())
    found = together(16, lambda i: cache.get((i % 2,), Side.SMALL, lambda: _image(i % 2)))
    assert len(set(found)) == 2
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert sorted(path.read_bytes() for path in files) == sorted(set(found))


def test_the_oldest_thumbnails_go_when_they_are_too_many(tmp_path):
    one = len(ThumbnailCache(tmp_path / "x", 2**30, Metrics()).get((0,), Side.SMALL, _image))
    cache = ThumbnailCache(tmp_path / "c", 10 * one, Metrics())
    for number in range(30):
        cache.get((number,), Side.SMALL, lambda number=number: _image(number))
        newest = max((tmp_path / "c").rglob("*.webp"), key=lambda path: path.stat().st_mtime_ns)
        os.utime(newest, (number, number))
    files = list((tmp_path / "c").rglob("*.webp"))
    assert sum(path.stat().st_size for path in files) <= 10 * one
    assert len(files) >= 6
    assert min(path.stat().st_mtime for path in files) > 15


def test_a_disk_that_cannot_be_written_costs_time_only(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    cache = ThumbnailCache(tmp_path / "file", 2**20, Metrics())
    assert cache.get((0,), Side.SMALL, _image)[:4] == b"RIFF"


def test_a_reason_is_not_kept(tmp_path):
    cache = ThumbnailCache(tmp_path, 2**20, Metrics())
    assert cache.get((0,), Side.SMALL, lambda: b"nothing") == Refused("corrupt_image")
    assert cache.get((0,), Side.SMALL, _image)[:4] == b"RIFF"


def test_requests_are_counted_by_route_and_status(orchard):
    with client_of(orchard.index) as client:
        for path in ("/api/images/0", "/api/images/1", "/api/images/999", "/no/such", "/nor/this"):
            client.get(path)
        client.get("/api/images/3/thumbnail?side=512")
        client.get("/api/images/3/thumbnail?side=512")
        counts = _counts(client)
    route = 'openmofi_requests_total{method="GET",route="/api/images/{row}",status="%s"}'
    assert (counts[route % 200], counts[route % 404]) == (2, 1)
    assert counts['openmofi_requests_total{method="any",route="none",status="404"}'] == 2
    assert counts['openmofi_seconds_count{route="/api/images/{row}"}'] == 3
    assert counts['openmofi_thumbnails_total{found="yes"}'] >= 1


def _counts(client):
    lines = client.get("/metrics").text.splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {name: float(value) for name, value in pairs}


def test_two_servers_count_for_themselves(orchard):
    with client_of(orchard.index) as one, client_of(orchard.index) as other:
        one.get("/api/images/0")
        name = 'openmofi_seconds_count{route="/api/images/{row}"}'
        assert (_counts(one)[name], _counts(other).get(name)) == (1, None)


def test_the_page_and_its_modules_are_served_with_their_types(orchard):
    with client_of(orchard.index) as client:
        page = client.get("/")
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        assert "script-src 'self'" in page.headers["content-security-policy"]
        module = client.get("/static/app.js")
        assert module.headers["content-type"].startswith("text/javascript")
        again = client.get("/static/app.js", headers={"if-none-match": module.headers["etag"]})
        assert (again.status_code, again.headers["cache-control"]) == (304, "no-cache")


def test_the_first_answer_does_not_wait_for_the_encoder(orchard, monkeypatch):
    def load_slowly(_):
        time.sleep(2)
        raise InputError("There is no model after all.")

    monkeypatch.setattr(Searcher, "encoder", property(load_slowly))
    begin = time.monotonic()
    with client_of(orchard.index) as client:
        assert client.post("/api/search", json={}).status_code == 200
        assert time.monotonic() - begin < 1.5
