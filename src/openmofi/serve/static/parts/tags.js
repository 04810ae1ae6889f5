import { post } from "../api.js";
import { h, fill } from "../dom.js";
import { percent, score } from "../format.js";
import { learn } from "../names.js";
import { entityLink, whyLink } from "../url.js";
import { skeletons } from "./states.js";

/** The panel «What is this?» of an image, {upload: id} or {row: n}; fills itself. */
export async function whatIsThis(node, image, signal) {
  const title = h("h2", "What is this?");
  const waiting = h("div.tag-list", skeletons(3, "line"));
  fill(node, title, waiting).hidden = false;
  node.setAttribute("aria-busy", "true");
  try {
    const { tags, abstains, reason } = await post("/api/tag", { ...image, k: 5 }, signal);
    learn(tags);
    fill(node, title, abstains && abstention(reason), h("ol.tag-list", tags.map(tagRow)));
  } catch (error) {
    if (signal.aborted) return;
    fill(node, title, h("p.muted", error.message));
  }
  node.setAttribute("aria-busy", "false");
}

function abstention(reason) {
  return h("p.abstains", h("strong", "No answer is sure enough. "), reason);
}

function tagRow({ id, label, description, score: value, probability, evidence }) {
  const sure = probability == null ? "" : ` · ${percent(probability)} sure`;
  const said = `score ${score(value)}${sure}`;
  const share = Math.max(0, Math.min(1, value)); // of the score, as all have one
  return h(
    "li.tag",
    h("div.tag-name", h("a", { href: entityLink(id) }, label), h("span.muted", description)),
    h("div.tag-score", h("span.bar", { style: { "--share": share } }), h("span.number", said)),
    h("div.evidence", evidence.nearest.slice(0, 5).map(neighbour), facts(evidence)),
  );
}

function neighbour({ row, caption, thumbnail }) {
  const alt = `Nearest image: ${caption || row}`;
  const image = h("img", { src: thumbnail, alt, width: 40, height: 40, loading: "lazy" });
  return h("a", { href: whyLink(row), title: caption }, image);
}

function facts({ class_score: trained, text_score: text, prior }) {
  const known = [
    ["trained class", trained],
    ["text", text],
    ["prior", prior],
  ].filter(([, value]) => value != null);
  const rows = known.map(([name, value]) => h("span", `${name} `, h("b", score(value, 2))));
  return h("span.facts", rows);
}
