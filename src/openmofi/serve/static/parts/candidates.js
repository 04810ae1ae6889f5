import { h } from "../dom.js";
import { score } from "../format.js";
import { learn } from "../names.js";
import { entityLink } from "../url.js";

/** The terms of the score: field, heading, meaning, and how they are drawn. */
const TERMS = [
  [
    "prior",
    "Prior",
    "How often this name means this entity, before anything else; a name's candidates sum to 1.",
    "share",
  ],
  ["context", "Context", "Cosine of the caption and the entity's label and description."],
  ["coherence", "Coherence", "Cosine of the entity and the caption's other entities."],
  ["type", "Type", "Log odds of the entity's types: how much likelier they are meant than others."],
  ["linkability", "Linkability", "Share of the name's uses in which it is a name at all."],
  [
    "case",
    "Case",
    "1: written as this entity's name is written; −1: written otherwise; 0: no evidence.",
    "whole",
  ],
  [
    "text_score",
    "Text score",
    "Probability among the candidates and “none of these”, from the text alone.",
    "share",
  ],
  ["clip", "Image", "Cosine of the image and the text “label: description”."],
  [
    "clip_z",
    "Image z",
    "The same in standard deviations above the entity's usual cosine with other captions' images.",
  ],
  [
    "clip_z_other",
    "z elsewhere",
    "Mean image z with other captions' images: what the entity gets by chance.",
  ],
  [
    "score",
    "Score",
    "Probability among the candidates and “none of these”, from text and image together.",
    "share",
  ],
];
const CHOICES = [
  ["text_choice", "text's choice", "text"],
  ["picture_choice", "image's choice", "image"],
  ["choice", "chosen", "final"],
];

export const markId = (index) => `mention-${index}`;

/** A mention's candidates with every term of their score; the last row is "none of these". */
export function candidateTable(mention, index, weights) {
  learn(mention.candidates);
  const { surface, candidates } = mention;
  const terms = TERMS.filter(([field]) => candidates.some((other) => isNumber(other[field])));
  const worth = (candidate) => candidate.score ?? candidate.text_score ?? 0;
  const rows = candidates.toSorted((a, b) => worth(b) - worth(a));
  const title = `${markId(index)}-title`;
  const region = { tabindex: 0, role: "region", "aria-label": `Candidates for ${surface}` };
  return h(
    "section.mention",
    { id: markId(index), tabindex: -1, "aria-labelledby": title },
    h("h2", { id: title, dir: "auto" }, `“${surface}”`),
    h(
      "div.scroll",
      region,
      h(
        "table",
        h("thead", h("tr", h("th", { scope: "col" }, "Candidate"), terms.map(columnHead))),
        h(
          "tbody",
          rows.map((candidate) => candidateRow(candidate, terms, mention)),
          nilRow(terms, mention, weights),
        ),
      ),
    ),
  );
}

function columnHead([, name, meaning]) {
  return h("th.number", { scope: "col", title: meaning }, name);
}

function candidateRow(candidate, terms, mention) {
  const choices = CHOICES.filter(([field]) => mention[field] === candidate.id);
  return h(
    "tr",
    { class: mention.choice === candidate.id ? "chosen" : null },
    h(
      "th",
      { scope: "row" },
      h("a", { href: entityLink(candidate.id) }, candidate.label),
      h("span.muted", candidate.description),
      choices.length > 0 && badges(choices),
    ),
    terms.map(([field, , , kind]) => cell(candidate[field], kind)),
  );
}

function nilRow(terms, mention, weights) {
  const seen = mention.candidates.map(({ clip_z: z }) => z).filter(isNumber);
  const isAbove = isNumber(weights?.nil_z) && seen.length > 0 && weights.nil_z > Math.max(...seen);
  const isSeen = isNumber(mention.nil.score) || isAbove; // else no image could choose
  const choices = CHOICES.filter(
    ([field]) => mention[field] === null && (isSeen || field !== "picture_choice"),
  );
  return h(
    "tr",
    { class: mention.choice === null ? "chosen nil" : "nil" },
    h("th", { scope: "row" }, "None of these", choices.length > 0 && badges(choices)),
    terms.map(([field, , , kind]) => cell(mention.nil[field], kind)),
  );
}

function badges(choices) {
  return h(
    "span.badges",
    choices.map(([, words, kind]) => h("span", { class: `badge ${kind}` }, words)),
  );
}

function cell(value, kind) {
  if (!isNumber(value)) return h("td.number.muted", "–");
  const text = score(value, kind === "whole" ? 0 : 2);
  if (kind !== "share") return h("td.number", text);
  return h("td.number", text, h("span.bar", { style: { "--share": value } }));
}

/** What the columns mean, and the weights that joined them. */
export function legend({ weights, threshold, threshold_on: on }) {
  const facts = Object.entries(weights ?? {}).map(([name, value]) => `${name} ${score(value, 2)}`);
  const [, measure] = TERMS.find(([field]) => field === on) ?? [];
  if (measure) facts.push(`threshold ${score(threshold, 2)} on “${measure}”`);
  return h(
    "details.panel.legend",
    h("summary", "What the numbers mean"),
    h(
      "dl",
      TERMS.map(([, name, meaning]) => h("div", h("dt", name), h("dd", meaning))),
    ),
    facts.length > 0 && h("p.muted", `Weights of this selection: ${facts.join(", ")}.`),
  );
}

const isNumber = (value) => typeof value === "number";
