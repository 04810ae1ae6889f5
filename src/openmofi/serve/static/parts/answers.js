import { get, post } from "../api.js";
import { h, fill, debounce } from "../dom.js";
import { complain, notice } from "./shell.js";

const STORED = "openmofi-by"; // who answers, as they call themselves

export function whoAnswers() {
  try {
    return localStorage.getItem(STORED) ?? "";
  } catch {
    return ""; // a browser that stores nothing
  }
}

export function nameAnswerer(name) {
  try {
    localStorage.setItem(STORED, name.trim());
  } catch {
    return; // it is asked again next time
  }
}

/** Stores an answer, and offers to take it back; resolves once it is on the server's disk. */
export async function say(answer, text, { undone } = {}) {
  const stored = await post("/api/review/answers", { ...answer, by: whoAnswers() });
  const remove = notice([`${text} `, undoButton()]);
  setTimeout(() => remove(), 8000);
  return stored;

  function undoButton() {
    const undo = async () => {
      remove();
      await takeBack([stored.id]);
      undone?.();
    };
    return h("button.link", { type: "button", onclick: undo }, "Undo");
  }
}

export async function takeBack(ids) {
  try {
    await post("/api/review/undo", { ids, by: whoAnswers() });
    notice(ids.length === 1 ? "The answer is taken back." : "The answers are taken back.");
  } catch (error) {
    complain(error);
  }
}

/** What can be said of a name of one image: buttons that store the answer at once. */
export function answerButtons({ place, surface, chosen, candidates }, { done }) {
  const status = h("p.muted", { role: "status" });
  const send = async (answer, text) => {
    try {
      await say(answer, text, { undone: () => (status.textContent = "Taken back.") });
      status.textContent = `Noted: ${text.toLowerCase()}`;
      done?.();
    } catch (error) {
      complain(error);
    }
  };
  const button = (label, answer, text) =>
    h("button.button", { type: "button", onclick: () => send(answer, text) }, label);
  const of = (kind, entity) => ({ kind, place, entity });
  const others = candidates.filter(({ id }) => id !== chosen.id);
  return h(
    "div.answers",
    h(
      "div.answer-row",
      { role: "group", "aria-label": `What is right about ${surface}?` },
      button("Right", of("right", chosen.id), `It is ${chosen.label}.`),
      button("Wrong", of("wrong", chosen.id), `It is not ${chosen.label}.`),
      button("Not shown", { kind: "not-shown", place }, `“${surface}” is not shown.`),
      others.length > 0 &&
        choice(others, ({ id, label }) => send(of("is", id), `It is ${label}.`)),
      button(
        "Never means that",
        { kind: "never", name: surface, entity: chosen.id },
        `“${surface}” never means ${chosen.label}.`,
      ),
    ),
    otherEntity((id) => send(of("is", id), `It is ${id}.`)),
    status,
  );
}

let fields = 0;

/** A field for any entity, also one that the name does not bear; `choose` takes its id. */
export function otherEntity(choose) {
  const list = h("datalist", { id: `entities-${++fields}` });
  const input = h("input", {
    type: "text",
    list: list.id,
    maxlength: 200,
    placeholder: "Another entity: id or name",
    "aria-label": "It is another entity",
  });
  const suggest = debounce(async () => {
    const query = new URLSearchParams({ q: input.value.trim(), k: 8 });
    const { entities } = await get(`/api/entities?${query}`).catch(() => ({ entities: [] }));
    const option = ({ id, label, description }) =>
      h("option", { value: id }, description ? `${label} (${description})` : label);
    fill(list, entities.map(option));
  }, 120);
  input.addEventListener("input", suggest);
  const send = (event) => {
    event.preventDefault();
    const id = input.value.trim();
    if (!id) return;
    input.value = "";
    choose(id);
  };
  const button = h("button.button", "It is this");
  return h("form.other-entity", { onsubmit: send }, input, list, button);
}

function choice(others, choose) {
  const known = Object.fromEntries(others.map((other) => [other.id, other]));
  const pick = ({ target }) => {
    if (target.value) choose(known[target.value]);
    target.value = "";
  };
  return h(
    "select.button",
    { "aria-label": "It is something else", onchange: pick },
    h("option", { value: "" }, "It is…"),
    others.map(({ id, label, description }) =>
      h("option", { value: id }, description ? `${label} (${description})` : label),
    ),
  );
}
