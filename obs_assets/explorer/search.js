// The search box: completion of fields and values, and mistakes at their place.

import { ask, Latest } from "./api.js";
import { byId, capital, fill, h, isTyping } from "./dom.js";
import { parse, print, QueryError, tokensOf } from "./language.js";
import { change, searched, state } from "./state.js";

const COLUMNS = {
  event_level: "level",
  event_type: "type",
  master_type: "master",
  worker_id: "worker",
  trace_id: "trace",
  session_id: "session",
  event_id: "id",
  source_name: "source",
  duration_ms: "duration",
  cost_usd: "cost",
  worker_type: "",
  error: "",
  weight: "",
};

const WAIT_MS = 150;
const MOST = 12;

/** What stands at the caret: {kind: "field" | "value", field, typed, start, end}, or null. */
export function placeAt(text, caret) {
  let tokens;
  try {
    tokens = tokensOf(text.slice(0, caret));
  } catch {
    return null; // inside a quote
  }
  tokens.pop();
  const last = tokens.at(-1);
  if (!last || last.end < caret || last.kind === "(") {
    const group = openField(tokens);
    return { kind: group ? "value" : "field", field: group, typed: "", start: caret, end: caret };
  }
  const before = tokens.at(-2);
  if (last.kind === ":" && before?.end === last.start && before.kind !== ":") {
    return { kind: "value", field: before.text, typed: "", start: caret, end: caret };
  }
  if (last.kind !== "word") return null;
  const name = tokens.at(-3);
  if (before?.kind === ":" && before.end === last.start && name) {
    return { kind: "value", field: name.text, typed: last.text, start: last.start, end: caret };
  }
  const group = openField(tokens);
  return { kind: group ? "value" : "field", field: group, typed: last.text, start: last.start, end: caret };
}

/** The field of the group of values that is open at the end of the tokens: `level:(error OR`. */
function openField(tokens) {
  let depth = 0;
  for (let i = tokens.length - 1; i > 1; i -= 1) {
    if (tokens[i].kind === ")") depth += 1;
    if (tokens[i].kind === "(") depth -= 1;
    if (depth < 0) return tokens[i - 1].kind === ":" ? tokens[i - 2].text : null;
  }
  return null;
}

/** Show a mistake in the query below the box, with its place marked. */
export function showQueryProblem(error) {
  const box = byId("q");
  const note = byId("q-problem");
  box.setAttribute("aria-invalid", "true");
  const text = box.value;
  const at = Math.min(error.position ?? 0, text.length);
  const parts = [h("span", { class: "message" }, `${capital(error.message)}.`)];
  if (error.position !== null && error.position !== undefined) {
    const marked = text.slice(at, at + 1) || " ";
    const quote = [text.slice(Math.max(0, at - 30), at), h("mark", {}, marked), text.slice(at + 1, at + 31)];
    parts.push(h("code", {}, ...quote));
    parts.push(h("button", { type: "button", class: "link", onclick: () => toPlace(at) }, "Go there"));
  }
  fill(note, ...parts);
  note.hidden = false;
}

function toPlace(at) {
  const box = byId("q");
  box.focus();
  box.setSelectionRange(at, Math.min(at + 1, box.value.length));
}

export function hideQueryProblem() {
  byId("q").removeAttribute("aria-invalid");
  byId("q-problem").hidden = true;
}

/** The offset in UTF-16 units of a place that the server counts in characters. */
export function unitsOf(text, characters) {
  return Array.from(text).slice(0, characters).join("").length;
}

export function setUpSearch() {
  const box = byId("q");
  const form = byId("search");
  const shown = byId("completions");
  const latest = new Latest();
  let choices = [];
  let chosen = -1;
  let timer = 0;
  let place = null;
  let offered = null; // the place of the choices that are shown
  let fields = null;

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    close();
    submit();
  });

  function submit() {
    const text = box.value.trim();
    try {
      parse(text);
    } catch (error) {
      if (!(error instanceof QueryError)) throw error;
      showQueryProblem(error);
      return;
    }
    hideQueryProblem();
    if (text === state.q) dispatchEvent(new CustomEvent("search-again"));
    else change({ q: text, event: "", live: state.live });
  }

  box.addEventListener("input", () => {
    hideQueryProblem();
    clearTimeout(timer);
    timer = setTimeout(complete, WAIT_MS);
  });
  box.addEventListener("blur", () => setTimeout(close, 150));
  box.addEventListener("keydown", (event) => {
    if (event.key === "ArrowDown" && shown.hidden) complete();
    else if (event.key === "ArrowDown") choose(chosen + 1);
    else if (event.key === "ArrowUp" && !shown.hidden) choose(chosen - 1);
    else if (event.key === "Tab" && !shown.hidden && chosen >= 0) take(choices[chosen]);
    else if (event.key === "Enter" && !shown.hidden && chosen >= 0) take(choices[chosen]);
    else if (event.key === "Escape" && !shown.hidden) close();
    else if (event.key === "Escape") box.blur();
    else return;
    event.preventDefault();
    event.stopPropagation();
  });

  async function complete() {
    place = placeAt(box.value, box.selectionStart);
    if (!place || !isTyping(document.activeElement)) return close();
    if (place.kind === "field") return offer(await fieldChoices(place.typed));
    return completeValue(place);
  }

  /** Names of columns and of paths that events have. */
  async function fieldChoices(typed) {
    if (fields === null) {
      fields = [];
      ask("fields", searched({ ...state, q: "" }))
        .then((answer) => {
          fields = answer.fields;
          if (document.activeElement === box) complete();
        })
        .catch(() => {});
    }
    const seen = fields.filter((field) => !(field.name in COLUMNS) && !["row_uid", "timestamp"].includes(field.name));
    const names = [
      ...Object.entries(COLUMNS).map(([name, short]) => ({ text: short || name, note: short ? name : "column" })),
      ...seen.map((field) => ({ text: field.name, note: field.kinds.join(" or ") })),
    ];
    const begins = typed.toLowerCase();
    const matching = names.filter(({ text, note }) => text.toLowerCase().startsWith(begins) || note.startsWith(begins));
    const term = (name) => print({ kind: "exists", field: name }).slice(0, -1);
    return matching.map(({ text, note }) => ({ label: text, note, text: term(text) }));
  }

  function completeValue({ field, typed }) {
    if (/^[<>[]/.test(typed)) return close();
    const question = (signal) =>
      ask("facets", { ...searched({ ...state, q: "" }), field, limit: 50 }, { signal });
    return latest.run(question, {
      done: (answer) => offer(valueChoices(answer.facets[0], field, typed)),
      failed: close,
    });
  }

  function valueChoices(facet, field, typed) {
    const begins = typed.toLowerCase();
    const values = facet.values.filter(({ value }) => value !== null && value.toLowerCase().startsWith(begins));
    return values.map(({ value, rows }) => {
      const whole = print({ kind: "compare", field: "x", operator: "=", value });
      return { label: value, note: `${rows}`, text: `${whole.slice(2)} ` };
    });
  }

  function offer(found) {
    const choiceBefore = choices[chosen];
    choices = found.filter((choice) => choice.label !== place.typed).slice(0, MOST);
    if (!choices.length) return close();
    // The same list can come again with more names: the choice stays.
    const kept = offered?.typed === place.typed ? choiceBefore?.label : undefined;
    offered = place;
    chosen = -1;
    fill(shown, ...choices.map(itemOf));
    shown.hidden = false;
    box.setAttribute("aria-expanded", "true");
    const again = choices.findIndex(({ label }) => label === kept);
    if (again >= 0) choose(again);
    return undefined;
  }

  function itemOf(choice, index) {
    const attributes = {
      id: `completion-${index}`,
      role: "option",
      "aria-selected": "false",
      // Before the box loses the focus.
      onmousedown: (event) => {
        event.preventDefault();
        take(choice);
      },
    };
    const label = choice.label.length > 60 ? `${choice.label.slice(0, 60)}…` : choice.label;
    return h("li", attributes, h("span", {}, label), h("small", {}, choice.note));
  }

  function choose(index) {
    chosen = (index + choices.length) % choices.length;
    [...shown.children].forEach((item, i) => item.setAttribute("aria-selected", String(i === chosen)));
    box.setAttribute("aria-activedescendant", `completion-${chosen}`);
    shown.children[chosen].scrollIntoView({ block: "nearest" });
  }

  function take(choice) {
    const { start, end } = place;
    box.value = box.value.slice(0, start) + choice.text + box.value.slice(end);
    const caret = start + choice.text.length;
    box.setSelectionRange(caret, caret);
    close();
    if (choice.text.endsWith(":")) complete();
  }

  function close() {
    clearTimeout(timer);
    latest.abort();
    shown.hidden = true;
    chosen = -1;
    box.setAttribute("aria-expanded", "false");
    box.removeAttribute("aria-activedescendant");
  }

  return {
    changed(changed) {
      if (changed.includes("q")) {
        box.value = state.q;
        hideQueryProblem();
      }
      if (changed.includes("from") || changed.includes("to")) fields = null;
    },
  };
}
