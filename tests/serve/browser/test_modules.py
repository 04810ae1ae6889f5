"""Modules of the page on their own, most of them imported by a blank page of the server."""

import posixpath
import re
from pathlib import Path

import pytest

import openmofi.serve

STATIC = Path(openmofi.serve.__file__).with_name("static")
_ADDRESSES = [
    "/",
    "/?q=red+flag&q=2&entity=-0.5*Q142&like=7&upload=ab",
    "/?q=1*3*4&q=-1*not+this",
    "/?only=a&only=b&not=c&type=t&source=s.example&label_score=0.5&text_area=0.1&min=0.2&n=120",
    "/?lasso=0.1,0.2;0.3,0.4;0.5,-0.6",
    "/?view=entity&id=a%26b",
    "/?view=why&row=0",
    "/?view=why&refused=3",
    "/?view=data&reason=no_mention",
    "/?view=map&class=0&class=255&at=0.5,0.25,3.5",
    "/?view=evaluation&report=demo",
]


@pytest.fixture(scope="module")
def modules(browser, site):
    context = browser.new_context(base_url=site, bypass_csp=True)
    page = context.new_page()
    page.goto("/static/icon.svg")
    yield page
    context.close()


@pytest.mark.parametrize("address", _ADDRESSES)
def test_an_address_is_read_and_written_back(modules, address):
    written = modules.evaluate(
        """async (address) => {
          const { link, readState } = await import("/static/url.js");
          return link(readState(address.slice(2)));
        }""",
        address,
    )
    assert written.replace("%2C", ",").replace("%3B", ";") == address


@pytest.mark.parametrize("text", ["red", "2*red", "-1*2*red", "*", "1.5*", "ü*+&=#"])
@pytest.mark.parametrize("weight", [1, -1, 0.5])
def test_any_text_and_weight_survive_the_address(modules, text, weight):
    back = modules.evaluate(
        """async (term) => {
          const { link, readState } = await import("/static/url.js");
          return readState(link({ terms: [term] }).slice(1)).terms;
        }""",
        {"kind": "text", "value": text, "weight": weight},
    )
    assert back == [{"kind": "text", "value": text, "weight": weight}]


def test_nonsense_in_the_address_is_left_out(modules):
    state = modules.evaluate(
        """async () => {
          const { readState } = await import("/static/url.js");
          return readState("min=x&lasso=1,2;3&at=1,2&row=&class=1&n=");
        }"""
    )
    assert (state["min_score"], state["lasso"], state["at"], state["row"]) == (None, [], None, None)


@pytest.mark.parametrize(
    ("query", "left"),
    [("q=+&q=2*", 0), ("like=x&like=-1&like=1.5&like=7", 1), ("toString=1", 0), ("q=a&" * 40, 32)],
)
def test_what_is_no_term_or_too_many_is_left_out(modules, query, left):
    found = modules.evaluate(
        """async (query) => {
          const { readState } = await import("/static/url.js");
          return readState(query).terms.length;
        }""",
        query,
    )
    assert found == left


def test_the_number_of_results_in_the_address_is_bounded(modules):
    found = modules.evaluate(
        """async () => {
          const { atFirst } = await import("/static/parts/results.js");
          return [null, -3, 0, 1.5, 100, 1e9].map((shown) => atFirst({ shown }));
        }"""
    )
    assert found == [60, 1, 1, 1, 100, 480]


def test_the_nearest_point_is_the_one_that_a_search_of_all_finds(modules):
    different = modules.evaluate(
        """async () => {
          const { PointGrid } = await import("/static/map/grid.js");
          const places = new Uint16Array(4000).map(() => Math.random() * 65536);
          const grid = new PointGrid(places);
          const distance = (i, x, y) => Math.hypot(...grid.placeOf(i).map((v, k) => v - [x, y][k]));
          const slow = (x, y, reach) => {
            let best = -1;
            for (let i = 0; i < 2000; i++)
              if (distance(i, x, y) <= (best < 0 ? reach : distance(best, x, y))) best = i;
            return best;
          };
          const ask = Array.from({ length: 300 }, () => [Math.random(), Math.random(), 0.02]);
          return ask.filter((q) => grid.nearest(...q) !== slow(...q)).length;
        }"""
    )
    assert different == 0


def test_a_simplified_lasso_stays_near_the_drawn_one(modules):
    corners, farthest = modules.evaluate(
        """async () => {
          const { simplify } = await import("/static/map/lasso.js");
          const turn = (i) => (2 * Math.PI * i) / 500;
          const at = (i) => [300 * Math.cos(turn(i)), 200 * Math.sin(turn(i))];
          const path = Array.from({ length: 499 }, (_, i) => at(i));
          const few = simplify(path);
          const near = ([x, y]) => Math.min(...few.map(([a, b]) => Math.hypot(a - x, b - y)));
          return [few.length, Math.max(...path.map(near))];
        }"""
    )
    assert 10 < corners <= 60
    assert farthest < 40


def test_nothing_is_parsed_as_html(modules):
    text = modules.evaluate(
        """async () => {
          const { h } = await import("/static/dom.js");
          return h("p", { title: "<b>" }, "<img src=x onerror=alert(1)>", null, false, 0).innerHTML;
        }"""
    )
    assert text == "&lt;img src=x onerror=alert(1)&gt;0"


def _imports(module: str, found: set[str]) -> set[str]:
    """Adds a module, and all that it imports at its start, to those found."""
    if module not in found:
        found.add(module)
        folder = posixpath.dirname(module)
        for path in re.findall(r'^import .*? from "(\..+?)";$', _read(module), re.M):
            _imports(posixpath.normpath(posixpath.join(folder, path)), found)
    return found


def _read(name: str) -> str:
    return (STATIC / name).read_text()


def test_the_modules_of_the_first_view_are_all_asked_for_at_once():
    preloaded = re.findall(r'"modulepreload" href="/static/(.+?)"', _read("index.html"))
    needed = _imports("app.js", set()) | _imports("views/search.js", set())
    assert sorted(preloaded) == sorted(needed - {"app.js"})


def test_the_page_stays_small_and_asks_no_other_host():
    names = [p for p in STATIC.rglob("*") if p.suffix in (".js", ".css", ".html")]
    assert sum(p.stat().st_size for p in names if p.suffix == ".js") < 150_000
    hosts = {host for p in names for host in re.findall(r"https?://([\w.]+)", p.read_text())}
    assert hosts == {"www.wikidata.org", "www.w3.org"}  # a link to follow; a name of SVG
