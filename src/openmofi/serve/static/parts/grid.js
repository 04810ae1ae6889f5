import { h, fill } from "../dom.js";
import { score } from "../format.js";
import { learn } from "../names.js";
import { go } from "../router.js";
import { entityLink, here, link, whyLink, withTerms, EMPTY } from "../url.js";
import { icon } from "./icons.js";

/** A grid of results that the arrow keys walk; returns {node, set(hits), append(hits), size()}. */
export function imageGrid() {
  const node = h("ul.grid");
  node.addEventListener("focusin", (event) => activate(event.target.closest(".tile")));
  node.addEventListener("keydown", (event) => onKey(event, node));
  const append = (hits) => {
    for (const hit of hits) learn(hit.entities);
    node.append(...hits.map(tile));
    if (node.firstChild && !node.querySelector(".active")) activate(node.firstChild);
  };
  const set = (hits) => {
    const inside = node.contains(document.activeElement);
    fill(node);
    append(hits);
    const next = node.querySelector(".image") ?? document.getElementById("box");
    if (inside) next?.focus({ preventScroll: true });
  };
  const size = () => node.querySelectorAll("[data-row]").length; // grey boxes are not results
  return { node, append, set, size };
}

/** The search for images like one, within the search on show. */
export function similarLink(row) {
  const state = here();
  const term = { kind: "row", value: row, weight: 1 };
  return link(withTerms(state.view === "search" ? state : EMPTY, term));
}

const MARKS = {
  corrected: "People said something of its labels.",
  audited: "Its label was checked in an audit.",
  doubtful: "A label's score is below 0.9.",
};

function marksOf(marks) {
  const mark = (name) => h("span", { class: `mark ${name}`, title: MARKS[name] }, name);
  return marks.length > 0 && h("div.marks", marks.map(mark));
}

function tile({ row, caption, score: similarity, entities, marks, thumbnail }) {
  const names = entities.map(({ label }) => label).join(", ");
  const alt = caption || names || `Image ${row}`;
  const size = { width: 256, height: 256, loading: "lazy", decoding: "async" };
  const missing = () => image.replaceWith(h("span.missing", alt));
  const image = h("img", { src: thumbnail, alt, ...size, draggable: "false", onerror: missing });
  return h(
    "li.tile",
    { "data-row": row },
    h("a.image", { tabindex: -1, href: whyLink(row), title: caption || null }, image),
    h(
      "div.tile-actions",
      action("similar", "Similar", similarLink(row), `Similar to ${alt}`),
      action("why", "Why?", whyLink(row), `Why ${alt}?`),
    ),
    marksOf(marks),
    h(
      "div.tile-foot",
      h("span.names", entities.length ? entities.map(entityName) : h("span.muted", "no label")),
      similarity !== null && h("span.score", { title: "Similarity" }, score(similarity)),
    ),
  );
}

function action(name, text, href, label) {
  return h("a", { tabindex: -1, href, "aria-label": label }, icon(name), h("span", text));
}

function entityName({ id, label, score: labelScore }, i) {
  const title = labelScore === null ? label : `${label} (label score ${score(labelScore, 2)})`;
  return [i > 0 && ", ", h("a", { tabindex: -1, href: entityLink(id), title }, label)];
}

/* Only the tile in hand has its links in the tab order; the arrow keys hand it on. */
function activate(tile) {
  const links = (of, index) =>
    of.querySelectorAll("a").forEach((anchor) => (anchor.tabIndex = index));
  const before = tile.parentElement.querySelector(".active");
  if (before === tile) return;
  before?.classList.remove("active");
  if (before) links(before, -1);
  tile.classList.add("active");
  links(tile, 0);
}

function onKey(event, grid) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const current = event.target.closest(".tile");
  const tiles = [...grid.children];
  const index = tiles.indexOf(current);
  const columns = tiles.findIndex((other) => other.offsetTop > tiles[0].offsetTop);
  const across = columns < 0 ? tiles.length : columns;
  const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: across, ArrowUp: -across }[event.key];
  if (step) tiles[index + step]?.querySelector(".image").focus();
  else if (event.key === "s") go(similarLink(current.dataset.row));
  else if (event.key === "w") go(whyLink(current.dataset.row));
  else if (event.key === "Escape") document.getElementById("box")?.focus();
  else return;
  event.preventDefault();
}
