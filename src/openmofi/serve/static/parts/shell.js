import { h, isTyping } from "../dom.js";
import { icon } from "./icons.js";
import { switchTheme } from "./theme.js";

const KEYS = [
  ["/", "Go to the search box"],
  ["← ↑ → ↓", "Move between results; on the map: move the map"],
  ["Enter", "Open the result"],
  ["s", "Find images similar to the result"],
  ["w", "Why does the result have its labels?"],
  ["+  −  0", "On the map: zoom in, zoom out, show all"],
  ["Enter", "On the map: go to the images in view; arrow keys walk them, Esc returns"],
  ["y n 0 1 … s", "On a question of the review: right, wrong, not shown, another one, skip"],
  ["Ctrl V", "Search with an image from the clipboard"],
  ["Esc", "Close suggestions; from a result: back to the search box"],
  ["?", "Show these keys"],
];

/** Puts the tools into the header, and listens for the keys that work everywhere. */
export function furnish() {
  const dialog = keysDialog();
  const tools = document.getElementById("tools");
  tools.append(
    tool("keys", "Keyboard shortcuts", () => dialog.showModal()),
    tool("theme", "Light or dark", switchTheme),
  );
  document.body.append(dialog);
  document.addEventListener("keydown", (event) => {
    if (isTyping(event.target) || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "?") dialog.showModal();
    else if (event.key === "/") document.getElementById("box")?.focus();
    else return;
    event.preventDefault();
  });
}

/** Marks the view in the navigation. */
export function markView(view) {
  for (const anchor of document.querySelectorAll("[data-view]")) {
    if (anchor.dataset.view === view) anchor.setAttribute("aria-current", "page");
    else anchor.removeAttribute("aria-current");
  }
}

function tool(name, label, onclick) {
  const about = { type: "button", "aria-label": label, title: label, onclick };
  return h("button.tool", about, icon(name));
}

function keysDialog() {
  const keyCaps = (keys) => keys.split(/ +/).map((key) => h("kbd", key));
  const rows = KEYS.map(([keys, meaning]) => h("div", h("dt", keyCaps(keys)), h("dd", meaning)));
  return h(
    "dialog.keys",
    { "aria-labelledby": "keys-title" },
    h(
      "form",
      { method: "dialog" },
      h("h2", { id: "keys-title" }, "Keyboard"),
      h("button.tool", { "aria-label": "Close" }, icon("close")),
    ),
    h("dl", rows),
  );
}

/** Says at the foot of the page why something could not be done; a fault of the page is thrown. */
export function complain(error, signal) {
  if (signal?.aborted) return;
  if (error.status === undefined) throw error;
  notice(error.message, { bad: true });
}

/** Shows a line at the foot of the page; returns a function that takes it away. */
export function notice(text, { bad = false } = {}) {
  const remove = () => line.remove();
  const close = tool("close", "Close", remove);
  const role = { role: bad ? "alert" : "status" };
  const line = h(bad ? "div.notice.bad" : "div.notice", role, h("span", text), close);
  document.getElementById("notices").append(line);
  if (bad) setTimeout(remove, 12000);
  return remove;
}
