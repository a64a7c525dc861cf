// All events of a trace, session or worker in time; bars where there are durations.

import { ask, Latest, request } from "./api.js";
import { button, capital, cut, fill, h, some, visible } from "./dom.js";
import { levelClass, parseExactly, summaryOf, timeOfId } from "./events.js";
import { equal, print } from "./language.js";
import { zone } from "./range.js";
import { change, state } from "./state.js";
import { lengthText, longTime, rfc, shortLength } from "./times.js";

/** How far from the event others of its trace are looked for. */
const REACH_MS = 12 * 36e5;
const MOST = 1000;

const NAMES = { trace_id: "trace", session_id: "session", worker_id: "worker" };

/** The view of everything with the same value as the event of the address. */
export class Trace {
  constructor(place) {
    this.place = place;
    this.latest = new Latest();
  }

  show() {
    const column = state.same in NAMES ? state.same : "trace_id";
    const back = button("← Back to the events", () => change({ view: "", same: "" }, { isStep: true }));
    fill(this.place, back, h("p", { class: "wait" }, "Loading…"));
    this.latest.run((signal) => this.question(column, signal), {
      done: (found) => fill(this.place, back, ...this.bodyOf(column, found)),
      failed: (error) => fill(this.place, back, h("p", { class: "problem", role: "alert" }, `${error.message}. `, button("Ask again", () => this.show()))),
    });
  }

  async question(column, signal) {
    const text = await (await request(`events/${encodeURIComponent(state.event)}`, {}, { signal })).text();
    const { event } = parseExactly(text);
    const value = event[column];
    if (!value) throw new Error(`the event has no ${NAMES[column]}`);
    const at = timeOfId(event.id);
    const query = print(equal(column.replace("_id", ""), value));
    const range = { from: rfc(at - REACH_MS), to: rfc(at + REACH_MS) };
    const found = await ask("events", { q: query, ...range, order: "oldest", limit: MOST }, { signal });
    return { value, query, range, found };
  }

  bodyOf(column, { value, query, range, found }) {
    const spans = found.events.map(spanOf);
    const start = Math.min(...spans.map(([from]) => from));
    const end = Math.max(...spans.map(([, to]) => to));
    const whole = end - start || 1;
    const rows = found.events.map((event, i) => rowOf(event, spans[i], start, whole));
    const errors = found.events.filter((event) => event.error).length;
    const hasMore = found.next ? `The first ${MOST} are shown. ` : "";
    const weights = found.events_estimated > found.rows ? "Others of it may have been sampled out. " : "";
    const list = button("Show as a list", () => change({ q: query, ...range, view: "", same: "", event: "" }));
    return [
      h("h2", {}, `${capital(NAMES[column])} `, h("code", {}, visible(cut(value, 80)))),
      h("p", {}, `${some(found.rows, "event")} in ${lengthText(whole)}, ${some(errors, "error")}. ${hasMore}${weights}A bar ends at its event's time and is as long as its duration. `, list),
      h("ol", { class: "waterfall" }, rows),
    ];
  }
}

/** An event is written when its work has ended: its bar ends at its time. */
function spanOf(event) {
  const end = timeOfId(event.id);
  return [end - Math.max(0, event.duration_ms ?? 0), end];
}

function rowOf(event, [from, to], start, whole) {
  const bar = h("i", { class: "span" });
  bar.style.left = `${((from - start) / whole) * 100}%`;
  bar.style.width = `${Math.max(0.3, ((to - from) / whole) * 100)}%`;
  const offset = `+${shortLength(to - start)}`;
  const duration = event.duration_ms === null ? "" : shortLength(event.duration_ms);
  const open = button("", () => change({ event: event.id, view: "", same: "" }, { isStep: true }), {
    class: "neighbour",
    title: longTime(event.timestamp, zone()),
  });
  fill(
    open,
    h("span", { class: "time" }, offset),
    h("span", { class: "type" }, visible(cut(event.event_type ?? "", 60))),
    h("span", { class: "track" }, bar),
    h("span", { class: "duration" }, duration),
    h("span", { class: "text" }, summaryOf(event)),
  );
  return h("li", { class: levelClass(event.event_level ?? ""), "aria-current": event.id === state.event ? "true" : null }, open);
}
