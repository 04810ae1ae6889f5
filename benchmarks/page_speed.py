"""How soon the page shows something: first results, and the map, in a real browser.

    python benchmarks/page_speed.py INDEX --rounds 5

Starts `openmofi serve INDEX`, opens the page in headless chromium with software WebGL, a new
profile each time, and waits until the first result's caption is painted and until the map's canvas
has points in it. Milliseconds from the start of the navigation, medians. The server's first answer
of each kind, which reads the labels, is given apart: `first_visit`.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

from playwright.sync_api import sync_playwright

FLAGS = ["--headless=new", "--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
FLAGS += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
PAINTED = """selector => new Promise(done => {
  const look = () => document.querySelector(selector)
    ? requestAnimationFrame(() => setTimeout(() => done(performance.now())))
    : requestAnimationFrame(look);
  look();
})"""
DRAWN = """() => new Promise(done => {
  const look = () => {
    const canvas = document.querySelector('canvas');
    if (canvas && canvas.width > 1) {
      const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext('2d');
      copy.drawImage(canvas, 0, 0);
      const pixels = copy.getImageData(0, 0, canvas.width, canvas.height).data;
      if (pixels.some((value, i) => i % 4 === 3 && value > 0)) return done(performance.now());
    }
    requestAnimationFrame(look);
  };
  look();
})"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("index", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--result", default="main li img, main li a", help="of a result")
    arguments = parser.parse_args()
    command = [sys.executable, "-m", "openmofi", "serve", arguments.index, "--port", "0"]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        address = server.stderr.readline().split(" at ")[1].split()[0]
        with sync_playwright() as driver:
            browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
            waits = {
                "browse": ("?view=search", PAINTED, arguments.result),
                "similar": ("?row=7", PAINTED, arguments.result),
                "map": ("?view=map", DRAWN, None),
            }
            for name, (query, script, argument) in waits.items():
                times = [
                    visit(browser, address + query, script, argument)
                    for _ in range(arguments.rounds + 1)
                ]
                rest = statistics.median(times[1:])
                print(json.dumps({"view": name, "first_visit": times[0], "median": rest}))
            browser.close()
    finally:
        server.terminate()
        server.wait()


def visit(browser, address: str, script: str, argument: str | None) -> float:
    context = browser.new_context(viewport={"width": 1280, "height": 860})
    page = context.new_page()
    page.goto(address, wait_until="commit")
    milliseconds = page.evaluate(script, argument)
    context.close()
    time.sleep(0.2)
    return round(milliseconds)


if __name__ == "__main__":
    main()
