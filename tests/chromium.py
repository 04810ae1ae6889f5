"""A browser without a screen, and pages that must not complain."""

import contextlib
import os
import shutil
from collections.abc import Iterator

import pytest

_FLAGS = """--headless=new --no-sandbox --disable-quic --no-first-run --disable-sync
--disable-background-networking --disable-component-update
--use-angle=swiftshader --enable-unsafe-swiftshader"""
# A request was refused; a report's script was not run.
_REFUSALS = ("Failed to load resource", "Blocked script execution")


def is_required() -> bool:
    """Tells whether tests of pages may not be skipped."""
    return os.environ.get("OPENMOFI_TEST_BROWSER") == "required"


@contextlib.contextmanager
def chromium() -> Iterator:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    names = ("chromium", "chromium-browser", "google-chrome")
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None and not is_required():
        pytest.skip("there is no chromium; install it with: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=found, args=_FLAGS.split())
        yield browser
        browser.close()


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


def open_page(browser, site, *, refusals):
    """Yields a page of a site; at the end nothing may have been complained of."""
    context = browser.new_context(base_url=site, viewport={"width": 1280, "height": 860})
    page = context.new_page()
    page.set_default_timeout(10_000)
    complaints = Complaints(page, site, refusals=refusals)
    yield page
    # An answer that a test still fetches would raise in the next test.
    page.unroute_all(behavior="ignoreErrors")
    context.close()
    assert not complaints
