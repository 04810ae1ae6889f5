import { h, debounce } from "../dom.js";
import { whyLink } from "../url.js";

const LEAST_ZOOM = 2; // further out the dots show what lies where
const MOST_IN_VIEW = 4000;
const SIDES = [96, 64, 44]; // pixels of an image, the largest that leaves room for most

/**
 * Images in place of the dots, where the map is looked at from near: those that have room, the
 * others stay dots. They are links; the arrow keys go from one to the next in that direction.
 */
export class Tiles {
  constructor(camera, grid, points) {
    Object.assign(this, { camera, grid, points });
    this.node = h("div.map-tiles", { role: "group", "aria-label": "Images in view" });
    this.shown = new Map(); // point -> its link
    this.chooseSoon = debounce(() => this.#choose(), 120);
    this.isLit = () => true;
    this.node.addEventListener("keydown", (event) => this.#onKey(event));
    this.node.addEventListener("focusin", ({ target }) => this.#activate(target));
  }

  /** Follows the camera at once; which images are shown follows a little later. */
  place(isLit) {
    this.isLit = isLit;
    for (const [i, link] of this.shown) this.#put(i, link);
    this.chooseSoon();
  }

  /** Puts the focus on the image nearest to the middle; tells whether there is one. */
  focus() {
    const { clientWidth: width, clientHeight: height } = this.camera.canvas;
    const nearest = this.#nearest(width / 2, height / 2, () => true);
    nearest?.focus({ preventScroll: true });
    return Boolean(nearest);
  }

  #inView() {
    if (this.camera.zoom < LEAST_ZOOM) return [];
    const { clientWidth: width, clientHeight: height } = this.camera.canvas;
    const [x0, y1] = this.camera.toMap(0, 0);
    const [x1, y0] = this.camera.toMap(width, height);
    const found = [];
    for (const i of this.grid.inBox(x0, y0, x1, y1)) {
      const [x, y] = this.grid.placeOf(i);
      if (x < x0 || x > x1 || y < y0 || y > y1 || !this.isLit(i)) continue;
      if (found.push(i) > MOST_IN_VIEW) return []; // too many to make out
    }
    return found.sort((a, b) => a - b);
  }

  #choose() {
    const inView = this.#inView();
    const choices = SIDES.map((side) => this.#withRoom(inView, side));
    const enough = choices.findIndex((chosen) => chosen.length >= 0.7 * inView.length);
    const at = enough < 0 ? SIDES.length - 1 : enough;
    this.#show(new Set(choices[at]), SIDES[at]);
  }

  /** Those that lie apart; one that is shown already keeps its place. */
  #withRoom(points, side) {
    const before = points.filter((i) => this.shown.has(i));
    const order = [...before, ...points.filter((i) => !this.shown.has(i))];
    const taken = new Map(); // cell of the screen -> places in it
    const cell = (x, y) => `${Math.floor(x / side)},${Math.floor(y / side)}`;
    return order.filter((i) => {
      const [x, y] = this.camera.toScreen(this.grid.placeOf(i));
      for (const dx of [-side, 0, side])
        for (const dy of [-side, 0, side])
          for (const [px, py] of taken.get(cell(x + dx, y + dy)) ?? [])
            if (Math.abs(px - x) < side && Math.abs(py - y) < side) return false;
      const here = cell(x, y);
      taken.set(here, [...(taken.get(here) ?? []), [x, y]]);
      return true;
    });
  }

  #show(chosen, side) {
    this.node.style.setProperty("--side", `${side}px`);
    for (const [i, link] of this.shown) {
      if (chosen.has(i) || link === document.activeElement) continue;
      link.remove();
      this.shown.delete(i);
    }
    for (const i of chosen) {
      if (this.shown.has(i)) continue;
      const row = this.points.rows[i];
      const image = h("img", { src: `/api/images/${row}/thumbnail?side=128`, alt: `Image ${row}` });
      const link = h("a", { href: whyLink(row), tabindex: -1, draggable: "false" }, image);
      this.shown.set(i, link);
      this.#put(i, link);
      this.node.append(link);
    }
    if (!this.node.querySelector("[tabindex='0']")) this.#activate(this.node.firstChild);
    this.node.dataset.shown = this.shown.size;
  }

  #put(i, link) {
    const [x, y] = this.camera.toScreen(this.grid.placeOf(i));
    link.style.transform = `translate(${x}px, ${y}px) translate(-50%, -50%)`;
  }

  /* One of the images is in the tab order. */
  #activate(link) {
    if (!link) return;
    this.node.querySelector("[tabindex='0']")?.setAttribute("tabindex", -1);
    link.setAttribute("tabindex", 0);
  }

  #onKey(event) {
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (event.key === "Escape") this.camera.canvas.focus();
    else if (Object.hasOwn(step, event.key)) this.#walk(event.target, ...step[event.key]);
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  #walk(link, dx, dy) {
    const [x, y] = this.#middle(link);
    const isAhead = (px, py) => {
      const along = (px - x) * dx + (py - y) * dy;
      const aside = Math.abs((px - x) * dy) + Math.abs((py - y) * dx);
      return along > 1 && along >= aside;
    };
    this.#nearest(x, y, isAhead, link)?.focus({ preventScroll: true });
  }

  #nearest(x, y, passes, except) {
    let [best, found] = [Infinity, null];
    for (const [i, link] of this.shown) {
      const [px, py] = this.camera.toScreen(this.grid.placeOf(i));
      const distance = (px - x) ** 2 + (py - y) ** 2;
      if (link !== except && distance < best && passes(px, py)) [best, found] = [distance, link];
    }
    return found;
  }

  #middle(link) {
    const [[i]] = [...this.shown].filter(([, other]) => other === link);
    return this.camera.toScreen(this.grid.placeOf(i));
  }
}
