"""A browser, a small world that a real server shows it, and pages that must not complain."""

import contextlib
import os
import shutil
import socket
import threading
import time
from collections.abc import Iterator

import pytest
import uvicorn

from openmofi.config import ServeSettings
from openmofi.serve import make_app
from orchard import Orchard, write_orchard

_FLAGS = """--headless=new --no-sandbox --disable-quic --no-first-run --disable-sync
--disable-background-networking --disable-component-update
--use-angle=swiftshader --enable-unsafe-swiftshader"""
# A request was refused; a report's script was not run.
_REFUSALS = ("Failed to load resource", "Blocked script execution")


@pytest.fixture(scope="package")  # its event loop must not outlive the tests that need it
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    names = ("chromium", "chromium-browser", "google-chrome")
    chromium = next(filter(None, map(shutil.which, names)), None)
    if chromium is None and os.environ.get("OPENMOFI_TEST_BROWSER") != "required":
        pytest.skip("there is no chromium; install it with: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=_FLAGS.split())
        yield browser
        browser.close()


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


class Complaints(list):
    """What a page said on its console, and whom it asked; `refusals`: they count, too."""

    def __init__(self, page, site: str, *, refusals: bool):
        page.on("request", lambda r: r.url.startswith((site, "blob:")) or self.append(r.url))
        page.on("pageerror", lambda error: self.append(str(error)))
        page.on("console", self._hear)
        self.refusals = refusals

    def _hear(self, message) -> None:
        refused = message.text.startswith(_REFUSALS)
        if message.type in ("error", "warning") and (self.refusals or not refused):
            self.append(f"{message.text} {message.location['url']}")


@pytest.fixture
def page(browser, site):
    """A page that asks nobody but the server, is refused nothing and logs no error."""
    yield from _page(browser, site, refusals=True)


@pytest.fixture
def troubled(browser, site):
    """A page that may be refused something."""
    yield from _page(browser, site, refusals=False)


def _page(browser, site, *, refusals):
    context = browser.new_context(base_url=site, viewport={"width": 1280, "height": 860})
    page = context.new_page()
    page.set_default_timeout(10_000)
    complaints = Complaints(page, site, refusals=refusals)
    yield page
    # An answer that a test still fetches would raise in the next test.
    page.unroute_all(behavior="ignoreErrors")
    context.close()
    assert not complaints
