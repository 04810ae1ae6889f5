import { get, getBytes } from "../api.js";
import { h, fill } from "../dom.js";
import { learn } from "../names.js";
import { legend } from "../map/legend.js";
import { makeRenderer } from "../map/renderer.js";
import { Scene } from "../map/scene.js";
import { empty } from "../parts/states.js";

/** The map: every image a point, near its likes. */
export function open(main, signal) {
  const frame = h("div.map-frame", { "aria-busy": "true" });
  const side = h("aside.map-side", h("h1", "Map"));
  fill(main, h("div.map-columns", frame, side));
  document.title = "Map · OpenMOFI";
  const shown = load(frame, side, signal);
  return async (state) => (await shown).update(state);
}

async function load(frame, side, signal) {
  const [about, bytes] = await Promise.all([
    get("/api/map", signal),
    getBytes("/api/map/points", signal),
  ]);
  learn(about.classes);
  frame.setAttribute("aria-busy", "false");
  const canvas = h("canvas", { tabindex: 0, role: "img" });
  const renderer = makeRenderer(canvas);
  if (!renderer) return listAlone(frame, side, about);
  const points = readPoints(bytes, about.points);
  return new Scene({ frame, side, canvas, about, points, renderer, signal });
}

/** The points' layout: uint32 row [n], uint16 x, y [n], uint8 class [n]. */
function readPoints(bytes, n) {
  return {
    rows: new Uint32Array(bytes, 0, n),
    places: new Uint16Array(bytes, 4 * n, 2 * n),
    classes: new Uint8Array(bytes, 8 * n, n),
  };
}

function listAlone(frame, side, about) {
  const text = "This browser has no WebGL 2, which draws the points; the classes are listed.";
  fill(frame, empty("No map here", text));
  return { update: (state) => fill(side, h("h1", "Map"), legend(about, state)) };
}
