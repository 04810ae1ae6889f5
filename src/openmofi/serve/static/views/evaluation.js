import { get } from "../api.js";
import { h, fill, latest } from "../dom.js";
import { link } from "../url.js";
import { words } from "../format.js";
import { empty, skeletons } from "../parts/states.js";

/** The evaluation reports; the chosen one fills the view, in a frame that may run nothing. */
export function open(main, signal) {
  const run = latest(signal);
  let reports = null;
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
      return fill(
        main,
        h("div.evaluation-head", h("h1", "Evaluation"), tabs(report)),
        h("iframe.report", {
          src: report.url,
          title: `Report ${report.name}`,
          sandbox: "",
          referrerpolicy: "no-referrer",
        }),
      );
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
