import { get, getInfo, post } from "../api.js";
import { h, fill, latest } from "../dom.js";
import { count, images, language, percent, score } from "../format.js";
import { learn } from "../names.js";
import { entityLink, link } from "../url.js";
import { say } from "../parts/answers.js";
import { icon } from "../parts/icons.js";
import { atFirst, growingGrid, noteShown } from "../parts/results.js";
import { complain } from "../parts/shell.js";
import { skeletons } from "../parts/states.js";

const SHOWN = 8; // of each list

/** An entity: what it is, its images, and what it is taken for. */
export function open(main, signal) {
  const run = latest(signal);
  return (state) =>
    run(async (mine) => {
      fill(main, h("div.grid", { "aria-busy": "true" }, skeletons(12, "tile")));
      const question = { terms: [{ entity: state.id }], filter: { entities: [state.id] } };
      const page = (offset, k, at) => post("/api/search", { ...question, offset, k }, at);
      const [entity, found, info] = await Promise.all([
        get(`/api/entities/${encodeURIComponent(state.id)}`, mine),
        page(0, atFirst(state), mine),
        getInfo(),
      ]);
      learn([entity, ...entity.types]);
      const grown = (shown) => noteShown(state, shown);
      const results = growingGrid(page, { signal: mine, grown });
      results.set(found);
      document.title = `${entity.label} · OpenMOFI`;
      const columns = [itsImages(found.total, results.node), aside(entity, info.has.data)];
      fill(main, header(entity), h("div.entity-columns", columns));
    });
}

function itsImages(total, grid) {
  const title = h(
    "h2",
    { id: "its-images" },
    images(total),
    h("span.muted", " most typical first"),
  );
  return h("section", { "aria-labelledby": "its-images" }, title, grid);
}

function header({ id, label, description, types, thumbnail }) {
  const ofType = (type) => [" · ", h("a", { href: link({ types: [type.id] }) }, type.label)];
  const search = link({ terms: [{ kind: "entity", value: id, weight: 1 }] });
  const elsewhere = { href: `https://www.wikidata.org/wiki/${id}`, rel: "noreferrer" };
  return h(
    "header.entity-head",
    thumbnail && h("img", { src: thumbnail, alt: "", width: 112, height: 112 }),
    h(
      "div",
      h("p.kind", h("code", id), types.map(ofType)),
      h("h1", label),
      h("p.description", description),
      h(
        "p.entity-links",
        h("a.button.primary", { href: search }, icon("search"), "Search with it"),
        /^Q\d+$/.test(id) && h("a.button", elsewhere, icon("away"), "Wikidata"),
      ),
    ),
  );
}

function aside(entity, canCorrect) {
  return h(
    "div.entity-aside",
    aliases(entity.aliases),
    list(
      "Taken for",
      "Labels of its images' nearest neighbours, where they are another entity's.",
      entity.confused,
      ({ share }) => percent(share),
    ),
    list(
      "Looks like",
      "Entities whose images lie nearest on average.",
      entity.siblings,
      ({ similarity }) => score(similarity, 2),
    ),
    list("Same type", null, entity.same_type, (other) => count(other.images)),
    shared(entity, canCorrect),
  );
}

function aliases(byLanguage) {
  const languages = Object.entries(byLanguage).filter(([, names]) => names.length);
  if (!languages.length) return null;
  const rows = languages.map(([code, names]) =>
    h("div", h("dt", language(code)), h("dd", { lang: code, dir: "auto" }, names.join(", "))),
  );
  return h(
    "details.panel",
    { open: languages.length <= 4 },
    h("summary", h("h2", "Also known as")),
    h("dl", rows),
  );
}

function list(title, meaning, entities, number) {
  if (!entities.length) return null;
  const rows = entities.slice(0, SHOWN).map((entity) => h("li", entityRow(entity, number(entity))));
  return h(
    "section.panel",
    h("h2", title),
    meaning && h("p.muted", meaning),
    h("ul.entity-list", rows),
  );
}

function entityRow({ id, label, thumbnail }, number) {
  const size = { width: 32, height: 32, loading: "lazy" };
  const image = thumbnail && h("img", { src: thumbnail, alt: "", ...size });
  const text = [h("span.label", label), h("span.count", number)];
  return h("a", { href: entityLink(id) }, image, text);
}

/* What a name means wherever it stands. */
function ruleButtons(name, { id, label }) {
  const send = async (kind, text) => {
    try {
      await say({ kind, name, entity: id }, text);
    } catch (error) {
      complain(error);
    }
  };
  const rule = (kind) => {
    const text = `“${name}” ${kind} means ${label}.`;
    const about = { type: "button", onclick: () => send(kind, text), title: text };
    return h("button.button", about, `${kind === "never" ? "Never" : "Always"} ${label}`);
  };
  return h("p.answer-row", rule("never"), rule("always"));
}

function shared(entity, canCorrect) {
  const { id: own, names_shared: names } = entity;
  if (!names.length) return null;
  const meaning = ({ id, label, prior }) => {
    const about = { href: entityLink(id), "aria-current": id === own ? "true" : null };
    const share = { style: { "--share": prior } };
    return h("li", share, h("a", about, label), h("span.count", percent(prior)));
  };
  const rows = names.slice(0, SHOWN).map(({ name, candidates }) => {
    const heading = h("h3", { dir: "auto" }, `“${name}”`);
    const list = h("ul", candidates.slice(0, SHOWN).map(meaning));
    return h("div.shared", heading, list, canCorrect && ruleButtons(name, entity));
  });
  const text = "How likely each meaning is before caption and image are looked at.";
  return h("section.panel", h("h2", "Names shared with others"), h("p.muted", text), rows);
}
