"""The page and reports: rows of own_code.py."""

from __future__ import annotations

import io
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
from own.rivals import Finding, ratios

REGL: Path | None = None
"""regl.min.js, for the row `map`."""


def report_plots(folder: Path) -> Iterator[Finding]:
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    from openmofi.select.plots import long_tail

    images = np.sort((1e5 / (np.arange(50_000) + 1)).astype(int).clip(1))[::-1]

    def theirs() -> str:
        ranks = np.unique(np.geomspace(1, len(images), 300).astype(int))
        figure, axes = plt.subplots(figsize=(6.4, 2.6))
        axes.loglog(ranks, images[ranks - 1])
        axes.set_xlabel("rank of the entity")
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg")
        plt.close(figure)
        return buffer.getvalue()

    found = ratios(lambda: long_tail(images), {"r": theirs})
    note = (
        f"{len(long_tail(images)) / 1e3:.0f} KB, the rival {len(theirs()) / 1e3:.0f}; ours follows "
        "the page's dark mode"
    )
    yield Finding("matplotlib's SVG", found["r"], note)


def webgl_map(folder: Path) -> Iterator[Finding]:
    import openmofi

    static = Path(openmofi.__file__).parent / "serve" / "static" / "map"
    own = sum(path.stat().st_size for path in static.glob("*.js"))
    if REGL is None:
        print("skipped: --regl names no regl.min.js (npm pack regl)", file=sys.stderr)
        return
    strict = _in_browser(REGL, "script-src 'self'")
    loose = _in_browser(REGL, "script-src 'self' 'unsafe-eval'")
    note = (
        f"under `script-src 'self'`: {strict}; with 'unsafe-eval': {loose}; regl alone is "
        f"{REGL.stat().st_size / 1e3:.0f} KB minified, our map {own / 1e3:.0f} KB as written"
    )
    yield Finding("regl, under regl-scatterplot", None, note)


_DRAW = """try {
  const regl = createREGL(document.querySelector("canvas"));
  regl({frag: "void main() { gl_FragColor = vec4(1); }", count: 1, primitive: "points",
    vert: "attribute vec2 p; void main() { gl_Position = vec4(p, 0, 1); }",
    attributes: {p: [[0, 0]]}})();
  window.came = "draws";
} catch (error) { window.came = error.name; }"""


def _in_browser(script: Path, policy: str) -> str:
    import shutil

    from playwright.sync_api import sync_playwright

    body = b"<canvas></canvas><script src=/regl.js></script><script src=/draw.js></script>"
    files = {"/": body, "/regl.js": script.read_bytes(), "/draw.js": _DRAW.encode()}

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            kind = "text/html" if self.path == "/" else "text/javascript"
            self.send_header("content-type", kind)
            self.send_header("content-security-policy", policy)
            self.end_headers()
            self.wfile.write(files.get(self.path, b""))

        def log_message(self, *_: object) -> None:
            """Stays silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    flags = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=flags)
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{server.server_port}/")
        page.wait_for_function("window.came")
        came = page.evaluate("window.came")
        browser.close()
    server.shutdown()
    return came
