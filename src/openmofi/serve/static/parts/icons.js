import { svg } from "../dom.js";

const PATHS = {
  search: "M11 4a7 7 0 1 1 0 14 7 7 0 0 1 0-14ZM16.2 16.2 21 21",
  image: "M4 5h16v14H4ZM4 16l5-5 4 4 3-3 4 4M15.5 9.5h.01",
  close: "M6 6l12 12M18 6 6 18",
  similar: "M4 4h7v7H4ZM13 13h7v7h-7ZM14 4h6v6M10 20H4v-6",
  why: "M9.2 9a3 3 0 1 1 4.3 2.7c-1 .5-1.5 1.2-1.5 2.3M12 17.5h.01M12 3a9 9 0 1 1 0 18 9 9 0 0 1 0-18",
  theme: "M12 3a9 9 0 1 0 0 18ZM12 3a9 9 0 0 1 0 18",
  keys: "M3 6h18v12H3ZM7 10h.01M12 10h.01M17 10h.01M8 14h8",
  lasso:
    "M12 5c5 0 9 2.2 9 5s-4 5-9 5-9-2.2-9-5 4-5 9-5ZM7 14.5c-1.5.8-1.6 2.5 0 2.8 1.8.3 1.5 3-.5 3",
  plus: "M12 5v14M5 12h14",
  minus: "M5 12h14",
  forward: "M9 5l7 7-7 7",
  home: "M9 4H4v5M15 4h5v5M9 20H4v-5M15 20h5v-5",
  away: "M14 5h5v5M19 5l-8 8M10 6H5v13h13v-5",
};

/** Makes an icon of 24 units, in the colour of the text; it says nothing to a screen reader. */
export function icon(name) {
  const about = { viewBox: "0 0 24 24", class: "icon", "aria-hidden": "true" };
  return svg("svg", about, svg("path", { d: PATHS[name] }));
}
