import { get, getInfo } from "../api.js";
import { h, fill, debounce, latest } from "../dom.js";
import { images } from "../format.js";
import { learn } from "../names.js";
import { icon } from "./icons.js";
import { imageButton } from "./images.js";

/**
 * The search box: Enter adds what was typed as text, a suggestion adds an entity.
 * A combobox with a list below (WAI-ARIA's editable combobox with list autocomplete).
 *
 * @param add called with a term {kind, value, weight}
 * @param removeLast called for Backspace in the empty box
 */
export function searchBox({ add, removeLast, signal }) {
  const list = h("ul", {
    id: "suggestions",
    role: "listbox",
    "aria-label": "Entities",
    hidden: true,
  });
  const input = h("input", {
    id: "box",
    type: "text",
    role: "combobox",
    autocomplete: "off",
    spellcheck: "false",
    enterkeyhint: "search",
    placeholder: "Words, an entity, or drop an image",
    "aria-label": "Search by words or entity",
    "aria-expanded": "false",
    "aria-controls": "suggestions",
    "aria-autocomplete": "list",
  });
  const run = latest(signal);
  let found = [];
  let active = -1;

  const mark = (index) => {
    active = index;
    [...list.children].forEach((option, i) =>
      option.setAttribute("aria-selected", String(i === active)),
    );
    const option = list.children[active];
    option?.scrollIntoView({ block: "nearest" });
    if (option) input.setAttribute("aria-activedescendant", option.id);
    else input.removeAttribute("aria-activedescendant");
  };
  const show = (entities) => {
    found = entities;
    fill(
      list,
      entities.map((entity, i) => suggestion(entity, i, () => choose(entity))),
    );
    list.hidden = entities.length === 0;
    input.setAttribute("aria-expanded", String(entities.length > 0));
    mark(-1);
  };
  const close = () => run(async () => show([])); // what was asked before must not open it again
  const finish = (term) => {
    input.value = "";
    close();
    add(term);
  };
  const choose = (entity) => {
    learn([entity]);
    finish({ kind: "entity", value: entity.id, weight: 1 });
  };
  const ask = () =>
    run(async (mine) => {
      const query = new URLSearchParams({ q: input.value.trim(), k: 8 });
      show((await get(`/api/entities?${query}`, mine)).entities);
    }).catch(() => show([])); // a search without suggestions still works
  const askSoon = debounce(() => {
    if (document.activeElement === input && input.value.trim()) ask();
    else close();
  }, 120);
  const enter = () => {
    const text = input.value.trim();
    if (found[active]) choose(found[active]);
    else if (text) finish({ kind: "text", value: text, weight: 1 });
  };
  const move = (step) => {
    if (list.hidden) ask();
    else mark(((active + step + found.length + 2) % (found.length + 1)) - 1); // -1: the box
  };
  const keys = {
    ArrowDown: () => move(1),
    ArrowUp: () => move(-1),
    Enter: enter,
    Escape: () => (list.hidden ? input.blur() : close()),
  };

  input.addEventListener("input", askSoon);
  input.addEventListener("blur", close);
  input.addEventListener("keydown", (event) => {
    if (event.isComposing) return; // Enter ends a word of an input method
    if (event.key === "Backspace" && !input.value) removeLast();
    if (!Object.hasOwn(keys, event.key)) return;
    event.preventDefault();
    keys[event.key]();
  });
  const images = imageButton(icon("image"));
  const suit = ({ has }) => {
    if (!has.text) input.placeholder = "An entity"; // no model: nothing is encoded
    if (!has.upload) for (const node of images) node.remove();
  };
  getInfo().then(suit, () => null); // the view says what is wrong
  return h(
    "div.box",
    { role: "search" },
    h("div.box-line", icon("search"), input, images),
    list,
  );
}

function suggestion(entity, index, choose) {
  const { label, name, description, thumbnail } = entity;
  return h(
    "li",
    // mousedown comes before the box loses the focus, and with it the list
    {
      id: `suggestion-${index}`,
      role: "option",
      "aria-selected": "false",
      onmousedown: (event) => (event.preventDefault(), choose()),
    },
    thumbnail ? h("img.thumb", { src: thumbnail, alt: "" }) : h("span.thumb"),
    h("span.label", label, name !== label && h("span.also", ` “${name}”`)),
    h("span.muted", description),
    h("span.count", images(entity.images)),
  );
}
