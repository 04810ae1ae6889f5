import { h } from "../dom.js";
import { count } from "../format.js";
import { entityLink, link, toggled } from "../url.js";
import { icon } from "../parts/icons.js";
import { classColour, OTHER } from "./colours.js";

/**
 * The classes with their colours and counts; choosing one dims the others.
 * It is also what the map says in words.
 */
export function legend(about, state) {
  const named = about.classes.reduce((sum, { count: n }) => sum + n, 0);
  const rows = about.classes.map((entity, index) => ({ ...entity, index }));
  const others = about.points - named;
  if (others > 0) rows.push({ label: "Others", count: others, index: OTHER });
  const all = { class: "quiet", href: link({ ...state, classes: [] }), "data-stay": true };
  return [
    h(
      "ul.legend-list",
      { "aria-label": "Classes" },
      rows.map((row) => legendRow(row, state)),
    ),
    state.classes.length > 0 && h("a", all, "Light all classes"),
  ];
}

function legendRow({ id, label, count: n, index }, state) {
  const isLit = state.classes.includes(index);
  const [about, colour] = [`About ${label}`, `rgb(${classColour(index).join(" ")})`];
  const toggle = {
    class: "facet-link",
    href: link(toggled(state, "classes", index)),
    "aria-current": isLit ? "true" : null,
    "data-key": index,
    "data-stay": true,
  };
  return h(
    "li",
    { class: state.classes.length && !isLit ? "dim" : null },
    h(
      "a",
      toggle,
      h("span.swatch", { style: { "background-color": colour } }),
      h("span.label", label),
      h("span.count", count(n)),
    ),
    id &&
      h("a.quiet", { href: entityLink(id), "aria-label": about, title: about }, icon("forward")),
  );
}

/** The buttons over the map; returns {node, lasso}. */
export function tools({ zoomIn, zoomOut, all, lasso }) {
  const button = (name, label, onclick) =>
    h("button.tool", { type: "button", "aria-label": label, title: label, onclick }, icon(name));
  const lassoButton = button("lasso", "Lasso: draw around images (or drag with Shift)", lasso);
  lassoButton.setAttribute("aria-pressed", "false");
  const node = h(
    "div.map-tools",
    { role: "group", "aria-label": "Map tools" },
    button("plus", "Zoom in", zoomIn),
    button("minus", "Zoom out", zoomOut),
    button("home", "Show all", all),
    lassoButton,
  );
  return { node, lasso: lassoButton };
}
