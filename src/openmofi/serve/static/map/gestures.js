/**
 * Turns pointers, the wheel and keys into moves of a camera.
 *
 * @param on {moved(), hover(x, y), leave(), pick(x, y), enter(), lasso(points, done), isLasso()};
 *     x and y are pixels of the canvas
 */
export function listen(canvas, camera, on, signal) {
  const pointers = new Map();
  let path = null; // of the lasso being drawn
  let travelled = 0;
  const listenTo = (name, action, options) =>
    canvas.addEventListener(name, action, { signal, ...options });
  const place = (event) => [event.offsetX, event.offsetY];

  listenTo("pointerdown", (event) => {
    if (event.button !== 0) return;
    canvas.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, place(event));
    travelled = 0;
    path = pointers.size === 1 && (event.shiftKey || on.isLasso()) ? [place(event)] : null;
  });

  listenTo("pointermove", (event) => {
    const before = pointers.get(event.pointerId);
    const now = place(event);
    if (!before) return on.hover(...now);
    const [dx, dy] = [now[0] - before[0], now[1] - before[1]];
    travelled += Math.abs(dx) + Math.abs(dy);
    if (path) {
      path.push(now);
      on.lasso(path, false);
    } else if (pointers.size === 2) {
      pinch(event.pointerId, now);
    } else {
      camera.pan(dx, dy);
      on.moved();
    }
    pointers.set(event.pointerId, now);
    if (travelled > 4) on.leave();
  });

  const pinch = (moving, now) => {
    const [[, still]] = [...pointers].filter(([id]) => id !== moving);
    const distance = (a, b) => Math.hypot(a[0] - b[0], a[1] - b[1]);
    const factor = distance(now, still) / Math.max(1, distance(pointers.get(moving), still));
    camera.zoomBy(factor, (now[0] + still[0]) / 2, (now[1] + still[1]) / 2);
    on.moved();
  };

  const lift = (event) => {
    if (!pointers.delete(event.pointerId)) return;
    if (path) on.lasso(path.length > 2 && event.type === "pointerup" ? path : [], true);
    else if (travelled <= 4 && event.type === "pointerup") on.pick(...place(event));
    path = null;
  };
  listenTo("pointerup", lift);
  listenTo("pointercancel", lift);
  listenTo("pointerleave", on.leave);

  listenTo(
    "wheel",
    (event) => {
      event.preventDefault();
      camera.zoomBy(Math.exp(-event.deltaY * (event.ctrlKey ? 0.01 : 0.0015)), ...place(event));
      on.moved();
    },
    { passive: false },
  );

  const keys = {
    ArrowLeft: () => camera.pan(60, 0),
    ArrowRight: () => camera.pan(-60, 0),
    ArrowUp: () => camera.pan(0, 60),
    ArrowDown: () => camera.pan(0, -60),
    "+": () => camera.zoomBy(1.4),
    "=": () => camera.zoomBy(1.4),
    "-": () => camera.zoomBy(1 / 1.4),
    0: () => camera.reset(),
  };
  listenTo("keydown", (event) => {
    if (event.key === "Enter" && on.enter()) return event.preventDefault();
    if (!(event.key in keys) || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    keys[event.key]();
    on.moved();
  });
}
