import { get } from "../api.js";
import { h, fill, latest } from "../dom.js";
import { link } from "../url.js";
import { words } from "../format.js";
import { empty, skeletons } from "../parts/states.js";
import { isDark, onTheme } from "../parts/theme.js";

/** The evaluation reports; the chosen one fills the view, in a frame that may run nothing. */
export function open(main, signal) {
  const run = latest(signal);
  let reports = null;
  let show = null; // the chosen report
  onTheme(() => show?.(), signal); // a report is light or dark from when it is loaded
  return (state) =>
    run(async (mine) => {
      document.title = "Evaluation · OpenMOFI";
      if (!reports) fill(main, h("h1", "Evaluation"), skeletons(3, "line"));
      reports ??= (await get("/api/evaluation", mine)).reports;
      const report = reports.find(({ name }) => name === state.report) ?? reports[0];
      if (!report) {
        const text = "Run `openmofi evaluate`, and start the server with --report and its output.";
        return fill(main, h("h1", "Evaluation"), empty("No report yet", text));
      }
      document.title = `${words(report.name)} · OpenMOFI`;
      const head = h("div.evaluation-head", h("h1", "Evaluation"), tabs(report));
      show = () => fill(main, head, framed(report));
      show();
    });

  function tabs(chosen) {
    return h(
      "nav",
      { "aria-label": "Reports" },
      h(
        "ul.tabs",
        reports.map((report) =>
          h(
            "li",
            h(
              "a",
              {
                href: link({ view: "evaluation", report: report.name }),
                "aria-current": report === chosen ? "page" : null,
              },
              words(report.name),
            ),
          ),
        ),
      ),
    );
  }
}

/* A report follows the colour scheme of its frame. */
function framed({ name, url }) {
  const sandboxed = { sandbox: "", referrerpolicy: "no-referrer" };
  const style = { "color-scheme": isDark() ? "dark" : "light" };
  return h("iframe.report", { src: url, title: `Report ${name}`, style, ...sandboxed });
}
