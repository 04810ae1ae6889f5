import { h } from "../dom.js";
import { pictureGrid } from "./grid.js";
import { failure, skeletons } from "./states.js";

export const PAGE = 60;
export const MOST = 600; // results that a reload asks for at once

const PATIENCE = 200; // milliseconds without grey boxes: a quick answer comes without a flash

/**
 * A grid that grows: at its end, by itself or by the button, it asks for the next page.
 *
 * @param fetchPage (offset, k, signal) -> {hits, total}
 * @param grown called with the number of results on show
 */
export function growingGrid(fetchPage, { signal, grown }) {
  const grid = pictureGrid();
  const button = h(
    "button.button.more-results",
    { type: "button", hidden: true, onclick: () => grow() },
    "Show more",
  );
  const node = h("div.results-grid", grid.node, button);
  let total = 0;
  let asking = null;

  const settle = (answer) => {
    total = answer.total;
    button.hidden = grid.size() >= total || answer.hits.length === 0;
    watcher.unobserve(button); // observed anew, it reports even if it has not left the window
    watcher.observe(button);
  };
  const grow = () => (asking ??= ask().finally(() => (asking = null)));
  const ask = async () => {
    const offset = grid.size();
    try {
      const answer = await fetchPage(offset, PAGE, signal);
      if (grid.size() !== offset) return; // another search came in between
      grid.append(answer.hits);
      settle(answer);
      grown(grid.size());
    } catch (error) {
      if (!signal.aborted) button.replaceWith(failure(error, () => location.reload()));
    }
  };
  const watcher = new IntersectionObserver(
    (entries) => entries[0].isIntersecting && !button.hidden && grow(),
    { rootMargin: "600px" },
  );
  signal.addEventListener("abort", () => watcher.disconnect());

  let waiting = null;
  const set = (answer) => {
    clearTimeout(waiting);
    grid.set(answer.hits);
    settle(answer);
  };
  const wait = () => {
    button.hidden = true;
    const show = () => grid.node.replaceChildren(...skeletons(18, "tile"));
    waiting = setTimeout(show, PATIENCE);
  };
  return { node, set, wait, size: grid.size };
}
