// "Why is it empty?": where the events of the range went, and what to try next.

import { ask } from "./api.js";
import { button, fill, h, some } from "./dom.js";
import { boxText, parse } from "./language.js";
import { change, searched, state } from "./state.js";
import { archiveOffer } from "./archive.js";
import { whyPanel } from "./hours.js";
import { rangeText } from "./list.js";

const EXAMPLES = [
  ["level:error", "events with this level"],
  ['"connection lost"', "events whose message or error has this phrase"],
  ["duration_ms:>500", "events that took longer than 500 ms"],
  ["type:task_* -master:alpha", "types that begin with task_, without one master"],
  ["usage.model:*", "events that have this key inside another"],
];

/** Fill the place of the list when no row matches. */
export function explainNothing(place, answer) {
  const stages = h("div", { class: "stages" });
  fill(
    place,
    h("h2", {}, "No stored event matches"),
    h("p", {}, rangeText(answer.searched)),
    hints(answer),
    stages,
    h("p", { class: "tries" }, tries()),
    h("h3", {}, "Examples of queries"),
    h("dl", { class: "examples" }, EXAMPLES.map(([text, meaning]) => [
      h("dt", {}, button(text, () => change({ q: text }), { class: "code" })),
      h("dd", {}, meaning),
    ])),
  );
  fill(stages, h("p", { class: "wait" }, "Asking where the events of these hours went…"));
  explainStages(stages, answer);
}

function hints(answer) {
  return (answer.hints ?? []).map((hint) => h("p", { class: "hint-text" }, hint));
}

function tries() {
  const found = [];
  if (state.q) found.push(button("Search without the query", () => change({ q: "" })));
  const terms = termsOf(state.q);
  if (terms.length > 1) {
    for (const [text, rest] of terms) found.push(button(`Without ${text}`, () => change({ q: rest })));
  }
  found.push(button("Last day with events", () => change({ from: "", to: "" })));
  found.push(button("Last 30 days", () => change({ from: "now-30d", to: "" })));
  found.push(button("Look up an event by its id", () => change({ view: "where" }, { isStep: true })));
  return found;
}

/** Each term of a query, and the query without it. */
function termsOf(text) {
  try {
    const query = parse(text);
    if (query.kind !== "and") return [];
    return query.terms.slice(0, 5).map((term) => {
      const rest = { kind: "and", terms: query.terms.filter((each) => each !== term) };
      return [boxText(term), boxText(rest)];
    });
  } catch {
    return [];
  }
}

async function explainStages(place, answer) {
  const parameters = { from: answer.searched.from, to: answer.searched.to };
  try {
    const { why } = await ask("hours", { ...parameters, q: state.q, why: true });
    const offer = why.states.expired ? archiveOffer({ ...parameters, q: state.q }) : null;
    fill(place, ...whyPanel(why), offer);
  } catch {
    await countStored(place, parameters);
  }
}

/** Without receipts, at least say how many events of the range are stored. */
async function countStored(place, parameters) {
  if (!searched().q) return void fill(place);
  try {
    const found = await ask("histogram", parameters);
    const text = found.rows
      ? `${some(found.rows, "row")} of this range ${found.rows === 1 ? "is" : "are"} stored; the query hides all of them.`
      : "No event of this range is stored.";
    fill(place, h("p", {}, text));
  } catch {
    fill(place);
  }
}
