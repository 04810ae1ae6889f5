/** The page: images that are dropped, pasted or chosen, and what they show. */

import { fill, h } from "./dom.js";

const drop = document.getElementById("drop");
const input = document.getElementById("files");
const state = document.getElementById("state");
const bar = document.getElementById("progress");
const answers = document.getElementById("answers");

const worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
const waiting = new Map(); // number of a file -> its card
let ready = false;
let numFiles = 0;

const hears = {
  loading({ bytes, all }) {
    if (bar.hidden) return; // of the other files, when one has failed
    bar.value = bytes / all;
    state.textContent = `Loading: ${megabytes(bytes)} of ${megabytes(all)} MB`;
  },
  ready({ count }) {
    ready = true;
    input.disabled = false;
    bar.hidden = true;
    drop.classList.add("ready");
    state.textContent = "Drop images here, paste one, or click to choose.";
    document.getElementById("about").textContent +=
      ` ${count.toLocaleString("en")} entities can be named.`;
  },
  failed({ message }) {
    bar.hidden = true;
    state.classList.add("bad");
    state.textContent = `The encoder could not be loaded: ${message}`;
  },
  tagged({ number, answer }) {
    const { tags, abstains, milliseconds } = answer;
    show(
      number,
      abstains && h("p", h("strong", "Nothing that is sure enough."), " The likeliest:"),
      h("ol.tags", { class: abstains ? "unsure" : null }, tags.map(tagRow)),
      h("p.muted.number", `${milliseconds.toFixed(0)} ms`),
    );
  },
  unread({ number, message }) {
    show(number, h("p.bad", message));
  },
};
worker.onmessage = ({ data }) => hears[data.kind](data);
worker.onerror = () => hears.failed({ message: "its program could not be started." });

input.addEventListener("change", () => {
  take(input.files);
  input.value = "";
});
document.addEventListener("paste", ({ clipboardData }) => take(clipboardData.files));
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  drop.classList.add("over");
});
document.addEventListener("dragleave", ({ relatedTarget }) => {
  if (!relatedTarget) drop.classList.remove("over");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  drop.classList.remove("over");
  take(event.dataTransfer.files);
});

function take(files) {
  if (!ready) return;
  for (const file of files) {
    const number = numFiles++;
    const address = URL.createObjectURL(file);
    const image = h("img", { src: address, alt: file.name });
    image.onload = () => URL.revokeObjectURL(address);
    image.onerror = () => image.remove();
    const said = h("div", h("p.file", file.name), h("p.muted", "…"));
    waiting.set(number, said);
    answers.prepend(h("li.answer", { "aria-busy": "true" }, image, said));
    worker.postMessage({ number, file });
  }
}

function show(number, ...content) {
  const said = waiting.get(number);
  waiting.delete(number);
  fill(said, said.firstChild, ...content);
  said.parentNode.removeAttribute("aria-busy");
}

function tagRow({ id, label, description, score, probability }) {
  const sure = probability === undefined ? "" : ` · ${(100 * probability).toFixed(0)}% sure`;
  const name = label || id;
  return h(
    "li.tag",
    { "data-id": id },
    h("span", h("span.label", name), description && h("span.muted", ` ${description}`)),
    h("span.number", `${score.toFixed(3)}${sure}`),
    h("meter", { min: 0, max: 1, value: Math.max(score, 0), "aria-label": `Score of ${name}` }),
  );
}

const megabytes = (bytes) => (bytes / 1e6).toFixed(1);
