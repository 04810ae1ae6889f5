import { get } from "../api.js";
import { h, fill, debounce, latest } from "../dom.js";

/** The card that follows the pointer, with the thumbnail and the labels of a point. */
export function hoverCard(signal) {
  const image = h("img", { alt: "", width: 128, height: 128 });
  const text = h("span");
  const node = h("div.hover-card", { hidden: true }, image, text);
  const run = latest(signal);
  let row = null;

  const describe = debounce(
    () =>
      run(async (mine) => {
        if (row === null) return;
        const hit = await get(`/api/images/${row}`, mine).catch(() => null);
        fill(text, hit ? hit.entities.map(({ label }) => label).join(", ") || hit.caption : "");
      }),
    60,
  );

  const show = (newRow, x, y, frame) => {
    if (newRow !== row) {
      row = newRow;
      fill(text, "…");
      image.src = `/api/images/${row}/thumbnail?side=256`;
      describe();
    }
    node.hidden = false;
    const beside = x + 160 > frame.clientWidth ? x - 156 : x + 12; // stay inside the frame
    node.style.left = `${Math.max(4, beside)}px`;
    const lowest = frame.clientHeight - node.offsetHeight - 4;
    node.style.top = `${Math.max(4, Math.min(y - 70, lowest))}px`;
  };
  const hide = () => {
    row = null;
    node.hidden = true;
  };
  return { node, show, hide };
}
