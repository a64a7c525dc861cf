// One event: its columns and members as a tree, its JSON as text, its neighbours in time.

import { ask, isMissing, Latest, request } from "./api.js";
import { blocksOf, button, byId, copyText, counted, cut, fill, h, sized, toast, visible } from "./dom.js";
import { Exact, levelClass, parseExactly, SHORT_NAMES, summaryOf, textOf, timeOfId } from "./events.js";
import { factsOf, hourOf } from "./hours.js";
import { boxText, hasTerm, opposite, parse, termOf, withoutTerm, withTerm } from "./language.js";
import { columnsOf } from "./list.js";
import { zone } from "./range.js";
import { addressOf, change, state } from "./state.js";
import { lengthText, longTime, rfc, shortTime } from "./times.js";

/** Characters of a whole event, and of one value, that are shown at first. */
const SHOWN_EVENT = 64 * 1024;
const SHOWN_VALUE = 4 * 1024;

/** Members of an object or list that are shown at first. */
const SHOWN_MEMBERS = 100;

/** Levels of the tree that are open at first. */
const OPEN_DEPTH = 2;

/** Characters of a value that may become a term of the query. */
const MOST_TERM = 500;

const NEIGHBOURS = 10;

/** How far around an event others are listed. */
const AROUND_MS = 5 * 60e3;

const GROUPS = { trace_id: "trace", session_id: "session", worker_id: "worker" };

/** Add the term of a value to the query, or its opposite. */
export function filter(field, value, isWanted = true) {
  const named = termOf(SHORT_NAMES[field] ?? field, value);
  const term = isWanted ? named : opposite(named);
  let query;
  try {
    query = parse(state.q);
  } catch {
    toast("The query has a mistake: correct it first.");
    return;
  }
  change({ q: boxText(hasTerm(query, term) ? withoutTerm(query, term) : withTerm(query, term)) });
}

export function setUpDetails() {
  const place = byId("details");
  const latest = new Latest();
  let shown = null;
  let opener = null;

  function show() {
    place.hidden = !state.event;
    document.body.classList.toggle("has-details", Boolean(state.event));
    if (!state.event) {
      latest.abort();
      shown = null;
      return;
    }
    if (shown === state.event) return;
    const id = state.event;
    const question = async (signal) => {
      const text = await (await request(`events/${encodeURIComponent(id)}`, {}, { signal })).text();
      return { text, event: parseExactly(text).event };
    };
    latest.run(question, {
      started: () => {
        place.setAttribute("aria-busy", "true");
        if (!place.childElementCount) fill(place, bar(null), h("p", { class: "wait" }, "Loading the event…"));
      },
      done: ({ text, event }) => {
        place.removeAttribute("aria-busy");
        shown = id;
        fill(place, bar(event), ...bodyOf(event, text));
        place.scrollTop = 0;
      },
      failed: (error) => {
        place.removeAttribute("aria-busy");
        shown = null;
        fill(place, bar(null), problemOf(error));
      },
    });
  }

  /** A link to an event whose hour was replaced or dropped says so. */
  function problemOf(error) {
    if (!isMissing(error) && error.status !== 410) {
      const again = button("Ask again", show);
      return h("div", { class: "problem", role: "alert" }, `${error.title}. ${error.message}. `, again);
    }
    const box = h("div", { class: "problem", role: "alert" }, error.status === 410 ? `${error.message}. ` : "This link names an event that is not stored now. ");
    explainHour(box);
    return box;
  }

  /** Why a link leads nowhere: what happened to the event's hour. */
  async function explainHour(box) {
    const where = h("a", { href: "./?view=where" }, "Where is my event?");
    try {
      const hour = await hourOf(timeOfId(state.event));
      if (hour) box.append(`Its hour ${hour.partition} is ${hour.state}: ${factsOf(hour).join(", ")}. `);
    } catch {
      // The sentence before says enough.
    }
    box.append(where);
  }

  function bar(event) {
    const close = button("×", shut, { class: "close", "aria-label": "Close the event (Esc)", title: "Esc" });
    if (!event) return h("div", { class: "details-bar" }, h("h2", {}, "Event"), close);
    const level = event.event_level;
    const title = h("h2", { tabindex: "-1" }, visible(cut(event.event_type ?? "event", 120)));
    const mark = level ? h("span", { class: `mark-level ${levelClass(level)}` }, level) : null;
    return h("div", { class: "details-bar" }, title, mark, close);
  }

  function shut() {
    change({ event: "" });
    (opener?.isConnected ? opener : byId("list")).focus();
  }

  function bodyOf(event, text) {
    const panels = {
      Tree: () => treeOf(event),
      Text: () => textPanel(text),
      Context: () => contextOf(event),
    };
    const panel = h("div", { class: "tab-panel", role: "tabpanel", id: "event-panel", tabindex: "0" });
    const tabs = Object.keys(panels).map((name) =>
      button(name, () => choose(name), { role: "tab", id: `tab-${name}`, "aria-controls": "event-panel" }),
    );
    const list = h("div", { class: "tabs", role: "tablist", "aria-label": "Ways to see the event", onkeydown: arrows }, tabs);
    function choose(name) {
      tabs.forEach((tab) => {
        const isChosen = tab.textContent === name;
        tab.setAttribute("aria-selected", String(isChosen));
        tab.tabIndex = isChosen ? 0 : -1;
      });
      panel.setAttribute("aria-labelledby", `tab-${name}`);
      fill(panel, panels[name]());
    }
    function arrows(key) {
      const by = { ArrowRight: 1, ArrowLeft: -1 }[key.key];
      if (!by) return;
      const at = tabs.findIndex((tab) => tab.tabIndex === 0);
      const tab = tabs[(at + by + tabs.length) % tabs.length];
      choose(tab.textContent);
      tab.focus();
    }
    choose("Tree");
    const time = h("p", { class: "details-time" }, h("time", { datetime: event.timestamp }, longTime(event.timestamp, zone())));
    return [time, actions(event, text), list, panel];
  }

  function actions(event, text) {
    const groups = Object.entries(GROUPS).filter(([column]) => event[column]);
    const link = () => copyText(addressOf(state), "link");
    return h(
      "div",
      { class: "actions" },
      button("Copy link", link),
      button("Copy JSON", () => copyText(memberText(text), "event")),
      button("Around it", () => change(around(event)), { title: "All events from 5 minutes before it to 5 minutes after it" }),
      groups.map(([column, name]) =>
        button(`Same ${name}`, () => change({ view: "trace", same: column }, { isStep: true }), {
          title: `All events with the same ${column}, in time`,
        }),
      ),
    );
  }

  return {
    begin: show,
    changed(changed) {
      if (changed.includes("event") && state.event) opener = document.activeElement;
      if (changed.includes("tz")) shown = null;
      if (changed.includes("event") || changed.includes("tz")) show();
    },
    shut,
  };
}

/** The search for everything around an event. */
function around(event) {
  const at = timeOfId(event.id);
  return { q: "", from: rfc(at - AROUND_MS), to: rfc(at + AROUND_MS), live: "" };
}

/** The event's own JSON in an answer: the text, so that each number keeps its digits. */
function memberText(text) {
  const begin = text.indexOf('"data":');
  return begin < 0 ? text : text.slice(begin + 7, text.lastIndexOf("}}")).trim();
}

// -- text ------------------------------------------------------------------------------------------

function textPanel(text) {
  const whole = memberText(text);
  const box = h("div", { class: "text-panel" });
  function show(all) {
    const shown = all || whole.length <= SHOWN_EVENT ? indented(whole) : whole.slice(0, SHOWN_EVENT);
    const rest = button(`Show all ${sized(whole.length)}`, () => show(true));
    const isCut = shown.length < whole.length && !all;
    const note = isCut ? h("p", {}, `The first ${sized(SHOWN_EVENT)} are shown. `, rest) : null;
    fill(box, note, h("pre", { tabindex: "0" }, blocksOf(visible(shown))));
  }
  show(false);
  return box;
}

/** JSON with line ends; strings and numbers stay as they were written. */
export function indented(text) {
  let depth = 0;
  let out = "";
  const pieces = /"(?:[^"\\]|\\.)*"|[{}[\],:]|[^\s"{}[\],:]+/g;
  let previous = "";
  for (const [piece] of text.matchAll(pieces)) {
    const isClosing = piece === "}" || piece === "]";
    if (isClosing) depth -= 1;
    const isEmptyPair = isClosing && (previous === "{" || previous === "[");
    if ((isClosing && !isEmptyPair) || ((previous === "{" || previous === "[") && !isClosing) || previous === ",") {
      out += `\n${"  ".repeat(Math.max(0, depth))}`;
    }
    out += piece === ":" ? ": " : piece;
    if (piece === "{" || piece === "[") depth += 1;
    previous = piece;
  }
  return out;
}

// -- tree ------------------------------------------------------------------------------------------

const COLUMN_ORDER = [
  "event_id", "event_type", "event_level", "source_name", "master_type", "worker_type", "worker_id",
  "trace_id", "session_id", "error", "duration_ms", "cost_usd", "weight", "row_uid",
];

function treeOf(event) {
  const marks = redactedPaths(event.data);
  const columns = COLUMN_ORDER.filter((name) => event[name] !== null && event[name] !== undefined);
  const rows = columns.map((name) => leaf({ key: name, value: event[name], field: name, marks: [] }));
  const kinds = [...new Set([...marks.values()].flat())];
  const note = kinds.length
    ? h("p", { class: "redacted-note" }, `${counted(marks.size)} ${marks.size === 1 ? "value was" : "values were"} redacted: ${kinds.join(", ")}`)
    : null;
  return h(
    "div",
    { class: "tree" },
    note,
    h("h3", {}, "Columns"),
    h("ul", {}, rows),
    h("h3", {}, "Event"),
    membersOf(event.data, [], marks, 0),
  );
}

/** Path → types of the values that redaction replaced, as the event itself lists them. */
function redactedPaths(data) {
  const found = new Map();
  const fields = data?._redaction?.fields;
  for (const { field, type, mode } of Array.isArray(fields) ? fields : []) {
    const name = mode ? `${type} (${mode})` : type;
    found.set(field, [...(found.get(field) ?? []), String(name)]);
  }
  return found;
}

const isBranch = (value) => value !== null && typeof value === "object" && !(value instanceof Exact);

function membersOf(value, path, marks, depth) {
  if (!isBranch(value)) return h("ul", {}, leaf({ key: "", value, field: null, marks: [] }));
  const entries = Object.entries(value);
  const list = h("ul", {});
  function add(from) {
    const part = entries.slice(from, from + SHOWN_MEMBERS);
    list.append(...part.map(([key, member]) => memberOf(key, member, [...path, key], Array.isArray(value), marks, depth)));
    const left = entries.length - from - part.length;
    if (!left) return;
    const more = button(`Show ${counted(Math.min(left, SHOWN_MEMBERS))} of ${counted(left)} more`, () => {
      item.remove();
      add(from + SHOWN_MEMBERS);
    });
    const item = h("li", {}, more);
    list.append(item);
  }
  add(0);
  return list;
}

function memberOf(key, value, path, isOfList, marks, depth) {
  const field = fieldOf(path, isOfList);
  const here = marks.get(path.join(".")) ?? [];
  if (!isBranch(value)) return leaf({ key, value, field, marks: here });
  const size = Object.keys(value).length;
  const sign = Array.isArray(value) ? `[${size}]` : `{${size}}`;
  const branch = h("details", {}, h("summary", {}, h("b", {}, visible(cut(key, 200))), ` ${sign}`));
  if (depth < OPEN_DEPTH - 1 && size <= 30) branch.open = true;
  function grow() {
    if (branch.open && branch.childElementCount === 1) branch.append(membersOf(value, path, marks, depth + 1));
  }
  branch.addEventListener("toggle", grow);
  grow();
  return h("li", {}, branch);
}

/** The field by which a query names a path; null where the language cannot. */
function fieldOf(path, isOfList) {
  // A list matches by any of its elements: the number of an element is no part of a query's path.
  const keys = isOfList ? path.slice(0, -1) : path;
  const hasNumbers = keys.some((key) => /^\d+$/.test(key));
  const hasDots = keys.length > 1 && keys.some((key) => key.includes("."));
  return keys.length && !hasNumbers && !hasDots && keys.every(Boolean) ? keys.join(".") : null;
}

function leaf({ key, value, field, marks }) {
  const text = textOf(value);
  const box = h("span", { class: `value ${kindOf(value)}` });
  function show(all) {
    const part = all ? text : cut(text, SHOWN_VALUE);
    const rest = part === text ? null : button(`Show all ${sized(text.length)}`, () => show(true));
    const shown = value === null ? "null" : visible(part);
    const words = isLength(key, value) ? h("small", {}, ` ${lengthText(value)}`) : null;
    fill(box, shown.length > SHOWN_VALUE * 2 ? blocksOf(shown) : shown, words, rest);
  }
  show(false);
  const badges = marks.map((type) => h("span", { class: "redacted", title: "Redacted before it was stored" }, type));
  return h("li", { class: "leaf" }, h("b", {}, visible(cut(key, 200))), box, badges, leafActions(field, value, text));
}

/** Milliseconds that are easier to read in other units. */
const isLength = (key, value) => key.endsWith("_ms") && typeof value === "number" && value >= 1000;

function kindOf(value) {
  if (value === null) return "null";
  return value instanceof Exact ? "number" : typeof value;
}

function leafActions(field, value, text) {
  const copy = button("Copy", () => copyText(text, "value"), { "aria-label": `Copy the value of ${field ?? "this member"}` });
  const isTerm = field !== null && text.length <= MOST_TERM;
  if (!isTerm) return h("span", { class: "leaf-actions" }, copy);
  const term = value === null ? null : text;
  const shown = `${field}:${cut(text, 40)}`;
  const columns = columnsOf(state);
  const hasColumn = columns.includes(field);
  const others = hasColumn ? columns.filter((each) => each !== field) : [...columns, field];
  return h(
    "span",
    { class: "leaf-actions" },
    button("=", () => filter(field, term), { "aria-label": `Only events with ${shown}`, title: "Only events with this value" }),
    button("≠", () => filter(field, term, false), { "aria-label": `Without events with ${shown}`, title: "Without events with this value" }),
    field.includes(",")
      ? null
      : button("▥", () => change({ cols: others.join(",") }), {
          "aria-label": `${hasColumn ? "Remove" : "Add"} the column ${field}`,
          title: hasColumn ? "Remove the column of the list" : "A column of the list",
        }),
    copy,
  );
}

// -- neighbours ------------------------------------------------------------------------------------

function contextOf(event) {
  const place = h("div", { class: "context" }, h("p", { class: "wait" }, "Loading neighbours…"));
  const groups = Object.keys(GROUPS).filter((column) => event[column]);
  let same = "";
  async function load() {
    const parameters = { before: NEIGHBOURS, after: NEIGHBOURS };
    if (same) parameters.same = same;
    try {
      const found = await ask(`events/${encodeURIComponent(event.id)}/context`, parameters);
      fill(place, choice(), ...rowsOf(found));
    } catch (error) {
      fill(place, choice(), h("p", { class: "problem" }, `${error.message}. `, button("Ask again", load)));
    }
  }
  function choice() {
    const select = h(
      "select",
      {
        "aria-label": "Which neighbours",
        onchange: (changed) => {
          same = changed.target.value;
          load();
        },
      },
      h("option", { value: "" }, "all events"),
      groups.map((column) => h("option", { value: column, selected: column === same }, `of the same ${GROUPS[column]}`)),
    );
    return h("p", {}, `${NEIGHBOURS} before and ${NEIGHBOURS} after: `, select);
  }
  function rowsOf({ before, after, complete }) {
    const rows = [...after.toReversed(), event, ...before];
    const items = rows.map((each) =>
      h(
        "li",
        { class: levelClass(each.event_level ?? ""), "aria-current": each.id === event.id ? "true" : null },
        button("", () => change({ event: each.id }), { class: "neighbour" }),
      ),
    );
    items.forEach((item, i) => {
      const each = rows[i];
      fill(
        item.firstChild,
        h("span", { class: "time" }, shortTime(each.timestamp, zone())),
        h("span", { class: "type" }, visible(cut(each.event_type ?? "", 60))),
        h("span", { class: "text" }, each.id === event.id ? "this event" : summaryOf(each)),
      );
    });
    const note = complete ? null : h("p", { class: "partial" }, "The time was over before all neighbours were found.");
    return [note, h("ul", {}, items)];
  }
  load();
  return place;
}
