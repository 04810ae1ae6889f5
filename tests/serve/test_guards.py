"""What is kept out: strangers, other sites' pages, bodies without end, paths, URLs, odd JSON."""

import asyncio
import json

import pytest

import fruit
from openmofi.serve import uploads
from orchard import ADDRESS, client_of, code_of, write_orchard

TOKEN = "a wörd nobody guesses"


@pytest.fixture(scope="module")
def orchard(tmp_path_factory, nano_dir):
    return write_orchard(tmp_path_factory.mktemp("orchard"), nano_dir)


@pytest.fixture(scope="module")
def client(orchard):
    with client_of(orchard.index) as client:
        yield client


@pytest.fixture
def guarded(orchard):
    with client_of(orchard.index, token=TOKEN) as client:
        yield client


def _bearer(token):
    return {"authorization": b"Bearer " + token.encode()}


# ---- who asks ---------------------------------------------------------------------------------


def test_with_a_token_only_the_page_and_health_are_open(guarded):
    for path in ("/healthz", "/", "/static/index.html"):
        assert guarded.get(path).status_code == 200, path
    for path in ("/api/info", "/metrics", "/openapi.json", "/api/images/0/file", "/nowhere"):
        answer = guarded.get(path)
        assert (answer.status_code, code_of(answer)) == (401, "token_needed"), path
        assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("token", ["", "wrong", TOKEN[:-1], TOKEN + "x", "é" * 500])
def test_a_wrong_token_is_refused_wherever_it_is_put(guarded, token):
    given = token.encode()
    headers = [{"authorization": b"Bearer " + given}, {"authorization": b"Basic " + given}]
    for header in [*headers, {"cookie": b"openmofi_token_80=" + given}]:
        assert guarded.get("/api/info", headers=header).status_code == 401
    assert guarded.post("/api/login", json={"token": token}).status_code == 401


def test_the_right_token_opens_as_bearer_and_as_cookie(guarded):
    assert guarded.get("/api/info", headers=_bearer(TOKEN)).status_code == 200
    answer = guarded.post("/api/login", json={"token": TOKEN})
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert "guess" not in cookie
    assert guarded.get("/api/info").status_code == 200


def test_a_token_is_taken_as_bearer_only(guarded):
    headers = {"authorization": b"Basic " + TOKEN.encode()}
    assert guarded.get("/api/info", headers=headers).status_code == 401


def test_servers_of_one_host_have_cookies_of_their_own(orchard, guarded):
    with client_of(orchard.index, token=TOKEN, base_url=f"{ADDRESS}:8081") as other:
        given = other.post("/api/login", json={"token": TOKEN}).headers["set-cookie"]
        assert other.get("/api/info").status_code == 200
    assert guarded.get("/api/info", headers={"cookie": given}).status_code == 401
    assert guarded.post("/api/login", json={"token": TOKEN}).cookies.get("openmofi_token_80")


def test_a_token_in_the_address_signs_in_and_leaves_it(guarded):
    answer = guarded.get("/", params={"token": TOKEN, "view": "map"}, follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/?view=map")
    assert guarded.get("/api/info").status_code == 200
    assert guarded.get("/", params={"token": "wrong"}).status_code == 401


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil", "", "[::1]"])
def test_other_names_of_this_machine_are_not_answered(client, host):
    answer = client.get("/api/info", headers={"host": host})
    assert (answer.status_code, code_of(answer)) == (403, "foreign_host")


@pytest.mark.parametrize("host", ["localhost:8080", "127.0.0.1:1", "LOCALHOST"])
def test_its_own_names_are_answered(client, host):
    assert client.get("/api/info", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "header",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://["},
        {"origin": "http://127.0.0.1:9"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
def test_pages_of_other_sites_may_not_post(client, header):
    for path in ("/api/search", "/api/uploads", "/api/tag", "/api/login"):
        answer = client.post(path, json={}, headers=header)
        assert (answer.status_code, code_of(answer)) == (403, "foreign_origin")


@pytest.mark.parametrize("header", [{}, {"origin": ADDRESS}, {"sec-fetch-site": "same-origin"}])
def test_its_own_page_may_post(client, header):
    assert client.post("/api/search", json={}, headers=header).status_code == 200


def test_every_answer_has_the_safe_headers(client):
    for path in ("/", "/api/info", "/nowhere", "/static/none.js", "/api/images/0/file"):
        headers = client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff", path
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["x-frame-options"] == "SAMEORIGIN"
        assert headers["cross-origin-opener-policy"] == "same-origin"
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]


# ---- how much it sends ------------------------------------------------------------------------


def test_a_body_that_says_it_is_too_large_is_not_read(client):
    told = {"content-length": str(10**9), "content-type": "image/png"}
    answer = client.post("/api/uploads", content=b"x", headers=told)
    assert (answer.status_code, code_of(answer)) == (413, "body_too_large")


@pytest.mark.parametrize("length", ["-1", "1e9", "٣", "9" * 400])
def test_a_length_that_is_none_is_refused(client, length):
    answer = client.post("/api/uploads", content=b"", headers={"content-length": length.encode()})
    assert answer.status_code == 413


def test_a_gigabyte_in_chunks_is_refused_once_it_passes_the_cap(client):
    sent, answers = _send_chunks(client.app, "/api/uploads", chunk=b"\0" * 2**20, count=1024)
    assert answers[0]["status"] == 413
    assert sent <= 21
    sent, answers = _send_chunks(client.app, "/api/search", chunk=b"[" * 2**16, count=1024)
    assert answers[0]["status"] == 413
    assert sent <= 17


def _send_chunks(app, path, *, chunk, count):
    """Sends a body without a length; returns (chunks that were asked for, what was answered)."""
    sent = 0

    async def receive():
        nonlocal sent
        sent += 1
        return {"type": "http.request", "body": chunk, "more_body": sent < count}

    return sent, asyncio.run(_post(app, path, receive))


async def _post(app, path, receive):
    """Posts what `receive` returns; returns what was answered."""
    kind = b"image/png" if "up" in path else b"application/json"
    headers = [(b"host", b"127.0.0.1"), (b"content-type", kind)]
    scope = {"type": "http", "method": "POST", "path": path, "headers": headers}
    scope |= {"query_string": b"", "raw_path": path.encode(), "root_path": ""}
    answers = []

    async def send(message):
        answers.append(message)

    await app(scope, receive, send)
    return answers


def test_an_upload_that_breaks_off_ends_without_a_fault(client):
    messages = [{"type": "http.request", "body": b"x", "more_body": True}]
    messages += [{"type": "http.disconnect"}]

    async def receive():
        return messages.pop(0)

    assert asyncio.run(_post(client.app, "/api/uploads", receive))[0]["status"] == 400


def test_few_of_many_uploads_are_in_memory_at_once(client):
    begun, data = [], fruit.photo("red")

    async def send_all():
        go_on = asyncio.Event()

        async def receive():
            begun.append(1)
            await go_on.wait()
            return {"type": "http.request", "body": data}

        tasks = [
            asyncio.ensure_future(_post(client.app, "/api/uploads", receive)) for _ in "x" * 40
        ]
        while len(begun) < uploads.READ_AT_ONCE:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.3)
        held = len(begun)
        go_on.set()
        return held, await asyncio.gather(*tasks)

    held, answers = asyncio.run(asyncio.wait_for(send_all(), 60))
    assert held == uploads.READ_AT_ONCE
    assert [answer[0]["status"] for answer in answers] == [200] * 40


def test_an_upload_that_does_not_end_makes_way(client, monkeypatch):
    monkeypatch.setattr(uploads, "_READ_SECONDS", 0.1)
    answers = asyncio.run(_post(client.app, "/api/uploads", asyncio.Event().wait))
    assert answers[0]["status"] == 408


# ---- what it sends ----------------------------------------------------------------------------

SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
BAD_IMAGES = {name: data for name, (data, _) in fruit.BAD.items()}
BAD_IMAGES |= {
    "empty": b"",
    "zero_bytes": b"\0" * 1000,
    "svg": SVG,
    "zip": b"PK\3\4" + b"\0" * 99,
}
BAD_IMAGES |= {"html": b"<!doctype html><script>alert(1)</script>", "pdf": b"%PDF-1.7 " * 9}
BAD_IMAGES |= {"header_alone": fruit.photo("red", kind="PNG")[:33]}


@pytest.mark.parametrize("name", BAD_IMAGES)
def test_a_body_that_is_no_image_is_refused_with_its_reason(client, name):
    answer = client.post("/api/uploads", content=BAD_IMAGES[name])
    reason = fruit.BAD.get(name, (b"", "corrupt_image"))[1]
    status = 413 if reason == "image_too_large" else 400
    assert (answer.status_code, code_of(answer)) == (status, reason)


@pytest.mark.parametrize("name", fruit.GOOD)
def test_odd_but_sound_images_are_taken(client, name):
    assert client.post("/api/uploads", content=fruit.GOOD[name]).status_code == 200


@pytest.mark.parametrize(
    "kind", ["text/html", "multipart/form-data; boundary=x", "application/json"]
)
def test_a_body_of_another_type_is_refused(client, kind):
    answer = client.post("/api/uploads", content=fruit.photo("red"), headers={"content-type": kind})
    assert (answer.status_code, code_of(answer)) == (415, "not_a_picture")


@pytest.mark.parametrize("data", [SVG, b"<html><script>1</script></html>", b"%!PS", b"II*\0" * 9])
def test_a_stored_file_that_is_no_image_is_not_sent(orchard, data):
    kept = (orchard.images / "007.jpg").read_bytes()
    (orchard.images / "007.jpg").write_bytes(data.ljust(len(kept)))
    try:
        with client_of(orchard.index) as client:
            answer = client.get("/api/images/7/file")
            assert (answer.status_code, code_of(answer)) == (415, "not_a_web_picture")
            assert client.get("/api/images/7/thumbnail").status_code == 400
    finally:
        (orchard.images / "007.jpg").write_bytes(kept)


@pytest.mark.parametrize(
    "path",
    [
        "/static/../app.py",
        "/static/%2e%2e/app.py",
        "/static/..%2fapp.py",
        "/static/..%5capp.py",
        "/static//etc/passwd",
        "/static/%00",
        "/static/" + "a" * 5_000,
        "/evaluation/../../etc/passwd.html",
        "/evaluation/%2e%2e%2fetc%2fpasswd.html",
        "/api/images/../../etc/passwd/file",
        "/api/images/-1/file",
        "/api/images/1e3/file",
        "/api/images/99999999999999999999999/file",
        "/api/uploads/..%2f..%2fetc%2fpasswd/thumbnail",
        "/api/entities/..%2f..%2fetc%2fpasswd",
        "/api/entities/%00",
        "/api/entities/%ED%A0%80",
    ],
)
def test_no_path_leads_out(client, path):
    answer = client.get(path)
    assert answer.status_code in (404, 422)
    assert b"root:" not in answer.content
    assert b"import" not in answer.content


@pytest.mark.parametrize(
    "term",
    [
        {"url": "http://169.254.169.254/latest/meta-data"},
        {"image": "/etc/passwd"},
        {"vector": [0.1]},
        {"text": "a", "url": "file:///etc/passwd"},
        {"upload": "http://169.254.169.254"},
        {"upload": "../../etc/passwd"},
        {"row": 1, "entity": "red"},
        {},
        "red",
        None,
    ],
)
def test_no_term_names_a_place_to_read_from(client, term):
    answer = client.post("/api/search", json={"terms": [term]})
    assert (answer.status_code, code_of(answer)) == (422, "invalid_request")


JSON = {"content-type": "application/json"}


@pytest.mark.parametrize(
    "body",
    [
        '{"terms": [{"text": "\\ud800"}]}',
        '{"terms": [{"text": "a\\u0000b"}]}',
        '{"terms": [{"entity": "\\udfff"}]}',
        '{"terms": [{"row": ' + "9" * 5_000 + "}]}",
        '{"terms": [{"row": 1e400}]}',
        '{"terms": [{"row": true}]}',
        '{"terms": [{"row": "1"}]}',
        '{"terms": [{"row": 1, "weight": NaN}]}',
        '{"terms": [{"row": 1, "weight": Infinity}]}',
        '{"terms": [{"row": 1, "weight": 11}]}',
        '{"min_score": NaN}',
        '{"k": 0}',
        '{"k": 501}',
        '{"offset": -1}',
        '{"filter": {"lasso": [[0, 0], [1, 1]]}}',
        '{"filter": {"lasso": [[0, 0], [1, 1], [11, 0]]}}',
        '{"filter": {"no_such": 1}}',
        "[" * 100_000,
        '{"terms": ' + "[" * 5_000 + "]" * 5_000 + "}",
        "{",
        "",
        "null",
        "\x00",
    ],
)
def test_json_that_is_not_asked_for_is_refused(client, body):
    answer = client.post("/api/search", content=body, headers=JSON)
    assert (answer.status_code, code_of(answer)) == (422, "invalid_request")


def test_bytes_that_are_no_text_are_refused(client):
    for body in (b"\xff\xfe{", b'{"terms": [{"text": "\xed\xa0\x80"}]}', bytes(range(256))):
        assert client.post("/api/search", content=body, headers=JSON).status_code == 422


def test_many_and_long_terms_have_bounds(client):
    for terms in ([{"row": 0}] * 33, [{"text": "a" * 2_001}], [{"text": ""}]):
        assert client.post("/api/search", json={"terms": terms}).status_code == 422
    lasso = [[0.5, 0.5]] * 1_001
    assert client.post("/api/search", json={"filter": {"lasso": lasso}}).status_code == 422


def test_another_method_is_405_in_the_same_shape(client):
    answer = client.delete("/api/info")
    assert (answer.status_code, code_of(answer)) == (405, "method_not_allowed")
    assert answer.headers["allow"] == "GET"


def test_a_fault_of_the_server_tells_nothing_of_its_inside(orchard, monkeypatch):
    from starlette.testclient import TestClient

    from openmofi.serve import make_app
    from openmofi.serve.api import info

    monkeypatch.setattr(info, "Abilities", lambda **_: 1 / 0)
    app = make_app(orchard.index)
    answer = TestClient(app, base_url=ADDRESS, raise_server_exceptions=False).get("/api/info")
    assert (answer.status_code, code_of(answer)) == (500, "internal_error")
    assert "division" not in json.dumps(answer.json())


def test_who_only_looks_whether_it_lives_gets_headers(orchard):
    with client_of(orchard.index) as client:
        for path in ("/healthz", "/"):
            answer = client.head(path)
            assert (answer.status_code, answer.content) == (200, b"")
