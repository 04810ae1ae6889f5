import { get, getInfo } from "../api.js";
import { h, fill, latest } from "../dom.js";
import { score, things, words } from "../format.js";
import { learn } from "../names.js";
import { entityLink, link } from "../url.js";
import { similarLink } from "../parts/grid.js";
import { icon } from "../parts/icons.js";
import { answerButtons } from "../parts/answers.js";
import { candidateTable, legend, markId } from "../parts/candidates.js";
import { skeletons } from "../parts/states.js";
import { whatIsThis } from "../parts/tags.js";

/** One image, and why it has its labels; `refused` names one that has none. */
export function open(main, signal) {
  const run = latest(signal);
  return (state) =>
    run(async (mine) => {
      fill(main, h("div.why-columns", { "aria-busy": "true" }, skeletons(2, "block")));
      const shown =
        state.refused === null ? await ofIndex(state, mine) : await refused(state, mine);
      document.title = `${shown.heading} · OpenMOFI`;
      fill(main, page(shown, mine));
    });
}

async function ofIndex({ row }, signal) {
  const [image, info] = await Promise.all([get(`/api/images/${row}`, signal), getInfo()]);
  learn(image.entities);
  const answer = await get(`/api/images/${row}/provenance`, signal).catch((error) => {
    if (error.status !== 404) throw error;
    return null; // an index whose selection is not known still shows its images
  });
  return { heading: `Image ${row}`, source: image.image, image, answer, size: image, info };
}

async function refused({ refused: number }, signal) {
  const answer = await get(`/api/refused/${number}/provenance`, signal);
  const source = `/api/refused/${number}/thumbnail?side=512`;
  return { heading: `Refused image ${number}`, source, image: null, answer, size: answer };
}

function page(shown, signal) {
  const { heading, image, answer, info } = shown;
  const caption = answer?.caption ?? image.caption;
  const mentions = answer?.mentions ?? [];
  const tags = h("section.tags", { "aria-label": "What is this?", hidden: true });
  return [
    h("div.why-head", h("h1", heading), answer && verdict(answer)),
    h(
      "div.why-columns",
      h(
        "div.why-image",
        framedImage(shown, caption),
        image && actions(image, info.has.upload, tags, signal),
      ),
      h(
        "div.why-text",
        markedCaption(caption, mentions),
        explanation(answer),
        tags,
        mentions.map((mention, i) => [
          candidateTable(mention, i, answer.weights),
          answer.place && corrections(answer.place, mention),
        ]),
        mentions.length > 0 && legend(answer),
      ),
      details(shown),
    ),
  ];
}

/** What a person may say of a mention: its choice is the likeliest, whether it is kept or not. */
function corrections(place, { start, surface, candidates, said }) {
  const worth = ({ score: joint, text_score: text }) => joint ?? text ?? 0;
  const [chosen] = candidates.toSorted((a, b) => worth(b) - worth(a));
  return [
    said.length > 0 && h("p.said", h("strong", "People say: "), said.join("; ")),
    answerButtons({ place: { ...place, start }, surface, chosen, candidates }, {}),
  ];
}

function verdict({ kept, refused_as: reason }) {
  if (kept) return h("p.verdict.kept", h("strong", "Kept"), " with its labels");
  return h(
    "p.verdict.refused",
    h("strong", "Refused"),
    reason ? ` as ${words(reason).toLowerCase()}` : "",
  );
}

function framedImage({ source, answer, size }, caption) {
  const boxes = (answer?.text_boxes ?? []).map(textBox);
  const { width, height } = size;
  const gone = () => framed.replaceWith(h("p.state", "The image is gone."));
  const about = { src: source, alt: caption || "The image", width, height, onerror: gone };
  const framed = h("div.framed", h("img", about), boxes);
  const text = `${things(boxes.length, "text region", "text regions")} marked`;
  return h(
    "figure",
    framed,
    boxes.length > 0 && h("figcaption.muted", text),
  );
}

function textBox([x0, y0, x1, y1]) {
  const percent = (share) => `${100 * share}%`;
  const [left, top] = [percent(x0), percent(y0)];
  const [width, height] = [percent(x1 - x0), percent(y1 - y0)];
  return h("span.text-box", { style: { left, top, width, height } });
}

function actions({ row }, canTag, tags, signal) {
  const ask = (event) => {
    event.currentTarget.hidden = true;
    whatIsThis(tags, { row }, signal);
  };
  const similar = { class: "button primary", href: similarLink(row) };
  return h(
    "p.entity-links",
    h("a", similar, icon("similar"), "Similar images"),
    canTag && h("button.button", { type: "button", onclick: ask }, "What does the model see?"),
  );
}

function details({ image, size }) {
  const source = image?.source;
  const rows = [
    ["Labels", image?.entities.length ? labels(image.entities) : null],
    ["Size", size.width ? `${size.width} × ${size.height}` : null],
    ["Text area", typeof size.text_area === "number" ? score(size.text_area, 2) : null],
    ["Source", source && h("a", { href: link({ sources: [source] }) }, source)],
    ["Found at", image?.url && webLink(image.url)],
    ["Key", image?.id],
  ].filter(([, value]) => value);
  return h(
    "dl.details",
    rows.map(([name, value]) => h("div", h("dt", name), h("dd", value))),
  );
}

function labels(entities) {
  return entities.map(({ id, label, score: labelScore }, i) => [
    i > 0 && ", ",
    h("a", { href: entityLink(id) }, label),
    labelScore !== null && h("span.muted", ` ${score(labelScore, 2)}`),
  ]);
}

/* Addresses come with the data: anything but the web is shown, not linked. */
const webLink = (url) =>
  /^https?:/.test(url) ? h("a", { href: url, rel: "noreferrer" }, url) : url;

/** The caption with its mentions marked; their places are code points. */
function markedCaption(caption, mentions) {
  if (!caption) return h("p.caption.muted", "No caption.");
  const points = Array.from(caption);
  const parts = [];
  let end = 0;
  mentions.forEach((mention, i) => {
    if (mention.start < end) return; // one mention inside another is listed below all the same
    const text = points.slice(mention.start, mention.end).join("");
    parts.push(
      points.slice(end, mention.start).join(""),
      h("mark", h("a", { href: `#${markId(i)}` }, text)),
    );
    end = mention.end;
  });
  return h("p.caption", { dir: "auto" }, parts, points.slice(end).join(""));
}

function explanation(answer) {
  const unknown = "This server does not know the selection that gave the labels.";
  if (!answer) return h("p.muted", unknown);
  const sentences = answer.explanation.map((sentence) => h("li", sentence));
  return h("ul.explanation", sentences);
}
