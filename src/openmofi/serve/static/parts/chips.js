import { h } from "../dom.js";
import { go } from "../router.js";
import { nameInto, nameOf } from "../names.js";
import { toggled, withFilter } from "../url.js";
import { score } from "../format.js";
import { icon } from "./icons.js";

/**
 * Chips for the terms of a search, each with its sign and weight.
 *
 * @param known what the server said of the terms, in order: label and thumbnail
 */
export function termChips(state, known = []) {
  const change = (index, changes) => {
    const terms = state.terms.map((term, i) => (i === index ? { ...term, ...changes } : term));
    go(withFilter(state, { terms }));
  };
  return state.terms.map((term, i) =>
    termChip(term, known[i], {
      key: i,
      remove: () => go(withFilter(state, { terms: state.terms.filter((_, other) => other !== i) })),
      weigh: (weight) => change(i, { weight }),
    }),
  );
}

function termChip(term, known, { key, remove, weigh }) {
  const negative = term.weight < 0;
  const label = h("span.chip-label", { dir: "auto" }, labelOf(term, known));
  const sign = {
    class: "sign",
    type: "button",
    "data-key": `sign ${key}`,
    "aria-pressed": String(negative),
    onclick: () => weigh(-term.weight),
  };
  const about = known?.label ?? labelOf(term);
  const size = Math.abs(term.weight);
  const apply = () => {
    const typed = Number.isNaN(weight.valueAsNumber) ? size : weight.valueAsNumber;
    const kept = Number(Math.max(0, Math.min(10, typed)).toFixed(3));
    weight.value = kept;
    if (kept !== size) weigh((negative ? -1 : 1) * kept);
  };
  const weight = h("input", {
    type: "number",
    "data-key": `weight ${key}`,
    min: 0,
    max: 10,
    step: "any",
    value: size,
    "aria-label": `Weight of ${about}`,
    title: "Weight",
    onchange: apply,
    onkeydown: ({ key }) => key === "Enter" && apply(), // what refill kept is not a change
  });
  return h(
    "li",
    { class: negative ? "chip term negative" : "chip term" },
    h(
      "button",
      {
        ...sign,
        "aria-label": `Away from ${about}`,
        title: negative ? "Away from this" : "Towards this",
      },
      icon(negative ? "minus" : "plus"),
    ),
    known?.thumbnail && h("img", { src: known.thumbnail, alt: "", width: 28, height: 28 }),
    label,
    weight,
    removeButton(about, remove),
  );
}

function labelOf(term, known) {
  if (known?.label) return known.label;
  return {
    text: term.value,
    entity: nameOf(term.value),
    row: `image ${term.value}`,
    upload: "image",
  }[term.kind];
}

/** Chips for the filters of a search; `ask`: the server is asked for names not known yet. */
export function filterChips(state, { ask = false } = {}) {
  const lists = [
    ["entities", "only"],
    ["not_entities", "not"],
    ["types", "type"],
    ["sources", "source"],
  ];
  const chips = lists.flatMap(([name, word]) =>
    state[name].map((value) => {
      const label = h("span.chip-label", nameOf(value) || "no source");
      if (ask && name.endsWith("entities")) nameInto(label, value);
      return filterChip(word, label, toggled(state, name, value), name === "not_entities");
    }),
  );
  const single = [
    ["min_score", "similarity ≥", score(state.min_score, 2)],
    ["min_label_score", "label score ≥", score(state.min_label_score, 2)],
    ["max_text_area", "text area ≤", score(state.max_text_area, 2)],
  ].filter(([name]) => state[name] !== null && (name !== "min_score" || state.terms.length > 0));
  chips.push(
    ...single.map(([name, word, value]) =>
      filterChip(word, value, withFilter(state, { [name]: null })),
    ),
  );
  if (state.lasso.length)
    chips.push(filterChip("in", "an area of the map", withFilter(state, { lasso: [] })));
  return chips;
}

function filterChip(word, label, without, negative = false) {
  const remove = removeButton(`${word} ${label.textContent ?? label}`, () => go(without));
  return h(
    "li",
    { class: negative ? "chip negative" : "chip" },
    h("span.muted", word),
    label,
    remove,
  );
}

function removeButton(about, onclick) {
  return h(
    "button.remove",
    { type: "button", "aria-label": `Remove ${about}`, title: "Remove", onclick },
    icon("close"),
  );
}
