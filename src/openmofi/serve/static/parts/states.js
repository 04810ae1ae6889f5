import { post } from "../api.js";
import { h, fill } from "../dom.js";

/** Says that something is missing, and what to do; `heading` is h1 where the view has no other. */
export function empty(title, text, { heading = "h2", actions = [] } = {}) {
  return h("div.state", h(heading, title), h("p", text), h("div.state-actions", actions));
}

/** Shows an error with the server's sentence and a way on; 401 asks for the token. */
export function failure(error, retry) {
  if (error.status === undefined) throw error; // a fault of this page belongs on the console
  if (error.status === 401) return signIn(retry);
  const title =
    { 0: "No answer", 404: "Not found", 503: "Not now" }[error.status] ?? "That did not work";
  document.title = `${title} · OpenMOFI`;
  return h(
    "div.state",
    { role: "alert" },
    h("h1", title),
    h("p", error.message),
    h(
      "div.state-actions",
      h("button.button", { onclick: retry }, "Try again"),
      h("a", { href: "/" }, "All images"),
    ),
  );
}

/** Says beside what is on show that more of it could not be had. */
export function refusal(error, retry) {
  if (error.status === undefined) throw error;
  const again = error.status === 401 ? () => location.reload() : retry; // it asks for the token
  const button = h("button.button", { type: "button", onclick: again }, "Try again");
  return h("div.state", { role: "alert" }, h("p", error.message), button);
}

function signIn(retry) {
  document.title = "Sign in · OpenMOFI";
  const token = h("input", {
    type: "password",
    id: "token",
    autocomplete: "current-password",
    required: true,
  });
  const answer = h("p.bad", { role: "alert" });
  const send = async (event) => {
    event.preventDefault();
    try {
      await post("/api/login", { token: token.value });
      retry();
    } catch (error) {
      fill(answer, error.message);
    }
  };
  return h(
    "form.state.sign-in",
    { onsubmit: send },
    h("h1", "Sign in"),
    h("p", "This server asks for a token; whoever started it knows it."),
    h("label", { for: "token" }, "Token"),
    token,
    answer,
    h("button.button.primary", "Sign in"),
  );
}

/** Grey boxes in the shape of what is coming. */
export function skeletons(n, kind) {
  return Array.from({ length: n }, () => h(`div.skeleton.${kind}`, { "aria-hidden": "true" }));
}
