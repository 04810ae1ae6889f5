/*
 * The state of the page <-> the query string, for example
 *   /?q=red+flag&entity=-1*Q142&only=Q30    two terms, one of them negative, and a filter
 *   /?view=entity&id=Q142    /?view=why&row=12    /?view=map&at=0.5,0.5,4    /?view=data&reason=nil
 *   /?view=review&tab=changes
 */

/** Parameter -> kind of term, as /api/search calls it. */
const TERMS = { q: "text", upload: "upload", like: "row", entity: "entity" };
const PARAMETERS = Object.fromEntries(
  Object.entries(TERMS).map(([parameter, kind]) => [kind, parameter]),
);

/** Name in the state -> [parameter, from strings, to strings]; without strings it is left out. */
const FIELDS = {
  entities: ["only", (all) => all, (ids) => ids],
  not_entities: ["not", (all) => all, (ids) => ids],
  types: ["type", (all) => all, (ids) => ids],
  sources: ["source", (all) => all, (names) => names],
  min_label_score: ["label_score", toNumber, fromValue],
  max_text_area: ["text_area", toNumber, fromValue],
  lasso: ["lasso", toPolygon, fromPolygon],
  min_score: ["min", toNumber, fromValue],
  shown: ["n", toNumber, fromValue], // how many results were loaded
  nearest: ["nearest", toNumber, fromValue], // 1: the nearest are on show although nothing was found
  id: ["id", toText, fromValue],
  row: ["row", toNumber, fromValue],
  refused: ["refused", toNumber, fromValue],
  reason: ["reason", toText, fromValue],
  report: ["report", toText, fromValue],
  tab: ["tab", toText, fromValue],
  classes: ["class", (all) => all.map(Number), (classes) => classes.map(String)], // lit on the map
  at: ["at", toPlace, fromPlace], // centre and zoom of the map
};

export const MOST_TERMS = 32; // the server takes no more

const FILTERS = [
  "entities",
  "not_entities",
  "types",
  "sources",
  "min_label_score",
  "max_text_area",
  "lasso",
];

export const EMPTY = readState("");

/** Returns the state that a query string describes; what it does not mention is empty. */
export function readState(query) {
  const parameters = new URLSearchParams(query);
  const all = [...parameters]
    .filter(([name]) => Object.hasOwn(TERMS, name))
    .map(([name, value]) => readTerm(TERMS[name], value))
    .filter(isTerm);
  const terms = all.slice(0, MOST_TERMS);
  const surplus = all.length - terms.length;
  const state = { view: parameters.get("view") ?? "search", terms, surplus };
  for (const [name, [parameter, read]] of Object.entries(FIELDS))
    state[name] = read(parameters.getAll(parameter));
  return state;
}

/** Returns the address of a state, given in part. */
export function link(state) {
  const parameters = new URLSearchParams();
  if (state.view && state.view !== "search") parameters.append("view", state.view);
  for (const term of state.terms ?? []) parameters.append(PARAMETERS[term.kind], writeTerm(term));
  for (const [name, [parameter, , write]] of Object.entries(FIELDS)) {
    for (const value of write(state[name] ?? [])) parameters.append(parameter, value);
  }
  const query = parameters.toString();
  return query ? `/?${query}` : "/";
}

export const here = () => readState(location.search);
export const entityLink = (id) => link({ view: "entity", id });
export const whyLink = (row) => link({ view: "why", row });

/** Returns the state's filter and how many conditions it has. */
export const filterOf = (state) => Object.fromEntries(FILTERS.map((name) => [name, state[name]]));
export const isFiltered = (state) => FILTERS.some((name) => fromAny(state[name]).length > 0);

/** A search with one term more, or with a filter changed, begins at the first result. */
export const withTerms = (state, ...terms) => ({
  ...state,
  view: "search",
  terms: [...state.terms, ...terms],
  shown: null,
  nearest: null,
});
export function withFilter(before, changes) {
  const state = { ...before, ...changes, shown: null, nearest: null };
  return state.terms?.length ? state : { ...state, min_score: null }; // similar to nothing
}

/** Returns the state with `value` put into, or taken out of, one of its lists. */
export function toggled(state, name, value) {
  const rest = state[name].filter((other) => other !== value);
  return withFilter(state, { [name]: rest.length < state[name].length ? rest : [...rest, value] });
}

/* A term is written `value`, or `weight*value`: if the weight is not 1, or the value looks so. */
const WEIGHTED = /^(-?\d+(?:\.\d+)?)\*(.*)$/s;

function readTerm(kind, text) {
  const [, weight, value] = WEIGHTED.exec(text) ?? [null, "1", text];
  return { kind, value: kind === "row" ? toRow(value) : value, weight: Number(weight) };
}

function isTerm({ kind, value }) {
  return kind === "row" ? Number.isSafeInteger(value) : value.trim() !== "";
}

function writeTerm({ value, weight = 1 }) {
  return weight === 1 && !WEIGHTED.test(value) ? String(value) : `${weight}*${value}`;
}

function toRow(text) {
  return /^\d+$/.test(text) ? Number(text) : NaN;
}

function toNumber([text]) {
  return text && Number.isFinite(Number(text)) ? Number(text) : null;
}

function toText([text]) {
  return text ?? null;
}

function fromAny(value) {
  return Array.isArray(value) ? value : fromValue(value);
}

function fromValue(value) {
  return value == null || Array.isArray(value) ? [] : [String(value)];
}

function toPolygon([text]) {
  const points = (text ?? "")
    .split(";")
    .filter(Boolean)
    .map((pair) => pair.split(",").map(Number));
  return points.length > 2 &&
    points.every((pair) => pair.length === 2 && pair.every(Number.isFinite))
    ? points
    : [];
}

function fromPolygon(points) {
  return points.length ? [points.map(([x, y]) => `${round(x)},${round(y)}`).join(";")] : [];
}

function toPlace([text]) {
  const [x, y, zoom] = (text ?? "").split(",").map(Number);
  return [x, y, zoom].every(Number.isFinite) && zoom > 0 ? { x, y, zoom } : null;
}

function fromPlace(at) {
  return at?.zoom
    ? [`${round(at.x)},${round(at.y)},${Number(at.zoom.toPrecision(4))}`]
    : [];
}

const round = (x) => Number(x.toFixed(4));
