const system = matchMedia("(prefers-color-scheme: dark)");

/** Tells whether the page is dark: by choice, else as the system is. */
export function isDark() {
  const { theme } = document.documentElement.dataset;
  return theme ? theme === "dark" : system.matches;
}

/** Chooses the other theme, for good. */
export function switchTheme() {
  const theme = isDark() ? "light" : "dark";
  document.documentElement.dataset.theme = theme;
  try {
    localStorage.setItem("openmofi-theme", theme);
  } catch {
    // a browser that keeps nothing: the choice lasts until the next load
  }
  dispatchEvent(new Event("themechange"));
}

/** Calls `action` when the page turns light or dark. */
export function onTheme(action, signal) {
  addEventListener("themechange", action, { signal });
  system.addEventListener("change", action, { signal });
}
