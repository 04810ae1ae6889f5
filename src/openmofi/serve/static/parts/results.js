import { h, fill } from "../dom.js";
import { note } from "../router.js";
import { here, link } from "../url.js";
import { imageGrid } from "./grid.js";
import { refusal, skeletons } from "./states.js";

export const PAGE = 60;
const MOST = 480; // results that a reload asks for at once; the server gives no more than 500

const PATIENCE = 200; // milliseconds without grey boxes: a quick answer comes without a flash

/** Returns how many results to ask for at first: as many as the address says were on show. */
export const atFirst = ({ shown }) => Math.max(1, Math.min(Math.trunc(shown ?? PAGE), MOST));

/** Notes in the address how many results of a state are on show, unless it has another by now. */
export function noteShown(state, shown) {
  const address = (of) => link({ ...of, shown: null });
  if (address(here()) === address(state)) note({ ...state, shown });
}

/**
 * A grid that grows: at its end, by itself or by the button, it asks for the next page.
 *
 * @param fetchPage (offset, k, signal) -> {hits, total}
 * @param grown called with the number of results on show
 */
export function growingGrid(fetchPage, { signal, grown }) {
  const grid = imageGrid();
  const button = h(
    "button.button.more-results",
    { type: "button", hidden: true, onclick: () => grow() },
    "Show more",
  );
  const failed = h("div");
  const node = h("div.results-grid", grid.node, button, failed);
  let total = 0;
  let asking = null; // the page under way
  let waiting = null; // the timer of the grey boxes

  const settle = (answer) => {
    total = answer.total;
    button.hidden = grid.size() >= total || answer.hits.length === 0;
    watcher.unobserve(button); // observed again, it reports even if it has not left the window
    watcher.observe(button);
  };
  const grow = async () => {
    if (asking) return;
    const mine = (asking = new AbortController());
    const either = AbortSignal.any([signal, mine.signal]);
    fill(failed);
    try {
      const answer = await fetchPage(grid.size(), PAGE, either);
      if (either.aborted) return; // another search came in between
      grid.append(answer.hits);
      settle(answer);
      grown(grid.size());
    } catch (error) {
      if (either.aborted) return;
      button.hidden = true;
      fill(failed, refusal(error, grow));
    } finally {
      if (asking === mine) asking = null;
    }
  };
  const watcher = new IntersectionObserver(
    (entries) => entries[0].isIntersecting && !button.hidden && grow(),
    { rootMargin: "600px" },
  );
  signal.addEventListener("abort", () => watcher.disconnect());

  const forget = () => {
    clearTimeout(waiting);
    asking?.abort();
    asking = null;
    fill(failed);
    button.hidden = true;
  };
  const set = (answer) => {
    forget();
    grid.set(answer.hits);
    settle(answer);
  };
  /** Another search is under way: what is on show stays until its answer, but grows no more. */
  const wait = () => {
    forget();
    if (grid.size()) return;
    const show = () => fill(grid.node, skeletons(18, "tile"));
    waiting = setTimeout(show, PATIENCE);
  };
  return { node, set, wait, size: grid.size };
}
