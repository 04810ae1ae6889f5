import { h, fill, refill } from "../dom.js";
import { count, score } from "../format.js";
import { go } from "../router.js";
import { link, toggled, withFilter } from "../url.js";
import { icon } from "./icons.js";

const SHOWN = 10;
const GROUPS = [
  ["entities", "Entities", "id"],
  ["types", "Types", "id"],
  ["sources", "Sources", "name"],
];

/**
 * The column of filters: similarity, what the images show, and more.
 * Returns {node, update(state, facets)}; until new counts come, the old ones stay.
 */
export function facetColumn() {
  const body = h("div.facets-body");
  const wide = matchMedia("(min-width: 900px)");
  const node = h("details.facets", { open: wide.matches }, h("summary", "Filters"), body);
  wide.addEventListener("change", () => (node.open = wide.matches));
  let more = false; // whether "More filters" is open survives the next answer
  const all = new Set(); // groups shown in full
  let known = null;
  const update = (state, facets = known) => {
    known = facets;
    if (!known) return;
    const redraw = () => update(state);
    const others = h(
      "details.more",
      { open: more || undefined, ontoggle: () => (more = others.open) },
      h("summary", "More filters"),
      slider(state, "min_label_score", { label: "Label score at least", off: 0 }),
      slider(state, "max_text_area", { label: "Text area at most", off: 1 }),
    );
    refill(
      body,
      state.terms.length > 0 &&
        slider(state, "min_score", { label: "Similarity at least", off: 0 }),
      GROUPS.map(([name, title, key]) =>
        group(state, name, title, facets[name] ?? [], { key, all, redraw }),
      ),
      others,
    );
  };
  return { node, update };
}

function group(state, name, title, values, { key, all, redraw }) {
  if (values.length < (name === "sources" ? 2 : 1)) return null; // one source is not a choice
  const largest = Math.max(...values.map((value) => value.count));
  const shown = all.has(name) ? values : values.slice(0, SHOWN);
  const expand = () => {
    all.add(name);
    redraw();
  };
  const rest = values.length - shown.length;
  return h(
    "section",
    { "aria-labelledby": `facet-${name}` },
    h("h2", { id: `facet-${name}` }, title),
    h(
      "ul",
      shown.map((value) => facet(state, name, value, { id: value[key], largest })),
    ),
    rest > 0 && h("button.quiet", { type: "button", onclick: expand }, `${rest} more`),
  );
}

function facet(state, name, value, { id, largest }) {
  const isOn = state[name].includes(id);
  const label = (value.label ?? value.name) || "no source";
  const isEntity = name === "entities";
  const about = {
    href: link(toggled(state, name, id)),
    "aria-current": isOn ? "true" : null,
    "data-key": `${name} ${id}`,
    title: label,
    onclick: (event) => {
      if (!isEntity || !(event.shiftKey || event.altKey)) return;
      event.preventDefault();
      go(without(state, id));
    },
  };
  return h(
    isOn ? "li.facet.on" : "li.facet",
    { style: { "--share": value.count / largest } },
    h("a", about, h("span.label", label), h("span.count", count(value.count))),
    isEntity && notButton(label, id, () => go(without(state, id))),
  );
}

function without(state, id) {
  const entities = state.entities.filter((other) => other !== id);
  return toggled({ ...state, entities }, "not_entities", id);
}

function notButton(label, id, onclick) {
  const text = `Not ${label}`;
  const about = { type: "button", "data-key": `not ${id}`, "aria-label": text, title: text };
  return h("button", { ...about, onclick }, icon("minus"));
}

/** A slider for a bound between 0 and 1; at `off` there is none. */
function slider(state, name, { label, off }) {
  const value = state[name] ?? off;
  const say = (x) => (x === off ? "any" : score(x, 2));
  const output = h("output", { for: `slider-${name}` }, say(value));
  const input = h("input", {
    type: "range",
    id: `slider-${name}`,
    "data-key": name,
    min: 0,
    max: 1,
    step: 0.01,
    value,
    oninput: () => fill(output, say(input.valueAsNumber)),
    onchange: () => {
      const bound = input.valueAsNumber;
      go(withFilter(state, { [name]: bound === off ? null : bound }));
    },
  });
  return h("div.slider", h("label", { for: `slider-${name}` }, label), output, input);
}
