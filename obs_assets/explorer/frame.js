// The frame of the page: theme, keys, help, the token.

import { byId, fill, h, isTyping } from "./dom.js";
import { filter } from "./details.js";
import { change, state } from "./state.js";

const THEME = "obs-theme";

/** Key → what it does, for the help and for the listener. */
const KEYS = [
  ["/", "go to the search box"],
  ["j  k", "next and previous event (also ↓ ↑)"],
  ["Enter", "open the event"],
  ["Esc", "close the event"],
  ["e", "errors only, and all again"],
  ["l", "live; paused; live again"],
  ["r", "search again"],
  ["t", "change between dark and light"],
  ["?", "this help"],
];

const LANGUAGE = [
  ["timeout", "message or error holds the word"],
  ['"connection lost"', "the same for a phrase"],
  ["level:error", "a column or a key is equal"],
  ["level:(error OR fatal)", "one of several values"],
  ["duration_ms:>500   n:[1 TO 5]", "numbers"],
  ["type:task_*   trace:*", "begins with; has a value"],
  ["usage.model:x", "a key inside another"],
  ["a b   a OR b   -a   (…)", "both, one of them, not, a group"],
];

export function setUpTheme() {
  apply(localStorage.getItem(THEME) ?? "");
  byId("theme").addEventListener("click", turnTheme);
}

function apply(theme) {
  if (theme) document.documentElement.dataset.theme = theme;
  else delete document.documentElement.dataset.theme;
}

function turnTheme() {
  const isDark = matchMedia("(prefers-color-scheme: dark)").matches;
  const present = document.documentElement.dataset.theme ?? (isDark ? "dark" : "light");
  const next = present === "dark" ? "light" : "dark";
  localStorage.setItem(THEME, next);
  apply(next);
}

export function setUpHelp() {
  const dialog = byId("help");
  const row = ([keys, meaning]) => [h("dt", {}, h("kbd", {}, keys)), h("dd", {}, meaning)];
  fill(
    dialog,
    h("h2", { id: "help-title" }, "Keys and language"),
    h("div", { class: "two" }, h("dl", {}, KEYS.map(row)), h("dl", {}, LANGUAGE.map(([text, meaning]) => [h("dt", {}, h("code", {}, text)), h("dd", {}, meaning)]))),
    h("p", {}, "A row stands for as many events as its weight says: the others were sampled out. Counts say which of both they are."),
    h("form", { method: "dialog" }, h("button", { class: "primary" }, "Close")),
  );
  byId("help-button").addEventListener("click", () => dialog.showModal());
}

export function setUpKeys(list) {
  const toErrors = () => filter("level", "error");
  const keys = {
    "/": () => {
      byId("q").focus();
      byId("q").select();
    },
    j: () => list.step(1),
    k: () => list.step(-1),
    Enter: () => list.openFocused(),
    e: toErrors,
    l: () => byId("live-button").click(),
    r: () => dispatchEvent(new CustomEvent("search-again")),
    t: turnTheme,
    "?": () => byId("help").showModal(),
  };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    if (event.key === "Escape" && state.event && !document.querySelector("dialog[open]")) {
      change({ event: "" });
      list.focusRow();
      return;
    }
    if (isTyping(event.target) || document.querySelector("dialog[open]")) return;
    // Buttons and links take Enter for themselves.
    if (event.key === "Enter" && event.target !== document.body) return;
    if (!Object.hasOwn(keys, event.key)) return;
    event.preventDefault();
    keys[event.key]();
  });
}

/** Ask a person for a token; `refused` says why the one before was not taken. */
export function askForToken(refused) {
  return new Promise((resolve) => {
    const dialog = byId("token");
    const field = h("input", { type: "password", id: "token-field", autocomplete: "off", required: true });
    fill(
      dialog,
      h("h2", { id: "token-title" }, "This server asks for a token"),
      refused ? h("p", { class: "field-problem", role: "alert" }, refused) : null,
      h("p", {}, "`obs tokens add NAME` prints one. This browser gets a cookie for it, which no script can read."),
      h("form", { method: "dialog" }, h("label", { for: "token-field" }, "Token"), field, h("button", { class: "primary" }, "Use it")),
    );
    dialog.addEventListener("cancel", (event) => event.preventDefault());
    dialog.addEventListener("close", () => resolve(field.value.trim()), { once: true });
    dialog.showModal();
  });
}
