import { ApiError } from "./api.js";
import { h, fill } from "./dom.js";
import { here } from "./url.js";
import { start } from "./router.js";
import { listenForImages } from "./parts/images.js";
import { furnish, markView } from "./parts/shell.js";
import { failure } from "./parts/states.js";

/* Each has open(main, signal) -> update(state), which runs at every change of the address. */
const VIEWS = {
  search: () => import("./views/search.js"),
  entity: () => import("./views/entity.js"),
  why: () => import("./views/why.js"),
  map: () => import("./views/map.js"),
  data: () => import("./views/data.js"),
  review: () => import("./views/review.js"),
  evaluation: () => import("./views/evaluation.js"),
};

const main = document.getElementById("main");
let current = { view: null, update: null, controller: new AbortController() };
let turn = 0;

async function draw() {
  const mine = ++turn;
  const state = here();
  markView(state.view);
  if (state.view !== current.view) {
    const open = await load(state.view);
    if (mine !== turn) return; // another address came while the module was loading
    enter(state.view, open);
  }
  const { update, controller } = current;
  try {
    await update(state);
  } catch (error) {
    if (!controller.signal.aborted) fill(main, failure(error, reopen));
  }
}

async function load(view) {
  if (!Object.hasOwn(VIEWS, view)) return openNothing;
  try {
    return (await VIEWS[view]()).open;
  } catch {
    return openFailed;
  }
}

function enter(view, open) {
  const first = current.view === null;
  current.controller.abort();
  const controller = new AbortController();
  main.className = `view-${view}`;
  current = { view, controller, update: open(fill(main), controller.signal) };
  if (!first) main.focus({ preventScroll: true });
}

function reopen() {
  current.view = null;
  return draw();
}

function openNothing(node) {
  return (state) => {
    document.title = "Not found · OpenMOFI";
    const text = `There is no view named “${state.view}”.`;
    fill(node, h("div.state", h("h1", "Not found"), h("p", text), h("a", { href: "/" }, "Search")));
  };
}

/* A browser remembers that a module could not be had; only a reload asks again. */
function openFailed(node) {
  const error = new ApiError(0, "no_answer", "The server does not answer; is it still running?");
  const retry = () => location.reload();
  return () => fill(node, failure(error, retry));
}

furnish();
listenForImages();
start(draw);
