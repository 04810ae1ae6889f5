/**
 * Makes an element: h("a.quiet", { href, onclick: f, style: { "--share": 1 } }, "text", node).
 * The properties may be left out; so is what is null, undefined or false, of them and of the
 * children. Nothing is ever parsed as HTML.
 */
export function h(selector, ...rest) {
  const [tag, ...classes] = selector.split(".");
  return furnish(document.createElement(tag), classes, rest);
}

/** Makes an SVG element, in the same way. */
export function svg(selector, ...rest) {
  const [tag, ...classes] = selector.split(".");
  return furnish(document.createElementNS("http://www.w3.org/2000/svg", tag), classes, rest);
}

function furnish(node, classes, rest) {
  const properties = rest[0]?.constructor === Object ? rest.shift() : {};
  for (const [name, value] of Object.entries(properties)) {
    if (value == null || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "style") setStyle(node, value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.classList.add(...classes);
  return fill(node, ...rest);
}

/** Replaces the children of a node. */
export function fill(node, ...children) {
  const given = children.flat(Infinity).filter((child) => child != null && child !== false);
  node.replaceChildren(...given);
  return node;
}

/**
 * Fills a node again; the focus stays on what has the same data-key, with what was being typed
 * there, or goes to the first link, or to the search box. A field where nothing was typed yet is
 * selected: what is typed next takes the place of its value.
 */
export function refill(node, ...children) {
  const focused = document.activeElement;
  const inside = node !== focused && node.contains(focused);
  fill(node, ...children);
  if (!inside) return node;
  const all = [...node.querySelectorAll("a, button, input, summary")];
  const same = all.find((other) => other.dataset.key && other.dataset.key === focused.dataset.key);
  const typed = same?.matches("input") && focused.value !== focused.defaultValue;
  if (typed) same.value = focused.value;
  (same ?? all[0] ?? document.getElementById("box"))?.focus({ preventScroll: true });
  if (same?.matches("input") && !typed) same.select();
  return node;
}

/** Acts now, or, if somebody types in a field of the node («0.» has no value), once they left it. */
export function whenNotTyping(node, action) {
  const focused = document.activeElement;
  const typing = node.contains(focused) && focused.matches("input");
  if (!typing) action();
  else focused.addEventListener("blur", () => setTimeout(action), { once: true });
}

function setStyle(node, style) {
  for (const [name, value] of Object.entries(style)) node.style.setProperty(name, value);
}

export const isTyping = (target) => target.matches?.("input, textarea, select, [contenteditable]");

/** Calls `action` once, `ms` after the last call. */
export function debounce(action, ms) {
  let timer;
  return (...values) => {
    clearTimeout(timer);
    timer = setTimeout(action, ms, ...values);
  };
}

/** Runs one task at a time: another one aborts it, and its error is nobody's any more. */
export function latest(parent) {
  let controller = null;
  return async (task) => {
    controller?.abort();
    const mine = (controller = new AbortController());
    const signal = parent ? AbortSignal.any([parent, mine.signal]) : mine.signal;
    try {
      return await task(signal);
    } catch (error) {
      if (!signal.aborted) throw error;
    }
  };
}
