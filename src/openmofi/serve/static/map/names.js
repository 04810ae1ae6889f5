import { h } from "../dom.js";

const HEIGHT = 18; // of a name, in pixels
const PLACES = 65535;
const SAMPLE = 400; // points that are enough to find the middle of a class

/** The classes' names, each above the median of its points; returns {node, place(camera, lit)}. */
export function classNames(about, { places, classes }) {
  const middles = medians(places, classes, about.classes.length);
  const labels = about.classes.map(({ label }) => h("span", label));
  const node = h("div.map-names", { "aria-hidden": "true" }, labels); // see the legend
  let widths = null;
  const place = (camera, lit) => {
    widths ??= labels.map((label) => label.offsetWidth);
    const taken = []; // of two names that would overlap, the more frequent class keeps its own
    labels.forEach((label, index) => {
      const middle = middles[index];
      const [x, y] = middle ? camera.toScreen(middle) : [0, 0];
      const overlaps = taken.some(
        (other) =>
          Math.abs(y - other.y) < HEIGHT &&
          Math.abs(x - other.x) < (widths[index] + other.width) / 2,
      );
      const off = !middle || overlaps || (lit.length > 0 && !lit.includes(index));
      label.style.visibility = off ? "hidden" : "visible";
      if (off) return;
      label.style.left = `${x.toFixed(1)}px`;
      label.style.top = `${(y - HEIGHT).toFixed(1)}px`;
      taken.push({ x, y, width: widths[index] });
    });
  };
  return { node, place };
}

function medians(places, classes, n) {
  const members = Array.from({ length: n }, () => []);
  classes.forEach(
    (index, i) => index < n && members[index].length < SAMPLE && members[index].push(i),
  );
  const median = (values) => values.sort((a, b) => a - b)[values.length >> 1] / PLACES;
  return members.map(
    (own) =>
      own.length > 0 && [
        median(own.map((i) => places[2 * i])),
        median(own.map((i) => places[2 * i + 1])),
      ],
  );
}
