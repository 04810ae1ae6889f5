"""The map: points, colours, hovering, the lasso."""

import re

import pytest

from orchard import IMAGES, wait_until

expect = pytest.importorskip("playwright.sync_api").expect

_PIXELS = """() => {
  const canvas = document.querySelector("canvas");
  const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext("2d");
  copy.drawImage(canvas, 0, 0);
  const {data} = copy.getImageData(0, 0, canvas.width, canvas.height);
  const drawn = [];
  for (let i = 3; i < data.length; i += 4) if (data[i] > 200) drawn.push((i - 3) / 4);
  const [x, y] = [drawn[0] % canvas.width, Math.floor(drawn[0] / canvas.width)];
  const box = canvas.getBoundingClientRect();
  return {count: drawn.length, x: box.x + x, y: box.y + y};
}"""


@pytest.fixture
def map_page(page):
    page.goto("/?view=map")
    page.wait_for_selector(f"canvas[data-drawn='{IMAGES}']")
    return page


def test_every_image_is_drawn_and_every_class_listed(map_page):
    assert map_page.evaluate(_PIXELS)["count"] > IMAGES
    legend = map_page.get_by_role("list", name="Classes")
    expect(legend.get_by_role("listitem")).to_have_count(3)
    expect(legend).to_contain_text("Lime")
    expect(map_page.get_by_role("img", name=f"Map of {IMAGES} images")).to_be_visible()


def test_hovering_a_point_shows_its_image_and_a_click_opens_it(map_page):
    point = map_page.evaluate(_PIXELS)
    map_page.mouse.move(point["x"], point["y"] + 1)
    card = map_page.locator(".hover-card")
    expect(card).to_contain_text(re.compile("Apple|Lime"))
    assert card.locator("img").evaluate("image => image.decode().then(() => image.naturalWidth)")
    map_page.mouse.click(point["x"], point["y"] + 1)
    expect(map_page).to_have_url(re.compile(r"view=why&row=\d+$"))


def test_choosing_a_class_dims_the_others(map_page):
    before = map_page.evaluate(_PIXELS)["count"]
    map_page.locator(".facet-link", has_text="Lime").click()
    expect(map_page.locator("li.dim")).to_have_count(2)
    expect(map_page).to_have_url(re.compile(r"class=\d$"))
    map_page.evaluate("() => new Promise(requestAnimationFrame)")
    assert map_page.evaluate(_PIXELS)["count"] < 0.7 * before


def test_keys_move_the_map_and_the_address_follows(map_page):
    map_page.locator("canvas").focus()
    map_page.keyboard.press("+")
    map_page.keyboard.press("ArrowRight")
    expect(map_page).to_have_url(re.compile(r"at=0\.\d+%2C0\.5%2C1\.4$"))
    address = map_page.url
    map_page.reload()
    map_page.wait_for_selector("canvas[data-drawn]")
    assert map_page.url == address


def test_a_lasso_becomes_results(map_page):
    box = map_page.locator("canvas").bounding_box()
    corners = [(0.1, 0.02), (0.9, 0.02), (0.9, 0.98), (0.1, 0.98)]
    map_page.get_by_role("button", name="Lasso").click()
    for step, (x, y) in enumerate(corners):
        map_page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])
        if step == 0:
            map_page.mouse.down()
    map_page.mouse.up()
    map_page.get_by_role("link", name=f"Show {IMAGES} images as results").click()
    expect(map_page.locator(".tile[data-row]")).to_have_count(IMAGES)
    expect(map_page.locator(".chip")).to_contain_text("an area of the map")


def test_page_and_server_agree_what_lies_inside_a_lasso(page):
    page.goto("/?view=map&lasso=0.1,0.1;0.6,0.2;0.5,0.9")
    show = page.get_by_role("link", name="as results")
    count = show.inner_text().split()[1]
    show.click()
    expect(page.get_by_role("heading", level=1)).to_have_text(re.compile(rf"^{count} images?$"))


def test_the_map_comes_back_after_the_graphics_card_was_lost(map_page):
    before = map_page.evaluate(_PIXELS)["count"]
    map_page.evaluate("""async () => {
      const gl = document.querySelector("canvas").getContext("webgl2");
      const loss = gl.getExtension("WEBGL_lose_context");
      loss.loseContext();
      await new Promise((resolve) => setTimeout(resolve, 50));
      loss.restoreContext();
      await new Promise((resolve) => setTimeout(resolve, 200));
    }""")
    assert map_page.evaluate(_PIXELS)["count"] == before


def test_without_webgl_the_classes_are_still_there(page):
    page.add_init_script("HTMLCanvasElement.prototype.getContext = () => null")
    page.goto("/?view=map")
    expect(page.get_by_text("This browser has no WebGL 2")).to_be_visible()
    expect(page.get_by_role("list", name="Classes")).to_contain_text("Lime")


@pytest.fixture
def near(page):
    """The map from so near that images are shown."""
    page.goto("/?view=map&at=0.5,0.5,2.2")
    page.wait_for_selector(".map-tiles[data-shown] a")
    return page


def test_from_near_there_are_images_in_place_of_dots(near):
    tiles = near.locator(".map-tiles a")
    count = tiles.count()
    assert 0 < count <= IMAGES
    assert tiles.first.locator("img").evaluate("i => i.decode().then(() => i.naturalWidth)")
    boxes = [tiles.nth(i).bounding_box() for i in range(count)]
    for i, one in enumerate(boxes):  # none hides another
        for other in boxes[:i]:
            apart = abs(one["x"] - other["x"]), abs(one["y"] - other["y"])
            assert max(apart) >= one["width"] - 1
    near.locator("canvas").focus()
    near.keyboard.press("0")
    expect(tiles).to_have_count(0)


def test_images_move_with_the_map(near):
    tile = near.locator(".map-tiles a").first
    href, before = tile.get_attribute("href"), tile.bounding_box()
    near.locator("canvas").focus()
    near.keyboard.press("ArrowRight")
    same = near.locator(f".map-tiles a[href='{href}']")
    wait_until(lambda: round(before["x"] - same.bounding_box()["x"]) == 60)


def test_the_map_is_walked_and_opened_by_keyboard(near):
    near.locator("canvas").focus()
    near.keyboard.press("Enter")
    focused = "() => document.activeElement.getAttribute('href')"
    first = near.evaluate(focused)
    assert first.startswith("/?view=why")
    seen = {first}
    for key in ("ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown"):
        near.keyboard.press(key)
        seen.add(near.evaluate(focused))
    assert len(seen) > 1
    near.keyboard.press("Escape")
    assert near.evaluate("() => document.activeElement.tagName") == "CANVAS"
    near.keyboard.press("Enter")
    near.keyboard.press("Enter")
    expect(near).to_have_url(re.compile(r"view=why&row=\d+$"))
