"""Tagging in the browser: the same pixels, vectors and names as in Python, and nobody is asked."""

import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import jpeg
from openmofi.model import load_model
from openmofi.model.transform import Transform
from openmofi.tag import Tagger
from openmofi.tag.abstain import TagCalibration
from soft_patches import NUM_THINGS, draw

expect = pytest.importorskip("playwright.sync_api").expect

_AXE = Path(__file__).parents[1] / "serve/browser/axe.min.js"

_FIT = """async ([data, width, height, transform]) => {
  const { fit } = await import("/resize.js");
  return [...fit({ data: new Uint8Array(data), width, height }, transform)];
}"""
_READ = """async ([bytes, transform]) => {
  const [{ read }, { fit }] = await Promise.all([import("/read.js"), import("/resize.js")]);
  return [...fit(await read(new Blob([new Uint8Array(bytes)]), transform), transform)];
}"""
_TAG = """async (files) => {
  const { loadTagger } = await import("/tagger.js");
  window.tagger ??= await loadTagger(new URL("/", location));
  const answers = [];
  for (const bytes of files) answers.push(await tagger.tag(new Blob([new Uint8Array(bytes)])));
  return answers;
}"""
_ENCODE = """async (pixels) => {
  const { loadTagger } = await import("/tagger.js");
  const tagger = await loadTagger(new URL("/", location));
  return [...(await tagger.encode(new Uint8Array(pixels)))];
}"""
_GIVE = """([kind, files]) => {
  const data = new DataTransfer();
  for (const [name, bytes] of files) data.items.add(new File([new Uint8Array(bytes)], name));
  const about = {bubbles: true, cancelable: true};
  document.body.dispatchEvent(kind === "drop"
    ? new DragEvent("drop", {...about, dataTransfer: data})
    : new ClipboardEvent("paste", {...about, clipboardData: data}));
}"""


def _plain(transform):
    return dict(vars(transform))


def _encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _open(page):
    page.goto("/")
    expect(page.locator("#drop.ready")).to_be_visible(timeout=30_000)


def _give(page, kind="drop", **files):
    named = [[name, list(data)] for name, data in files.items()]
    page.evaluate(_GIVE, [kind, named])


@pytest.mark.parametrize("filter_", [2, 3])
@pytest.mark.parametrize(
    "transform",
    [
        Transform(32),
        Transform(32, keep_aspect=False),
        Transform(24, resize_to=37),
        Transform(24, resize_to=37, crop_to_nearest=True),
    ],
    ids=["shorter side", "squeezed", "cropped", "cropped to the nearest"],
)
def test_pixels_are_pillows_to_the_last_bit(page, rng, transform, filter_):
    transform = Transform(**{**_plain(transform), "resample": filter_})
    page.goto("/")
    for width, height in ((50, 41), (20, 90), (32, 32), (7, 5), (300, 2), (37, 64)):
        pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        given = [pixels.ravel().tolist(), width, height, _plain(transform)]
        found = np.array(page.evaluate(_FIT, given)).reshape(transform.size, transform.size, 3)
        np.testing.assert_array_equal(found, transform.fit(Image.fromarray(pixels)))


def test_pixels_without_antialiasing_are_a_level_off_at_most(page, rng):
    transform = Transform(32, resize="mofi", resize_to=36)
    page.goto("/")
    for width, height in ((50, 41), (20, 90), (500, 300)):
        pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        given = [pixels.ravel().tolist(), width, height, _plain(transform)]
        found = np.array(page.evaluate(_FIT, given)).reshape(32, 32, 3)
        off = np.abs(found - transform.fit(Image.fromarray(pixels)).astype(int))
        assert off.max() <= 1
        assert off.mean() < 0.01


def _turned(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


@pytest.mark.parametrize("kind", ["grey", "palette", "transparent", "half", "16 bits", "webp"])
def test_files_without_loss_are_read_as_in_python(page, rng, kind):
    pixels = rng.integers(0, 256, (40, 60, 4), dtype=np.uint8)
    image = Image.fromarray(pixels[..., :3])
    if kind == "transparent":
        pixels[..., 3] = 255 * (pixels[..., 3] > 99)
        image = Image.fromarray(pixels)
    elif kind == "half":
        pixels[..., 3] = 128
        image = Image.fromarray(pixels)
    image = image.convert({"grey": "L", "palette": "P"}.get(kind, image.mode))
    if kind == "16 bits":
        image = Image.fromarray(pixels[..., 0].astype(np.uint16) * 257)
    options = {"lossless": True} if kind == "webp" else {}
    data = _encoded(image, "WEBP" if kind == "webp" else "PNG", **options)
    page.goto("/")
    transform = Transform(32)
    found = np.array(page.evaluate(_READ, [list(data), _plain(transform)])).reshape(32, 32, 3)
    off = np.abs(found - transform.pixels(data).astype(int))
    assert off.max() <= (2 if kind == "half" else 0)


@pytest.mark.parametrize("size", [(90, 60), (300, 500), (1400, 900)])
@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_jpegs_are_read_nearly_as_in_python(page, size, orientation):
    data = _encoded(draw(5, size), "JPEG", quality=90, exif=_turned(orientation))
    page.goto("/")
    transform = Transform(32)
    found = np.array(page.evaluate(_READ, [list(data), _plain(transform)])).reshape(32, 32, 3)
    off = np.abs(found - transform.pixels(data).astype(int))
    assert off.mean() < 2  # a turned one's last pixels, which fill no block, are at the other end
    assert off.max() <= 20


def test_an_image_wider_than_a_canvas_is_read_to_its_end(page):
    levels = np.linspace(0, 255, 66_000).astype(np.uint8)
    data = _encoded(Image.fromarray(np.tile(levels, (400, 1))))
    page.goto("/")
    transform = Transform(32)
    found = np.array(page.evaluate(_READ, [list(data), _plain(transform)])).reshape(32, 32, 3)
    np.testing.assert_array_equal(found, transform.pixels(data))


def test_vectors_are_those_of_python(page, known, rng):
    page.goto("/")
    pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
    vector = np.array(page.evaluate(_ENCODE, pixels.ravel().tolist()))
    own = load_model(known[0], device="cpu").encode_pixels(pixels[None])[0]
    np.testing.assert_allclose(vector, own, atol=1e-4)


def test_the_same_is_said_as_in_python_of_200_images(page, known):
    rng = np.random.default_rng(1)
    files = []
    for i in range(200):
        noisy = np.asarray(draw(i % NUM_THINGS, (120 + i, 90))) + rng.normal(
            0, 30, (90, 120 + i, 3)
        )
        image = Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))
        files.append(_encoded(image, *(("JPEG",) if i % 2 else ())))
    page.goto("/")
    said = page.evaluate(_TAG, [list(data) for data in files])
    tagger = Tagger(*known)
    vectors = np.concatenate([tagger.encode(data) for data in files])
    calibration = tagger.stored_calibration()
    own = tagger.answer(vectors, calibration=calibration, error_rate=0.1)
    assert len({answer.tags[0].id for answer in own}) > NUM_THINGS / 2
    same = [a["tags"][0]["id"] == b.tags[0].id for a, b in zip(said, own, strict=True)]
    assert np.mean(same) >= 0.95
    assert np.mean([a["abstains"] == b.abstains for a, b in zip(said, own, strict=True)]) >= 0.95
    off = [
        abs(a["tags"][0][what] - getattr(b.tags[0], what))
        for a, b, equal in zip(said, own, same, strict=True)
        for what in ("score", "probability")
        if equal
    ]
    assert np.median(off) < 2e-3


@pytest.mark.parametrize("kind", ["drop", "paste"])
def test_images_are_given_and_named(page, kind):
    _open(page)
    _give(page, kind, **{"one.png": _encoded(draw(3)), "two.png": _encoded(draw(7))})
    answers = page.locator(".answer")
    expect(answers).to_have_count(2)
    expect(page.locator(".answer[aria-busy]")).to_have_count(0)
    expect(answers.nth(1).locator(".tag").first).to_have_attribute("data-id", "thing3")
    expect(answers.nth(0).locator(".label").first).to_have_text("Thing 7 <b>")
    expect(answers.nth(0).locator(".tag")).to_have_count(5)
    expect(answers.nth(0)).to_contain_text(re.compile(r"1\.000 · 100% sure"))


def test_images_are_chosen_with_the_keyboard(page):
    _open(page)
    page.keyboard.press("Tab")
    expect(page.locator("#files")).to_be_focused()
    page.locator("#files").set_input_files(
        {"name": "a.png", "mimeType": "image/png", "buffer": _encoded(draw(3))}
    )
    expect(page.locator(".tag").first).to_have_attribute("data-id", "thing3")


def test_where_unsure_it_says_so(page, known):
    tagger, calibration = Tagger(*known), TagCalibration.read(known[0] / "tag_calibration.parquet")
    colours = [(r, g, b) for r in (0, 255) for g in (0, 255) for b in (0, 255)]
    files = [jpeg(colour) for colour in colours]
    vectors = np.concatenate([tagger.encode(data) for data in files])
    answers = tagger.answer(vectors, calibration=calibration, error_rate=0.1)
    unsure = next(i for i, answer in enumerate(answers) if answer.abstains)
    _open(page)
    _give(page, **{"flat.jpg": files[unsure]})
    expect(page.locator(".answer")).to_contain_text("Nothing that is sure enough.")
    expect(page.locator(".tags.unsure .tag")).to_have_count(5)


def test_a_file_that_cannot_be_read_costs_only_itself(page):
    narrow = _encoded(Image.new("RGB", (2000, 2)))
    files = {"bad.jpg": b"bad", "narrow.png": narrow, "good.png": _encoded(draw(3))}
    _open(page)
    _give(page, **files)
    expect(page.locator(".answer").nth(2)).to_contain_text("cannot read it as an image")
    expect(page.locator(".answer").nth(1)).to_contain_text("too narrow")
    expect(page.locator(".answer").nth(0).locator(".tag").first).to_contain_text("Thing 3")


@pytest.mark.parametrize("name", ["image_encoder.onnx", "tagger.json", "worker.js"])
def test_a_file_that_is_missing_is_told(troubled, name):
    troubled.route(f"**/{name}", lambda route: route.fulfill(status=404))
    troubled.goto("/")
    expect(troubled.locator("#state")).to_contain_text("could not be loaded", timeout=20_000)
    expect(troubled.locator("#files")).to_be_disabled()


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_is_in_the_way_of_a_reader(browser, site, theme, width):
    context = browser.new_context(
        base_url=site, color_scheme=theme, viewport={"width": width, "height": 800}, bypass_csp=True
    )
    page = context.new_page()
    _open(page)
    _give(page, **{"one.png": _encoded(draw(3))})
    expect(page.locator(".tag")).to_have_count(5)
    page.evaluate(_AXE.read_text())
    found = page.evaluate("axe.run().then(r => r.violations.map(v => [v.id, v.nodes[0].html]))")
    wide = page.evaluate("document.documentElement.scrollWidth")
    context.close()
    assert not found
    assert wide <= width
