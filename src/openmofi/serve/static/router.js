import { debounce } from "./dom.js";
import { link } from "./url.js";

let render = null;

/**
 * Goes to a state or address.
 *
 * @param replace the step that "back" leads to stays the one before
 * @param stay the page is not scrolled to its top
 */
export function go(target, { replace = false, stay = replace } = {}) {
  const address = typeof target === "string" ? target : link(target);
  if (!replace && address === location.pathname + location.search) return;
  history[replace ? "replaceState" : "pushState"]({ scroll: stay ? scrollY : 0 }, "", address);
  render();
}

/** Notes a state in the address without drawing anything again. */
export function note(state) {
  history.replaceState(history.state, "", link(state));
}

/** Calls `draw` now and whenever the address changes; it resolves once the page has its height. */
export function start(draw) {
  history.scrollRestoration = "manual"; // the browser would restore before the results are there
  let drawing = 0; // what is scrolled meanwhile is not a wish of the reader
  render = async () => {
    const { scroll } = history.state ?? { scroll: 0 };
    drawing++;
    await draw().finally(() => drawing--);
    scrollTo(0, scroll);
  };
  const keepScroll = debounce(() => drawing || history.replaceState({ scroll: scrollY }, ""), 100);
  addEventListener("popstate", render);
  addEventListener("scroll", keepScroll, { passive: true });
  document.addEventListener("click", followInside);
  return render();
}

/* A change of the hash alone would count as a step, and draw everything again. */
function jump(id) {
  const target = document.getElementById(id);
  target.scrollIntoView();
  target.focus({ preventScroll: true });
}

function followInside(event) {
  const anchor = event.target.closest?.("a[href]");
  if (!anchor || event.defaultPrevented || event.button !== 0 || anchor.target) return;
  if (event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
  const url = new URL(anchor.href);
  if (url.origin !== location.origin || url.pathname !== "/") return;
  event.preventDefault();
  if (url.hash) return jump(url.hash.slice(1));
  go(url.pathname + url.search, { stay: "stay" in anchor.dataset });
}
