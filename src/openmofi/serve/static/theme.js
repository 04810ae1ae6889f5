// Runs before the first paint, so that a chosen theme does not flash in the other one.
try {
  document.documentElement.dataset.theme = localStorage.getItem("openmofi-theme") ?? "";
} catch {
  document.documentElement.dataset.theme = ""; // a browser that keeps nothing
}
