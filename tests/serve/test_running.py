"""The server as a process: it starts, stops, and says why it does not."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading

import httpx
import pytest

from openmofi.errors import InputError
from openmofi.serve import serve
from orchard import write_orchard

pytestmark = pytest.mark.slow

CODE = """
import sys, time
from openmofi.serve import serve
serve(sys.argv[1], port=int(sys.argv[2]))
"""


@pytest.fixture(scope="module")
def orchard(tmp_path_factory, nano_dir):
    return write_orchard(tmp_path_factory.mktemp("orchard"), nano_dir)


@contextlib.contextmanager
def _served(orchard, code=CODE):
    """Yields (process, address) of a server on a free port."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": ""}
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(orchard.index), "0"],
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    try:
        line = process.stderr.readline()
        assert "http://" in line, line + process.stderr.read()
        yield process, line.split()[3]
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_without_a_word(orchard, number):
    with _served(orchard) as (process, address):
        assert httpx.get(address + "healthz").json() == {"status": "ok"}
        process.send_signal(number)
        assert process.wait(timeout=20) == 0
        assert process.stderr.read() == ""


def test_a_request_that_is_on_its_way_is_answered_before_the_end(orchard):
    code = CODE.replace(
        "serve(sys",
        "from openmofi.serve.library import Library\n"
        "seen = Library.image\n"
        "def see(*given):\n"
        "    print('asked', file=sys.stderr, flush=True)\n"
        "    time.sleep(1.5)\n"
        "    return seen(*given)\n"
        "Library.image = see\n"
        "serve(sys",
    )
    with _served(orchard, code) as (process, address):
        answers = []
        asking = threading.Thread(
            target=lambda: answers.append(httpx.get(address + "api/images/0/file", timeout=30))
        )
        asking.start()
        assert process.stderr.readline() == "asked\n"
        process.send_signal(signal.SIGTERM)
        asking.join()
        assert answers[0].status_code == 200
        assert process.wait(timeout=20) == 0


def test_a_taken_port_is_said_in_one_sentence(orchard):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=rf"127.0.0.1:{port} \(.*in use\); choose"):
            serve(orchard.index, port=port)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])
def test_an_address_that_others_reach_needs_a_token(orchard, host):
    with pytest.raises(InputError, match="can be reached by others; pass --token"):
        serve(orchard.index, host=host)


def test_an_address_that_is_not_ours_is_said_in_one_sentence(orchard):
    with pytest.raises(InputError, match=r"Cannot listen on 192\.0\.2\.1:0"):
        serve(orchard.index, host="192.0.2.1", port=0, token="word")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"index": "no-index"}, "is not an index"),
        ({"data": "no-data"}, "'no-data' is not a selection"),
        ({"reports": ["no-report"]}, "no report 'no-report'"),
        ({"model": "no-model"}, "no model directory 'no-model'"),
        ({"model": "/no/model"}, "no model directory '/no/model'"),
        ({"kb": "no-kb"}, "no-kb is not a knowledge base"),
    ],
)
def test_what_is_not_there_is_said_before_it_starts(orchard, given, said):
    with pytest.raises(InputError, match=said):
        serve(**({"index": orchard.index} | given), port=0)


def test_it_is_ready_to_answer_before_the_encoders_library_is_loaded(orchard):
    code = "import sys; from openmofi.serve import make_app; make_app(sys.argv[1]); "
    code += "sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code, str(orchard.index)]).returncode == 0


def test_a_gigabyte_upload_is_refused_and_memory_stays(orchard):
    with _served(orchard) as (process, address):
        image = (orchard.images / "000.jpg").read_bytes()
        httpx.post(address + "api/uploads", content=image, timeout=60)  # loads the encoder
        before = _peak_memory(process.pid)
        status = _send_gigabyte(int(address.split(":")[2].strip("/")))
        assert status == b"413"
        assert _peak_memory(process.pid) - before < 100 * 2**20
        assert httpx.get(address + "healthz").status_code == 200


def _send_gigabyte(port):
    """Sends chunks without saying how many; returns the status."""
    head = b"POST /api/uploads HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: image/png\r\n"
    chunk = b"100000\r\n" + b"\0" * 2**20 + b"\r\n"
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(head + b"Transfer-Encoding: chunked\r\n\r\n")
        with contextlib.suppress(OSError):  # it no longer listens
            for _ in range(1024):
                connection.sendall(chunk)
        with contextlib.suppress(OSError):
            return connection.recv(2**16).split()[1]


def _peak_memory(pid):
    """Returns the largest resident size so far, in bytes."""
    with open(f"/proc/{pid}/status") as file:
        [line] = [line for line in file if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


def test_behind_a_proxy_the_token_keeps_others_out(orchard):
    with _served(orchard, CODE.replace(")\n", ", token='word')\n")) as (_, address):
        theirs = {"host": "photos.example"}
        assert httpx.get(address + "api/info", headers=theirs).status_code == 401
        known = theirs | {"authorization": "Bearer word"}
        assert httpx.get(address + "api/info", headers=known).status_code == 200


def test_threads_that_wait_for_each_other_sleep(orchard, monkeypatch):
    from openmofi import serve as served
    from openmofi.cli import main

    monkeypatch.setenv("OMP_WAIT_POLICY", "")
    monkeypatch.delenv("OMP_WAIT_POLICY")
    seen = []
    monkeypatch.setattr(
        served, "serve", lambda *_, **__: seen.append(os.environ["OMP_WAIT_POLICY"])
    )
    with pytest.raises(SystemExit):
        main(["serve", str(orchard.index)])
    assert seen == ["PASSIVE"]
