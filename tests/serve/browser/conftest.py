"""A browser and a small world that a real server shows it."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest
import uvicorn

from chromium import chromium, open_page
from openmofi.config import ServeSettings
from openmofi.serve import make_app
from orchard import Orchard, write_orchard


@pytest.fixture(scope="package")  # its event loop must not outlive the tests that need it
def browser():
    with chromium() as running:
        yield running


@pytest.fixture(scope="session")
def orchard(tmp_path_factory, nano_dir) -> Orchard:
    return write_orchard(tmp_path_factory.mktemp("orchard"), nano_dir)


@pytest.fixture(scope="session")
def site(orchard) -> Iterator[str]:
    with _serving(orchard) as address:
        yield address


@pytest.fixture(scope="session")
def serving():
    """Returns a context manager that serves an orchard."""
    return _serving


@contextlib.contextmanager
def _serving(orchard: Orchard, **given) -> Iterator[str]:
    """Serves the orchard from a thread; yields the address."""
    app = make_app(
        orchard.index, reports=[orchard.report], settings=ServeSettings(threads=1), **given
    )
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        while not server.started:
            assert thread.is_alive(), "the server did not start"
            time.sleep(0.01)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join()


@pytest.fixture
def page(browser, site):
    """A page that asks nobody but the server, is refused nothing and logs no error."""
    yield from open_page(browser, site, refusals=True)


@pytest.fixture
def troubled(browser, site):
    """A page that may be refused something."""
    yield from open_page(browser, site, refusals=False)
