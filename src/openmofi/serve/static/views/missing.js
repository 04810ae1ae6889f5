import { get, post } from "../api.js";
import { h, fill } from "../dom.js";
import { count, things } from "../format.js";
import { learn } from "../names.js";
import { entityLink } from "../url.js";
import { whoAnswers } from "../parts/answers.js";
import { complain, notice } from "../parts/shell.js";
import { empty } from "../parts/states.js";

const ASKED = 50; // at once
const EXPORT = "/api/review/missing.csv";

/** What the catalogue lacks: proposals one by one, their images, accept or reject, export. */
export async function missing(body, keys, signal) {
  const skipped = new Set();
  let busy = false;
  let waiting = [];
  let told = { accepted: 0, rejected: 0 };

  const load = async () => {
    const found = await get(`/api/review/missing?k=${ASKED + skipped.size}&undecided=true`, signal);
    waiting = found.proposals.filter(({ id }) => !skipped.has(id));
    told = found;
    draw();
  };
  const attempt = async (send) => {
    if (busy) return;
    busy = true;
    try {
      await send();
    } catch (error) {
      complain(error, signal);
    } finally {
      busy = false;
    }
  };
  const decide = (kind, proposal, fields) =>
    attempt(async () => {
      const { name, aliases, description } = fields();
      const by = whoAnswers();
      const asked = { kind, proposal: proposal.id, name, aliases, description, by };
      const stored = await post("/api/review/missing", asked);
      const remove = notice([
        kind === "accept" ? `${stored.name} is accepted. ` : `${stored.name} is rejected. `,
        h("button.link", { type: "button", onclick: () => takeBack(stored, remove) }, "Undo"),
      ]);
      setTimeout(() => remove(), 8000);
      await load();
    });
  const takeBack = (stored, remove) =>
    attempt(async () => {
      remove?.();
      await post("/api/review/missing/undo", { ids: [stored.id], by: whoAnswers() });
      notice("The decision is taken back.");
      await load();
    });
  const skip = (proposal) => {
    skipped.add(proposal.id);
    waiting.shift();
    if (waiting.length) draw();
    else attempt(load);
  };
  const draw = () => {
    const proposal = waiting[0];
    const head = summary(told, skipped.size);
    if (!proposal) {
      keys.press = null;
      const none = empty("Nothing left to propose", "Every proposal is decided or skipped.");
      fill(body, head, none);
      return;
    }
    learn([...proposal.nearest, ...proposal.meanings]);
    const { form, fields } = editable(proposal);
    const acts = [
      ["a", "Accept", () => decide("accept", proposal, fields)],
      ["r", "Reject", () => decide("reject", proposal, fields)],
      ["s", "Skip", () => skip(proposal)],
    ];
    keys.press = (key) => {
      const act = acts.find(([known]) => known === key);
      act?.[2]();
      return Boolean(act);
    };
    fill(body, head, card(proposal, form, acts), gallery(proposal));
  };

  try {
    await load();
  } catch (error) {
    if (signal.aborted || error.code !== "no_proposals") throw error;
    const command = h("code", "openmofi review missing I2E --model MODEL");
    const how = ["Refused images of one name and one look can become rows: run ", command, "."];
    fill(body, empty("No proposals yet", how));
  }
}

function summary({ total, accepted, rejected }, skipped) {
  const facts = [`${things(total, "proposal", "proposals")} left`];
  facts.push(`${count(accepted)} accepted`, `${count(rejected)} rejected`);
  if (skipped) facts.push(`${count(skipped)} skipped in this visit`);
  return h(
    "p.missing-summary",
    h("span.muted", `${facts.join(", ")}.`),
    accepted > 0 && h("a.button", { href: EXPORT, download: "new.csv" }, "Rows to build (CSV)"),
  );
}

function editable({ id, name, aliases }) {
  const field = (label, value, help) => {
    const about = { type: "text", maxlength: 500, value, placeholder: help, autocomplete: "off" };
    const input = h("input", about);
    return { input, row: h("label", h("span", label), input) };
  };
  const named = field("Name", name, "as captions write it");
  const others = field("Other names", aliases.join(" | "), "separated by |");
  const looks = field("What it looks like", "", "images are compared with it");
  const fields = () => ({
    name: named.input.value.trim() || name,
    aliases: others.input.value.split("|").map((one) => one.trim()).filter(Boolean),
    description: looks.input.value.trim(),
  });
  return { fields, form: h("div.missing-form", { "data-id": id }, [named, others, looks].map(({ row }) => row)) };
}

function card(proposal, form, acts) {
  const { name, images, looked, share, purity, nearest, meanings } = proposal;
  const percent = (value) => `${Math.round(100 * value)}%`;
  const entity = ({ id, label }) => h("a", { href: entityLink(id) }, label);
  const like = nearest[0];
  const same = like && like.apart < 0.7;
  return h(
    "section.missing-card",
    { "aria-label": `Proposal: ${name}` },
    h("h2", name),
    h(
      "p.muted",
      `${things(images, "refused image", "refused images")} of this name look alike `,
      `(${count(looked)} were looked at): ${percent(share)} of all with the name, `,
      `about ${percent(purity)} of them not by chance.`,
    ),
    like &&
      h(
        "p.muted",
        same ? "It looks the same as " : "Of what is known, it is most like ",
        entity(like),
        same ? ": another name of it?" : ".",
      ),
    meanings.length > 0 &&
      h(
        "p.muted",
        "The catalogue has the name for ",
        meanings.map((one, i) => [i > 0 && ", ", entity(one)]),
        ", which these images do not show.",
      ),
    form,
    h("div.answer-list", acts.map(act)),
  );
}

function act([key, label, onclick]) {
  return h(
    "button.button",
    { type: "button", onclick, "data-key": key },
    h("kbd", key),
    h("span", label),
  );
}

function gallery({ examples }) {
  const gone = ({ target }) => target.replaceWith(h("p.state", "The image is gone."));
  const tile = ({ thumbnail, caption }) =>
    h(
      "li.change",
      h("img", { src: `${thumbnail}?side=256`, alt: caption || "An image", loading: "lazy", onerror: gone }),
      h("span.muted", { dir: "auto" }, caption),
    );
  return h(
    "section",
    { "aria-label": "Images, the most typical one first" },
    h("ul.change-gallery", examples.map(tile)),
  );
}
