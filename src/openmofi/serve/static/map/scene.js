import { h, fill, debounce, refill } from "../dom.js";
import { images } from "../format.js";
import { go, note } from "../router.js";
import { here, link, whyLink } from "../url.js";
import { onTheme } from "../parts/theme.js";
import { Camera } from "./camera.js";
import { palette } from "./colours.js";
import { listen } from "./gestures.js";
import { PointGrid } from "./grid.js";
import { hoverCard } from "./hover.js";
import { lassoOutline, simplify } from "./lasso.js";
import { legend, tools } from "./legend.js";
import { classNames } from "./names.js";
import { makeRenderer } from "./renderer.js";
import { Tiles } from "./tiles.js";

const REACH = 12; // pixels around the pointer in which a point is looked for

/** The canvas with all that lies over and beside it; `update(state)` follows the address. */
export class Scene {
  constructor({ frame, side, canvas, about, points, renderer, signal }) {
    Object.assign(this, { frame, side, canvas, about, points, renderer, signal });
    const label = `Map of ${images(about.points)}; arrow keys move it, plus and minus zoom, Enter goes to the images in view.`;
    canvas.setAttribute("aria-label", label);
    this.camera = new Camera(canvas);
    this.grid = new PointGrid(points.places);
    this.tiles = new Tiles(this.camera, this.grid, points);
    this.outline = lassoOutline();
    this.names = classNames(about, points);
    this.card = hoverCard(signal);
    this.bar = h("p.lasso-bar", { "aria-live": "polite", hidden: true });
    this.state = here();
    this.isAsked = false; // whether the next frame will be drawn
    this.isLasso = false;
    this.noteSoon = debounce(() => this.#note(), 250);
    this.buttons = this.#tools();
    renderer.setPoints(points.places, points.classes);
    const over = [this.outline.node, this.buttons.node, this.bar, this.card.node];
    fill(frame, canvas, this.tiles.node, this.names.node, over);
    this.#resize();
    this.#listen();
  }

  update(state) {
    this.state = state;
    if (state.at) this.camera.place = state.at;
    else this.camera.reset();
    this.#describe();
    this.#recolour();
  }

  #listen() {
    const { canvas, camera, signal } = this;
    listen(
      canvas,
      camera,
      {
        moved: () => this.#moved(),
        leave: () => this.card.hide(),
        isLasso: () => this.isLasso,
        hover: (x, y) => this.#hover(x, y),
        pick: (x, y) => this.#pick(x, y),
        enter: () => this.tiles.focus(),
        lasso: (path, done) => this.#drawLasso(path, done),
      },
      signal,
    );
    const recolour = () => {
      this.#describe();
      this.#recolour();
    };
    new ResizeObserver(() => this.#resize()).observe(canvas);
    onTheme(recolour, signal);
    canvas.addEventListener("webglcontextlost", (event) => event.preventDefault());
    canvas.addEventListener("webglcontextrestored", () => this.#restore());
    signal.addEventListener("abort", () => this.renderer.release());
  }

  #tools() {
    const act = (action) => () => {
      action();
      this.#moved();
    };
    return tools({
      zoomIn: act(() => this.camera.zoomBy(1.6)),
      zoomOut: act(() => this.camera.zoomBy(1 / 1.6)),
      all: act(() => this.camera.reset()),
      lasso: () => this.#setLasso(!this.isLasso),
    });
  }

  #restore() {
    this.renderer = makeRenderer(this.canvas);
    this.renderer.setPoints(this.points.places, this.points.classes);
    this.#recolour();
  }

  #redraw() {
    if (this.isAsked) return;
    this.isAsked = true;
    requestAnimationFrame(() => {
      this.isAsked = false;
      this.renderer.draw(this.camera.view(this.about.points));
      this.tiles.place(this.isLit);
      this.names.place(this.camera, this.state.classes);
      this.outline.show(this.state.lasso.map((corner) => this.camera.toScreen(corner)));
      this.canvas.dataset.drawn = this.about.points;
    });
  }

  #recolour() {
    this.renderer.setColours(palette(this.state.classes));
    this.#redraw();
  }

  #resize() {
    const { canvas } = this;
    const width = Math.round(canvas.clientWidth * devicePixelRatio);
    const height = Math.round(canvas.clientHeight * devicePixelRatio);
    if (width === canvas.width && height === canvas.height) return;
    Object.assign(canvas, { width, height }); // which empties it
    this.#redraw();
  }

  #moved() {
    this.card.hide();
    this.#redraw();
    this.noteSoon();
  }

  /** Puts the place into the address, and into the links beside the map. */
  #note() {
    if (this.signal.aborted) return;
    this.state = { ...here(), at: this.camera.place };
    note(this.state);
    this.#describe();
  }

  #describe() {
    const { about, state } = this;
    const inside = state.lasso.length ? this.grid.countInside(state.lasso) : 0;
    const results = { class: "button primary", href: link({ lasso: state.lasso }) };
    const clear = { class: "button", href: link({ ...state, lasso: [] }) };
    this.bar.hidden = state.lasso.length === 0;
    fill(this.bar, h("a", results, `Show ${images(inside)} as results`), h("a", clear, "Clear"));
    const text = `${images(about.points)}; those that look alike lie together.`;
    const title = [h("h1", "Map"), h("p.muted", text)];
    refill(this.side, title, legend(about, state));
  }

  isLit = (i) => {
    const { classes } = this.state;
    return classes.length === 0 || classes.includes(this.points.classes[i]);
  };

  #pointAt(x, y) {
    return this.grid.nearest(...this.camera.toMap(x, y), REACH / this.camera.unit, this.isLit);
  }

  #hover(x, y) {
    const i = this.#pointAt(x, y);
    this.canvas.classList.toggle("on-point", i >= 0);
    if (i < 0) return this.card.hide();
    const place = this.camera.toScreen(this.grid.placeOf(i));
    return this.card.show(this.points.rows[i], ...place, this.frame);
  }

  #pick(x, y) {
    const i = this.#pointAt(x, y);
    if (i >= 0) go(whyLink(this.points.rows[i]));
  }

  #setLasso(on) {
    this.isLasso = on;
    this.canvas.classList.toggle("drawing", on);
    this.buttons.lasso.setAttribute("aria-pressed", String(on));
  }

  #drawLasso(path, done) {
    this.outline.show(path);
    if (!done) return;
    this.#setLasso(false);
    const lasso = path.length ? simplify(path).map(([x, y]) => this.camera.toMap(x, y)) : [];
    go({ ...here(), at: this.camera.place, lasso });
  }
}
