import { getInfo, post } from "../api.js";
import { h, fill, latest, refill, whenNotTyping } from "../dom.js";
import { images, score, things } from "../format.js";
import { learn } from "../names.js";
import { go } from "../router.js";
import { filterOf, here, isFiltered, link, MOST_TERMS, withFilter, withTerms } from "../url.js";
import { searchBox } from "../parts/box.js";
import { filterChips, termChips } from "../parts/chips.js";
import { facetColumn } from "../parts/facets.js";
import { atFirst, growingGrid, noteShown } from "../parts/results.js";
import { notice } from "../parts/shell.js";
import { empty, failure } from "../parts/states.js";
import { whatIsThis } from "../parts/tags.js";

/** Search: terms and filters from the address, results below. */
export function open(main, signal) {
  const parts = layOut(main, signal);
  const run = latest(signal);
  return (state) =>
    run(async (mine) => {
      begin(parts, state);
      try {
        getInfo().catch(() => null); // asked beside the search, awaited after it
        const answer = await post("/api/search", question(state, { facets: true }), mine);
        show(parts, state, answer, await getInfo());
        showTags(parts, state, signal);
      } catch (error) {
        if (mine.aborted) throw error;
        fail(parts, state, error);
      }
      parts.outcome.setAttribute("aria-busy", "false");
    });
}

function layOut(main, signal) {
  const chips = h("ul.chips", { "aria-label": "Terms and filters" });
  const title = h("h1");
  const about = h("p.muted");
  const head = h("div.results-head", title, about);
  const live = h("p.unseen", { role: "status" });
  const tags = h("section.tags", { "aria-label": "What is this?", hidden: true });
  const outcome = h("div");
  const facets = facetColumn();
  const box = searchBox({
    add: (term) => go(withTerms(here(), term)),
    removeLast: () => go(withFilter(here(), { terms: here().terms.slice(0, -1) })),
    signal,
  });
  const page = (offset, k, mine) => post("/api/search", question(parts.state, { offset, k }), mine);
  const grown = (shown) => noteShown(parts.state, shown);
  const results = growingGrid(page, { signal, grown });
  const section = h("section.results", { "aria-label": "Results" }, head, live, tags, outcome);
  fill(main, h("div.search-head", box, chips), h("div.columns", facets.node, section));
  const parts = { chips, title, about, head, live, tags, outcome, facets, results };
  return Object.assign(parts, { state: null, tagged: null });
}

/** Shows what is known before the answer: what is clicked meanwhile adds to this state. */
function begin(parts, state) {
  const { chips, facets, results, outcome } = parts;
  parts.state = state;
  if (state.surplus)
    notice(`A search has at most ${MOST_TERMS} terms; the last ${state.surplus} are left out.`);
  refill(chips, termChips(state), filterChips(state));
  facets.update(state);
  results.wait();
  if (!results.size() && results.node !== outcome.firstChild) fill(outcome, results.node);
  outcome.setAttribute("aria-busy", "true");
}

function show(parts, state, answer, info) {
  const { chips, title, about, head, live, outcome, facets, results } = parts;
  learn(answer.facets.entities);
  learn(answer.facets.types);
  whenNotTyping(chips, () => {
    if (parts.state !== state) return;
    refill(chips, termChips(state, answer.terms), filterChips(state, { ask: true }));
  });
  facets.update(state, answer.facets);
  const held = isAbsent(answer) && !state.nearest; // only the nearest, which nobody asked for yet
  results.set(held ? { hits: [], total: 0 } : answer);
  const content = held
    ? absent(state, answer)
    : answer.hits.length
      ? results.node
      : nothing(state, info);
  if (content !== outcome.firstChild) fill(outcome, content); // else the focus would be lost
  head.hidden = false;
  fill(title, heading(state, answer, info));
  fill(about, answer.hits.length > 0 && !held && aboutLine(state, answer));
  fill(live, title.textContent);
  document.title = `${describe(state, answer)} · OpenMOFI`;
}

/** With one dropped image and nothing else: what the model says of it. */
function showTags(parts, state, signal) {
  const [term, ...others] = state.terms;
  const upload = !others.length && term?.kind === "upload" ? term.value : null;
  if (upload === parts.tagged) return;
  parts.tagged = upload;
  if (upload) whatIsThis(parts.tags, { upload }, signal);
  else parts.tags.hidden = true;
}

function fail(parts, state, error) {
  const { head, tags, outcome, results } = parts;
  head.hidden = tags.hidden = true;
  parts.tagged = null;
  results.set({ hits: [], total: 0 });
  const retry = () => go(here(), { replace: true });
  fill(outcome, isGone(state, error) ? dropAgain(state) : failure(error, retry));
}

function question(state, { offset = 0, k = atFirst(state), facets = false }) {
  const terms = state.terms.map(({ kind, value, weight }) => ({ [kind]: value, weight }));
  const min_score = terms.length ? state.min_score : null; // similar to nothing
  return { terms, filter: filterOf(state), min_score, k, offset, facets };
}

const isAbsent = ({ found, hits }) => found === false && hits.length > 0;

/** Says that nothing looks like the query, and offers what is nearest to it all the same. */
function absent(state, { presence }) {
  const actions = [
    h("a.button", { href: link({ ...state, nearest: 1 }) }, "Show the nearest all the same"),
    h("a", { href: "/" }, "All images"),
  ];
  return empty("The nearest images seem to show something else", presence, { actions });
}

function heading(state, answer, info) {
  if (state.terms.length && state.min_score !== null)
    return `${images(answer.total)} at least ${score(state.min_score, 2)} similar`;
  if (isAbsent(answer)) return `Nothing here looks like ${asked(answer)}`;
  if (state.terms.length || isFiltered(state)) return images(answer.total);
  if (!info.entities) return images(info.images);
  return `${images(info.images)} of ${things(info.entities, "entity", "entities")}`;
}

/** What was asked for: a text or a name in quotation marks; an image has none. */
function asked({ terms }) {
  const { kind, label } = terms.find(({ weight }) => weight);
  return kind === "upload" ? "this image" : `“${label}”`;
}

function aboutLine(state, answer) {
  if (!state.terms.length) return "one image of each entity in turn, surest labels first";
  const { plan, seconds } = answer;
  const plans = { exact: "all compared", approximate: "by the approximate index" };
  const order = isAbsent(answer) ? "only the nearest" : "nearest first";
  return `${order} · ${plans[plan] ?? plan} · ${Math.ceil(1000 * seconds)} ms`;
}

function describe(state, answer) {
  if (!state.terms.length) return isFiltered(state) ? images(answer.total) : "Search";
  return answer.terms.map(({ label, weight }) => (weight < 0 ? `not ${label}` : label)).join(" + ");
}

function nothing(state, info) {
  if (!info.images) return empty("No images yet", "Add some with `openmofi index add`.");
  const loose = link(withFilter({ terms: state.terms }, { min_score: null }));
  const isFree = !isFiltered(state) && state.min_score === null;
  const actions = [
    !isFree && h("a.button", { href: loose }, "Remove the filters"),
    h("a", { href: "/" }, "All images"),
  ];
  const text = "No image meets all the conditions; take one of them away.";
  return empty("No image passes", text, { actions });
}

const isGone = (state, error) =>
  error.status === 404 && state.terms.some(({ kind }) => kind === "upload");

function dropAgain(state) {
  const terms = state.terms.filter(({ kind }) => kind !== "upload");
  const href = link(withFilter(state, { terms }));
  const actions = [h("a.button", { href }, "Search without it")];
  const text =
    "The server keeps the latest images only, and none after a restart: drop it again.";
  return empty("This image is gone", text, { heading: "h1", actions });
}
