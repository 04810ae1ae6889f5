import { h, svg } from "../dom.js";

const WIDTH = 320;
const HEIGHT = 110;

/**
 * The evidence for labels, with their own and with other captions' images, and the threshold.
 *
 * @param bins {low, high, observed: counts, mismatched: counts}
 */
export function histogram({ low, high, observed, mismatched }, threshold) {
  const most = Math.max(...observed, ...mismatched, 1);
  const x = (value) => ((value - low) / (high - low)) * WIDTH;
  const area = (counts) => {
    const step = WIDTH / counts.length;
    const steps = counts.map((n, i) => `L${i * step} ${HEIGHT * (1 - n / most)}h${step}`);
    return `M0 ${HEIGHT}${steps.join("")}L${WIDTH} ${HEIGHT}Z`;
  };
  const isShown = typeof threshold === "number" && threshold >= low && threshold <= high;
  const text = [
    `Evidence from ${low.toFixed(0)} to ${high.toFixed(0)}: `,
    "filled, with the caption's own image; outlined, with another caption's",
    isShown ? `; line, the threshold ${threshold.toFixed(2)}.` : ".",
  ];
  return h(
    "figure",
    svg(
      "svg",
      { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, class: "histogram", "aria-hidden": "true" },
      svg("path", { d: area(observed), class: "observed" }),
      svg("path", { d: area(mismatched), class: "mismatched" }),
      isShown && svg("path", { d: `M${x(threshold)} 0V${HEIGHT}`, class: "threshold" }),
    ),
    h("figcaption.muted", text),
  );
}
