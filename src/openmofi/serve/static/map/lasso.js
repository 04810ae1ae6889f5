import { svg } from "../dom.js";

const MOST_CORNERS = 60; // an address must stay short

/** The outline that lies over the map; returns {node, show(points on the screen)}. */
export function lassoOutline() {
  const polygon = svg("polygon");
  const node = svg("svg.lasso", { "aria-hidden": "true" }, polygon);
  const show = (points) => {
    const pairs = points.map(([x, y]) => `${x.toFixed(1)},${y.toFixed(1)}`);
    polygon.setAttribute("points", pairs.join(" "));
  };
  return { node, show };
}

/** Returns a polygon of few corners near a drawn path (Douglas and Peucker 1973). */
export function simplify(path, tolerance = 1.5) {
  const kept = [...peucker(path, tolerance), path.at(-1)];
  return kept.length > MOST_CORNERS ? simplify(path, tolerance * 1.5) : kept;
}

function peucker(path, tolerance) {
  const [first, last] = [path[0], path.at(-1)];
  let farthest = 0;
  let index = 0;
  for (let i = 1; i < path.length - 1; i++) {
    const distance = distanceToLine(path[i], first, last);
    if (distance > farthest) [farthest, index] = [distance, i];
  }
  if (farthest <= tolerance) return [first]; // `last` begins the next part
  return [
    ...peucker(path.slice(0, index + 1), tolerance),
    ...peucker(path.slice(index), tolerance),
  ];
}

function distanceToLine([x, y], [ax, ay], [bx, by]) {
  const length = Math.hypot(bx - ax, by - ay);
  if (length === 0) return Math.hypot(x - ax, y - ay);
  return Math.abs((bx - ax) * (ay - y) - (ax - x) * (by - ay)) / length;
}
