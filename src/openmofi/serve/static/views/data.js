import { get } from "../api.js";
import { h, fill, latest, refill } from "../dom.js";
import { count, images, percent, words } from "../format.js";
import { go } from "../router.js";
import { here, link } from "../url.js";
import { histogram } from "../parts/histogram.js";
import { empty, failure, skeletons } from "../parts/states.js";

const PAGE = 24;
const MOST = 240; // samples on show

/** The dataset behind the index: what was kept, what was refused, and why. */
export function open(main, signal) {
  const run = latest(signal);
  let data = null;
  return (state) =>
    run(async (mine) => {
      if (!data) {
        fill(main, h("div", { "aria-busy": "true" }, skeletons(6, "line")));
        data = await get("/api/data", mine);
        document.title = `${data.name} · OpenMOFI`;
      }
      const about = { id: "samples", "aria-live": "polite", "aria-label": "Samples" };
      const samples = h("section.samples", about);
      const reason = state.reason ?? mostFrequent(data.funnel);
      const parts = [funnel(data, reason), samples, decisions(data)];
      refill(main, head(data), h("div.data-columns", parts));
      if (reason) await showSamples(samples, { ...state, reason }, mine);
    });
}

/* Something to see at once, without being asked. */
function mostFrequent(steps) {
  const [most] = steps.toSorted((a, b) => b.count - a.count);
  return most?.reason;
}

function head(data) {
  const kept = data.pairs ? data.kept_images / data.pairs : 0;
  const numbers = [
    [count(data.pairs), "pairs read"],
    [count(data.kept_images), `images kept, ${percent(kept)}`],
    [count(data.kept_labels), "labels kept"],
    [count(data.entities), "entities"],
  ];
  return h(
    "header.data-head",
    h("h1", `Dataset ${data.name}`),
    h(
      "dl.numbers",
      numbers.map(([number, name]) => h("div", h("dt", name), h("dd", number))),
    ),
  );
}

function funnel(data, chosen) {
  const refused = data.funnel.filter(({ reason }) => reason !== "kept");
  const kept = {
    reason: "kept",
    count: data.kept_images,
    share: data.pairs ? data.kept_images / data.pairs : 0,
    meaning: "the image and at least one of its labels passed",
  };
  return h(
    "section",
    { "aria-labelledby": "funnel" },
    h("h2", { id: "funnel" }, "Where the pairs went"),
    h(
      "ol.funnel",
      [kept, ...refused].map((step) => funnelRow(step, step.reason === chosen)),
    ),
  );
}

function funnelRow({ reason, count: n, share, meaning }, isChosen) {
  const content = [
    h("span.label", words(reason)),
    h("span.count", `${count(n)} · ${percent(share)}`),
    h("span.bar", { style: { "--share": share } }),
    h("span.muted", meaning),
  ];
  if (reason === "kept") return h("li.kept", h("a", { href: "/" }, content));
  const href = link({ view: "data", reason });
  const current = isChosen ? "true" : null;
  const about = { href, "aria-current": current, "data-key": reason, "data-stay": true };
  return h("li", h("a", about, content));
}

async function showSamples(node, { reason, shown }, signal) {
  const k = Math.max(PAGE, shown ?? 0);
  const title = h("h2", words(reason));
  fill(node, title, h("div.refused-list", skeletons(6, "row")));
  if (node.getBoundingClientRect().top > innerHeight && here().reason) node.scrollIntoView();
  try {
    const query = new URLSearchParams({ reason, k });
    const { total, rows } = await get(`/api/data/refused?${query}`, signal);
    const more = () => go({ view: "data", reason, shown: k + PAGE }, { replace: true });
    title.append(h("span.muted", ` ${images(total)}`));
    fill(
      node,
      title,
      h("ul.refused-list", rows.map(refusedRow)),
      total > rows.length && k < MOST && h("button.button", { onclick: more }, "Show more"),
    );
  } catch (error) {
    if (signal.aborted) throw error;
    const retry = () => go(here(), { replace: true });
    fill(
      node,
      error.status === 404 ? empty("No such reason", error.message) : failure(error, retry),
    );
  }
}

function refusedRow({ number, key, caption, thumbnail }) {
  const instead = () => image.replaceWith(h("span.unopened", "no image"));
  const size = { width: 72, height: 72, loading: "lazy" };
  const image = h("img", { src: thumbnail, alt: "", ...size, onerror: instead });
  const text = h("span.caption", { dir: "auto" }, caption || h("em", "no caption"));
  const href = link({ view: "why", refused: number });
  return h("li", h("a", { href }, image, text, h("span.muted", key)));
}

function decisions({ settings, threshold, calibration, histogram: bins }) {
  const { estimated_false_label_rate: rate, low_rate: low, high_rate: high } = calibration ?? {};
  const sure = low == null ? "" : `, between ${percent(low)} and ${percent(high)} nine times in ten`;
  const text =
    rate != null && `Estimated share of false labels among the kept: ${percent(rate)}${sure}.`;
  const heading = h("h2", "Scores and threshold");
  return h(
    "div.decisions",
    bins && h("section.panel", heading, histogram(bins, threshold), text && h("p.muted", text)),
    h("details.panel", h("summary", h("h2", "Settings")), h("dl", settingRows(settings))),
  );
}

function settingRows(settings) {
  const isGiven = (value) => value != null && String(value) !== ""; // an empty list is ""
  const given = Object.entries(settings).filter(([, value]) => isGiven(value));
  return given.map(([name, value]) => h("div", h("dt", words(name)), h("dd", String(value))));
}
