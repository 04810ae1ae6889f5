import { get, post } from "../api.js";
import { h, fill, isTyping, latest } from "../dom.js";
import { count, score, things } from "../format.js";
import { learn } from "../names.js";
import { go } from "../router.js";
import { entityLink, link } from "../url.js";
import { nameAnswerer, otherEntity, say, takeBack, whoAnswers } from "../parts/answers.js";
import { complain, notice } from "../parts/shell.js";
import { empty, skeletons } from "../parts/states.js";
import { missing } from "./missing.js";

const TABS = [
  ["questions", "Questions"],
  ["changes", "What changes"],
  ["answers", "Answers"],
  ["missing", "Missing"],
];
const ASKED = 12; // at once
const LOOK_AGAIN = 1000;

/** Corrections: what to ask, what the answers change, and what was answered. */
export function open(main, signal) {
  const run = latest(signal);
  const body = h("div");
  const keys = { press: null };
  listen(keys, signal);
  return (state) =>
    run(async (mine) => {
      document.title = "Review · OpenMOFI";
      keys.press = null;
      const tab = TABS.some(([name]) => name === state.tab) ? state.tab : "questions";
      fill(main, head(tab), fill(body, skeletons(2, "block")));
      if (tab === "questions") await questions(body, keys, mine);
      else if (tab === "changes") await changes(body, mine);
      else if (tab === "missing") await missing(body, keys, mine);
      else await answers(body, mine);
    });
}

function head(current) {
  const about = { id: "by", type: "text", maxlength: 100, autocomplete: "nickname" };
  const by = h("input", { ...about, value: whoAnswers(), onchange: () => nameAnswerer(by.value) });
  const tab = ([name, title]) => {
    const here = { "aria-current": name === current ? "page" : null };
    return h("a", { href: link({ view: "review", tab: name }), ...here }, title);
  };
  return h(
    "div.review-head",
    h("h1", "Review"),
    h("nav.tabs", { "aria-label": "Parts of the review" }, TABS.map(tab)),
    h("label.by", { for: "by" }, "Your name", by),
  );
}

/* A key acts on the question that is on show. */
function listen(keys, signal) {
  const press = (event) => {
    if (isTyping(event.target) || event.ctrlKey || event.metaKey || event.altKey) return;
    if (keys.press?.(event.key)) event.preventDefault();
  };
  document.addEventListener("keydown", press, { signal });
}

async function questions(body, keys, signal) {
  let waiting = [];
  let busy = false;
  let told = 0;
  const next = async () => {
    if (!waiting.length) {
      const found = await get(`/api/review/questions?k=${ASKED}`, signal);
      waiting = found.questions;
    }
    draw();
  };
  const answer = async (send) => {
    if (busy) return;
    busy = true;
    try {
      await send();
      waiting.shift();
      await next();
    } catch (error) {
      complain(error, signal);
    } finally {
      busy = false;
    }
  };
  const draw = () => {
    const question = waiting[0];
    if (!question) {
      keys.press = null;
      const all = h("a.button", { href: link({ view: "review", tab: "changes" }) }, "What changes");
      fill(body, empty("Nothing left to ask", "No answer would change a label.", { actions: [all] }));
      return;
    }
    learn(question.candidates);
    const [chosen, ...others] = question.candidates;
    const { place, name } = question;
    const given = (kind, entity, text) => () =>
      answer(async () => {
        const body = { kind, place, ...(entity && { entity }) };
        await say(body, text);
        told++;
      });
    const acts = [
      ["y", "Right", given("right", chosen.id, `It is ${chosen.label}.`)],
      ["n", "Wrong", given("wrong", chosen.id, `It is not ${chosen.label}.`)],
      ["0", "Not shown", given("not-shown", null, `“${name}” is not shown.`)],
      ...others
        .slice(0, 8)
        .map((other, i) => [
          String(i + 1),
          `It is ${other.label}`,
          given("is", other.id, `It is ${other.label}.`),
          other.description,
        ]),
      [
        "x",
        `“${name}” never means ${chosen.label}`,
        () =>
          answer(() =>
            say({ kind: "never", name, entity: chosen.id }, `“${name}” never means ${chosen.label}.`),
          ),
      ],
      ["s", "Skip", () => answer(async () => {})],
    ];
    keys.press = (key) => {
      const act = acts.find(([known]) => known === key);
      act?.[2]();
      return Boolean(act);
    };
    const other = otherEntity((id) => given("is", id, `It is ${id}.`)());
    fill(body, card(question, chosen, acts, other, told));
  };
  await next();
}

function card(question, chosen, acts, other, told) {
  const { caption, name, kept, changes, thumbnail } = question;
  const size = { width: 512, height: 512 };
  const gone = ({ target }) => target.replaceWith(h("p.state", "The image is gone."));
  const image = { src: `${thumbnail}?side=512`, alt: caption || "The image", onerror: gone, ...size };
  return h(
    "div.question",
    h("div.question-image", h("img", image)),
    h(
      "div.question-text",
      h(
        "h2",
        "Is this ",
        h("a", { href: entityLink(chosen.id) }, chosen.label),
        "?",
      ),
      h("p.muted", chosen.description || h("code", chosen.id)),
      marked(question),
      h(
        "p.muted",
        `“${name}” is ${kept ? "kept" : "refused"} with score ${score(chosen.score, 2)}. `,
        `The answer is expected to change ${things(Math.round(changes), "label", "labels")}.`,
      ),
      h("div.answer-list", acts.map(act), other),
      told > 0 && h("p.muted", `${things(told, "answer", "answers")} in this visit.`),
    ),
  );
}

function act([key, label, onclick, description]) {
  return h(
    "button.button",
    { type: "button", onclick, "data-key": key },
    h("kbd", key),
    h("span", label, description && h("span.muted", ` ${description}`)),
  );
}

/** The caption with the name marked; places are code points. */
function marked({ caption, place, end }) {
  const points = Array.from(caption);
  const part = (from, to) => points.slice(from, to).join("");
  return h(
    "p.caption",
    { dir: "auto" },
    part(0, place.start),
    h("mark", part(place.start, end)),
    part(end),
  );
}

async function changes(body, signal) {
  const draw = (reply) => fill(body, changesPage(reply, act));
  const act = async (path, text, wanted) => {
    try {
      await post(`/api/review/${path}`, wanted, signal);
      if (text) notice(text);
      await look();
    } catch (error) {
      complain(error, signal);
    }
  };
  const look = async () => {
    const reply = await get("/api/review/preview", signal);
    draw(reply);
    if (reply.state === "running")
      setTimeout(() => signal.aborted || look().catch(() => null), LOOK_AGAIN);
  };
  await look();
}

function changesPage({ state, trouble, preview, can_revert: canRevert }, act) {
  const button = (label, onclick, kind = "button.button") =>
    h(kind, { type: "button", onclick }, label);
  const revert = () =>
    act("revert", "The former selection is back, and its answers are undone.", {
      by: whoAnswers(),
    });
  const back = canRevert && button("Take the last change back", revert);
  const ask = button("What would change?", () => act("preview"), "button.button.primary");
  if (state === "running")
    return h("div.state", { role: "status" }, h("h2", "Deciding again…"), h("p", "All labels are decided with the answers; of ten million that takes about a minute."));
  if (state === "failed")
    return h("div.state", { role: "alert" }, h("h2", "That did not work"), h("p", trouble), ask, back);
  if (state === "none")
    return empty("Nothing is changed yet", "Answers change labels once you have seen how, and agree.", {
      actions: [ask, back],
    });
  const { added, removed, answers, labels, entities, gallery } = preview;
  const total = added + removed;
  const apply = () => act("apply", `${things(total, "label", "labels")} changed.`);
  learn(entities);
  return [
    h(
      "div.change-head",
      h("h2", `${things(total, "label", "labels")} change`),
      h(
        "p",
        `By ${things(answers, "answer", "answers")}: ${count(removed)} of ${count(labels)} labels go, `,
        `${count(added)} come.`,
      ),
      h("p.entity-links", button("Apply", apply, "button.button.primary"), back),
    ),
    ["removed", "added"].map((kind) =>
      changeGallery(kind, gallery.filter(({ change }) => change === kind), preview[kind]),
    ),
    entities.length > 0 && changedEntities(entities),
  ];
}

function changedEntities(entities) {
  const row = ({ id, label, added, removed }) =>
    h(
      "tr",
      h("th", { scope: "row" }, h("a", { href: entityLink(id) }, label), h("span.muted", id)),
      h("td.number", `−${count(removed)}`),
      h("td.number", `+${count(added)}`),
    );
  const column = (title, kind = "th") => h(kind, { scope: "col" }, title);
  const titles = [column("Entity"), column("Go", "th.number"), column("Come", "th.number")];
  return h(
    "section",
    { "aria-label": "Entities that change most" },
    h("h2", "Entities that change most"),
    h(
      "div.scroll.change-entities",
      { tabindex: 0, role: "region", "aria-label": "Table of entities" },
      h("table", h("thead", h("tr", titles)), h("tbody", entities.map(row))),
    ),
  );
}

function changeGallery(kind, shown, total) {
  if (!shown.length) return null;
  const title = kind === "removed" ? "Labels that go" : "Labels that come";
  const tile = ({ thumbnail, caption, label, id }) =>
    h(
      "li.change",
      h("img", { src: `${thumbnail}?side=256`, alt: caption || label, loading: "lazy" }),
      h("a", { href: entityLink(id) }, label),
      h("span.muted", { dir: "auto" }, caption),
    );
  const of = shown.length < total ? ` ${count(shown.length)} of ${count(total)}` : "";
  return h(
    "section",
    { "aria-label": title },
    h("h2", title, h("span.muted", of)),
    h("ul.change-gallery", shown.map(tile)),
  );
}

async function answers(body, signal) {
  const draw = async () => {
    const reply = await get("/api/review/answers?k=200", signal);
    fill(body, answersPage(reply, draw));
  };
  await draw();
}

const SAID = {
  right: ({ entity }) => `is ${entity.label}`,
  wrong: ({ entity }) => `is not ${entity.label}`,
  is: ({ entity }) => `is ${entity.label}`,
  "not-shown": () => "is not shown",
  never: ({ entity }) => `never means ${entity.label}`,
  always: ({ entity }) => `always means ${entity.label}`,
};

function answersPage({ total, pending, contradictions, answers: rows }, draw) {
  if (!total) return empty("No answers yet", "What you say of labels is listed here.");
  const undo = async ({ id }) => {
    await takeBack([id]);
    await draw();
  };
  const row = (answer) =>
    h(
      "li.answer",
      h("span", { dir: "auto" }, h("strong", `“${answer.name}”`), ` ${SAID[answer.kind](answer)}`),
      h("span.muted", { dir: "auto" }, answer.caption),
      h(
        "span.muted",
        [answer.by, answer.time.slice(0, 16).replace("T", " "), answer.applied && "applied"]
          .filter(Boolean)
          .join(" · "),
      ),
      h(
        "button.button",
        { type: "button", onclick: () => undo(answer), "aria-label": `Undo “${answer.name}”` },
        "Undo",
      ),
    );
  const facts = [`${things(total, "answer holds", "answers hold")}`];
  if (pending) facts.push(`${count(pending)} not applied`);
  if (contradictions) facts.push(`${count(contradictions)} contradict somebody else's`);
  return [
    h("p.muted", `${facts.join(", ")}.`),
    pending > 0 &&
      h(
        "p.entity-links",
        h(
          "button.button.primary",
          { type: "button", onclick: () => go({ view: "review", tab: "changes" }) },
          "What would change?",
        ),
      ),
    h("ul.answers-list", rows.map(row)),
  ];
}
