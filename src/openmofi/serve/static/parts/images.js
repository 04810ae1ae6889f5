import { upload } from "../api.js";
import { h } from "../dom.js";
import { go } from "../router.js";
import { here, EMPTY, withTerms } from "../url.js";
import { notice } from "./shell.js";

/** Searches with the images that are dropped or pasted anywhere on the page. */
export function listenForImages() {
  const veil = h("div.veil", { hidden: true }, h("p", "Drop to search with this image"));
  document.body.append(veil);
  let depth = 0; // dragenter and dragleave come for every element on the way
  const isFiles = (event) => event.dataTransfer?.types.includes("Files");
  const show = (change) => {
    depth = Math.max(0, depth + change);
    veil.hidden = depth === 0;
  };
  document.addEventListener("dragenter", (event) => isFiles(event) && show(1));
  document.addEventListener("dragleave", (event) => isFiles(event) && show(-1));
  document.addEventListener("dragover", (event) => isFiles(event) && event.preventDefault());
  document.addEventListener("drop", (event) => {
    if (!isFiles(event)) return;
    event.preventDefault();
    show(-depth);
    searchWith(event.dataTransfer.files);
  });
  document.addEventListener("paste", (event) => {
    if (!event.clipboardData?.files.length) return; // text is pasted into the box as usual
    event.preventDefault();
    searchWith(event.clipboardData.files);
  });
}

/** Uploads images and adds them to the search on show, or starts one. */
export async function searchWith(files) {
  const images = [...files];
  if (!images.length) return;
  const done = notice(
    images.length === 1 ? "Reading the image …" : `Reading ${images.length} images …`,
  );
  const answers = await Promise.allSettled(images.map((file) => upload(file)));
  done();
  answers.forEach(
    ({ reason }, i) =>
      reason && notice(`${images[i].name || "The image"}: ${reason.message}`, { bad: true }),
  );
  const terms = answers
    .filter(({ value }) => value)
    .map(({ value }) => ({ kind: "upload", value: value.id, weight: 1 }));
  const state = here();
  if (terms.length) go(withTerms(state.view === "search" ? state : EMPTY, ...terms));
}

/** A button that opens the file chooser. */
export function imageButton(content) {
  const input = h("input", {
    type: "file",
    accept: "image/*",
    multiple: true,
    hidden: true,
    onchange: () => {
      searchWith(input.files);
      input.value = ""; // the same file can be chosen again
    },
  });
  const button = {
    class: "tool",
    type: "button",
    "aria-label": "Search with an image",
    title: "Search with an image",
  };
  return [h("button", { ...button, onclick: () => input.click() }, content), input];
}
