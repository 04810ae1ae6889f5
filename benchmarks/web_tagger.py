"""Does a page that tags by itself say what Python says, and how long does it take?

    npm pack onnxruntime-web@1.30.0
    openmofi compile MODEL --out SMALL --int8 --images PHOTOS
    python benchmarks/web_tagger.py SMALL PHOTOS --kb KB [--runtime PACKAGE.tgz] [--count 200]

SMALL is a compiled encoder with class rows or texts of KB's entities, PHOTOS a folder of images.
Writes the page, opens it in Chromium without a screen, gives it photos drawn evenly, one after
the other, and compares its answers with those of `openmofi.tag` from the same encoder. Prints JSON:

  megabytes     what a visitor loads: encoder, entities, runtime
  loading       seconds until the page is ready, from this machine
  milliseconds  of a photo on the clock, decoding included: median, and 95 of 100
  cpu           milliseconds a photo that all of the browser's processes took, the mean
  same          share of photos with the same first entity; same_five: with the same five
  cosine        of the vectors, the least and the median
"""

import argparse
import base64
import functools
import http.server
import json
import os
import shutil
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from killed_rivals import cpu_seconds, family

from openmofi.tag import Tagger
from openmofi.tag.files import find_images
from openmofi.web import write_site

_CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
_FLAGS = ("--headless=new", "--no-sandbox", "--disable-background-networking")
_LOAD = """async () => {
  const { loadTagger } = await import("/tagger.js");
  window.tagger = await loadTagger(new URL("/", location));
}"""
_GIVE = """(text) => {
  window.file = new Blob([Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0))]);
}"""
_ENCODE = """async () => {
  const { read } = await import("/read.js");
  const { fit } = await import("/resize.js");
  const image = await read(file, tagger.about.transform);
  return [...(await tagger.encode(fit(image, tagger.about.transform)))];
}"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--kb", type=Path, required=True)
    parser.add_argument("--runtime", type=Path)
    parser.add_argument("--count", type=int, default=200)
    options = parser.parse_args()
    images = find_images([options.photos])
    drawn = np.random.default_rng(0).permutation(len(images))[: options.count]
    files = [images[i].read_bytes() for i in drawn]
    with tempfile.TemporaryDirectory() as temporary:
        site = write_site(
            options.model, out=Path(temporary) / "site", kb=options.kb, runtime=options.runtime
        )
        loading, cpu, answers = ask_page(site.out, files)
    tagger = Tagger(options.model, options.kb)
    vectors = np.concatenate([tagger.encode(data) for data in files])
    own = [[tag.id for tag in answer.tags] for answer in tagger.answer(vectors)]
    said = [[tag["id"] for tag in answer["tags"]] for answer in answers]
    milliseconds = [answer["milliseconds"] for answer in answers]
    cosines = (vectors * np.array([answer["vector"] for answer in answers])).sum(1)
    result = {
        "photos": len(files),
        "entities": site.entities,
        "megabytes": site.megabytes,
        "loading": round(loading, 2),
        "cpu": round(1000 * cpu / len(files), 1),
        "milliseconds": np.percentile(milliseconds, (50, 95)).round(1).tolist(),
        "same": np.mean([a[0] == b[0] for a, b in zip(own, said, strict=True)]),
        "same_five": np.mean([a == b for a, b in zip(own, said, strict=True)]),
        "cosine": [round(float(cosines.min()), 5), round(float(np.median(cosines)), 5)],
    }
    print(json.dumps(result, indent=1))


def ask_page(site: Path, files: list[bytes]) -> tuple[float, float, list[dict]]:
    """Returns (seconds to load, CPU seconds of all tagging, the answer for each file)."""
    from playwright.sync_api import sync_playwright

    handler = functools.partial(_Quiet, directory=site)
    found = next(filter(None, map(shutil.which, _CHROMIUM)))
    with (
        http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server,
        sync_playwright() as driver,
    ):
        threading.Thread(target=server.serve_forever, daemon=True).start()
        browser = driver.chromium.launch(executable_path=found, args=_FLAGS)
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{server.server_port}")
        page.wait_for_selector("#drop.ready")  # its own tagger is idle from here on
        began = time.perf_counter()
        page.evaluate(_LOAD)
        loading = time.perf_counter() - began
        cpu, answers = 0.0, []
        for data in files:
            page.evaluate(_GIVE, base64.b64encode(data).decode())
            before = browsers_seconds()
            answer = page.evaluate("tagger.tag(file)")
            cpu += browsers_seconds() - before
            answers.append({**answer, "vector": page.evaluate(_ENCODE)})
        browser.close()
        server.shutdown()
    return loading, cpu, answers


def browsers_seconds() -> float:
    """Returns the CPU time of what this process started."""
    own = os.getpid()
    return cpu_seconds({pid: name for pid, name in family(own).items() if pid != own})


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


if __name__ == "__main__":
    main()
