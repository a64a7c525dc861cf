// The overview: counts, errors, cost and duration by hour, type, level, master and model, from statistics.

import { ask } from "./api.js";
import { button, counted, cut, fill, h, svg, visible } from "./dom.js";
import { noValue } from "./events.js";
import { boxText, parse, termOf, withTerm } from "./language.js";
import { zone } from "./range.js";
import { change, searched, state } from "./state.js";
import { agoText, lengthText, minuteTime, shortLength } from "./times.js";

const CARD_HOURS = 24;
const FIELDS = [["type", "Types"], ["level", "Levels"], ["master", "Masters"], ["model", "Models"]];
const NAMES = { type: "Type", level: "Level", master: "Master", model: "Model" };
const MOST_ROWS = 10;
const HEIGHT = 70;
const STEPS = ["5m", "1h", "3h", "1d"];
const STEP_MS = { "5m": 3e5, "1h": 36e5, "3h": 108e5, "1d": 864e5 };
const MOST_SLOTS = 200;

const dollars = (value) => (value === null || value === undefined ? "–" : `$${value.toFixed(value < 10 ? 4 : 2)}`);
const duration = (value) => (value === null || value === undefined ? "–" : shortLength(value));

/** "1 hour" */
const stepName = (step) => lengthText(STEP_MS[step]);

/** The view; each part asks for itself and shows its own mistake. */
export class Overview {
  constructor(place) {
    this.place = place;
    this.controller = new AbortController();
  }

  show() {
    this.controller.abort();
    this.controller = new AbortController();
    const cards = h("div", { class: "cards" });
    const charts = h("div", { class: "charts" });
    const tables = FIELDS.map(([field, name]) => [field, h("section", { class: "figures", "aria-label": name }, h("h2", {}, name))]);
    const alerts = h("section", { class: "figures", "aria-label": "Alerts" }, h("h2", {}, "Alerts"));
    fill(this.place, cards, charts, alerts, h("div", { class: "tables" }, tables.map(([, section]) => section)));
    this.part(cards, () => this.cards());
    this.part(charts, () => this.charts());
    this.part(alerts, () => this.alerts());
    for (const [field, section] of tables) this.part(section, () => this.table(field, section));
  }

  ask(path, parameters) {
    return ask(path, parameters, { signal: this.controller.signal });
  }

  async part(place, make) {
    const wait = h("p", { class: "wait" }, "Counting…");
    place.append(wait);
    try {
      const made = await make();
      wait.remove();
      place.append(...made);
    } catch (error) {
      if (error.name === "AbortError") return;
      wait.className = "problem";
      fill(wait, `${error.message}. `, button("Count again", () => (wait.remove(), this.part(place, make)), { class: "link" }));
    }
  }

  /** All events; of the last 24 hours: events, errors, cost; the newest hour, hours that are not settled. */
  async cards() {
    const day = { from: `now-${CARD_HOURS}h`, to: "now" };
    const [all, last, hours] = await Promise.all([
      this.ask("stats", { from: "2000-01-01", to: "now+1h" }),
      this.ask("stats", day),
      this.ask("hours", day),
    ]);
    const recent = totalOf(last.statistics);
    const whole = totalOf(all.statistics);
    const unsettled = hours.hours.filter((hour) => ["missing", "stale"].includes(hour.state));
    const open = button("Look at them", () => change({ ...day, view: "", q: "" }), { class: "link" });
    return [
      card("Events, all time", counted(whole.events), `${counted(whole.rows)} rows stored`),
      card("Events, 24 hours", counted(recent.events), `${counted(recent.rows)} rows stored`),
      card("Errors, 24 hours", counted(recent.errors), recent.events ? `${((100 * recent.errors) / recent.events).toFixed(1)} % of the events` : "no event", recent.errors > 0),
      card("Cost, 24 hours", dollars(recent.cost), recent.cost === null ? "no event has a cost" : "of events that have one"),
      card("Newest event", whole.last ? agoText(whole.last) : "–", whole.last ? minuteTime(whole.last, zone()) : "nothing is stored"),
      card("Hours behind", counted(unsettled.length), unsettled.length ? [`${countsText(unsettled)} `, open] : "of the last 24 hours", unsettled.length > 0),
    ];
  }

  /** Alerts that fire or are about to, each with its last message; how many messages wait or were given up. */
  async alerts() {
    const found = await this.ask("alerts", {});
    if (!found.readable) return [note("There is no webhook here, or this server may not read its alerts: run obs postgres init.")];
    const messages = messagesText(found);
    if (!found.alerts.length) return [note(`No alert fires. ${messages}`)];
    const heads = ["Rule", "Group", "State", "Since", "Value", "Last message"].map((text) => h("th", { scope: "col" }, text));
    const rows = found.alerts.map((alert) => {
      const cells = [groupText(alert.group), alert.status, minuteTime(alert.since, zone()), valueText(alert.value), noticeText(alert)];
      const name = h("th", { scope: "row" }, visible(cut(alert.rule, 60)), h("small", {}, ` ${visible(alert.destination)}`));
      return h("tr", { class: alert.status === "firing" ? "firing" : "" }, name, cells.map((text) => h("td", {}, text)));
    });
    return [scrolling(heads, rows), h("small", {}, messages)];
  }

  async charts() {
    const step = await this.step();
    const found = await this.ask("stats", { ...searched(), step, tz: zone() });
    const slots = found.statistics;
    const range = [found.searched.from, found.searched.to].map((text) => new Date(text).getTime());
    const kinds = [
      ["Events", (slot) => slot.events, counted, "fill-all"],
      ["Errors", (slot) => slot.errors, counted, "fill-error"],
      ["Cost", (slot) => slot.cost_usd ?? 0, dollars, "fill-2"],
      ["Mean duration", (slot) => slot.duration_ms_mean ?? 0, duration, "fill-1"],
    ];
    return kinds.map(([name, amount, text, colour]) => chartOf(name, slots, range, { amount, text, colour, step }));
  }

  /** The shortest step that gives a readable number of bars. */
  async step() {
    const { from, to } = (await this.ask("stats", searched())).searched;
    const ms = new Date(to) - new Date(from);
    return STEPS.find((step) => ms / STEP_MS[step] <= MOST_SLOTS && (STEP_MS[step] >= 36e5 || ms <= 2 * 36e5)) ?? "1d";
  }

  async table(field) {
    const found = await this.ask("stats", { ...searched(), by: field });
    const statistics = found.statistics.filter((each) => each.rows);
    const named = statistics.filter(({ value, is_other: isOther }) => value !== null && !isOther);
    if (!named.length) return [h("p", { class: "wait" }, "No event of the range has a value.")];
    const shown = statistics.slice(0, MOST_ROWS);
    const heads = [NAMES[field], "Events", "Rows", "Errors", "Cost", "Mean time", "Longest"].map((text) => h("th", { scope: "col" }, text));
    const rows = shown.map((each) =>
      h(
        "tr",
        {},
        h("th", { scope: "row" }, nameOf(field, each)),
        [counted(each.events), counted(each.rows), counted(each.errors), dollars(each.cost_usd), duration(each.duration_ms_mean), duration(each.duration_ms_max)].map((text) => h("td", {}, text)),
      ),
    );
    const left = statistics.length - shown.length;
    const notes = [left > 0 ? `${counted(left)} more values` : "", found.complete ? "" : `counted as far as ${minuteTime(found.searched.until, zone())}`].filter(Boolean);
    return [scrolling(heads, rows), h("small", {}, notes.join("; "))];
  }
}

const note = (text) => h("p", { class: "wait" }, text);

/** A table that is moved sideways where the window is narrow. */
function scrolling(heads, rows) {
  const table = h("table", {}, h("thead", {}, h("tr", {}, heads)), h("tbody", {}, rows));
  return h("div", { class: "scroll", tabindex: "0" }, table);
}

const valueText = (value) => (value === null ? "–" : counted(value));
const groupText = (group) => group.map((value) => (value === null ? "without it" : visible(value))).join(", ") || "–";

function noticeText(alert) {
  if (alert.notice === null) return "none so far";
  const kept = alert.is_sent ? "" : " (recorded only)";
  return `${alert.notice}, ${minuteTime(alert.notice_hour, zone())}${kept}`;
}

function messagesText({ messages, last_sent_at: last }) {
  const names = { sent: "sent", pending: "waiting", failed: "given up", unsent: "recorded only" };
  const counts = Object.entries(names).filter(([state]) => messages[state]).map(([state, name]) => `${counted(messages[state])} ${name}`);
  const sent = last ? `; the last one was sent ${agoText(last)}` : "";
  return `Messages of the last 24 hours: ${counts.join(", ") || "none"}${sent}.`;
}

function card(name, figure, note, isGrave = false) {
  return h("section", { class: "card" }, h("h2", {}, name), h("p", { class: isGrave ? "figure grave" : "figure" }, figure), h("p", {}, note));
}

function totalOf(statistics) {
  const sum = (name) => statistics.reduce((total, each) => total + (each[name] ?? 0), 0);
  const hasCost = statistics.some((each) => each.cost_usd !== null);
  const last = statistics.map((each) => each.last_at).filter(Boolean).sort().at(-1) ?? null;
  return { events: sum("events"), rows: sum("rows"), errors: sum("errors"), cost: hasCost ? sum("cost_usd") : null, last };
}

function countsText(hours) {
  return ["missing", "stale"].map((name) => [hours.filter((hour) => hour.state === name).length, name]).filter(([count]) => count).map(([count, name]) => `${count} ${name}`).join(", ");
}

/** A value as a link to its events. */
function nameOf(field, { value, is_other: isOther }) {
  if (isOther) return "others";
  const text = value === null ? noValue(field) : visible(cut(value, 60));
  return button(text, () => change({ q: queryWith(field, value), view: "" }), { class: "link", title: "Show these events" });
}

function queryWith(field, value) {
  try {
    return boxText(withTerm(parse(state.q), termOf(field, value)));
  } catch {
    return boxText(termOf(field, value));
  }
}

function chartOf(name, slots, [from, to], { amount, text, colour, step }) {
  const width = 400;
  const most = Math.max(...slots.map(amount), 0);
  const xOf = (time) => ((new Date(time).getTime() - from) / (to - from || 1)) * width;
  const bars = slots.filter((slot) => amount(slot) > 0).map((slot) => {
    const height = Math.max(1, (amount(slot) / most) * (HEIGHT - 4));
    const bar = svg("rect", { class: colour, x: xOf(slot.start), y: HEIGHT - height, width: Math.max(1, xOf(slot.end) - xOf(slot.start) - 0.6), height });
    bar.append(svg("title", {}, `${minuteTime(slot.start, zone())}: ${text(amount(slot))}`));
    return bar;
  });
  const peak = slots.find((slot) => amount(slot) === most);
  const label = most ? `${name}: at most ${text(most)} in ${stepName(step)}, at ${minuteTime(peak.start, zone())}` : `${name}: none`;
  const ends = [from, to].map((ms) => minuteTime(ms, zone()));
  return h(
    "section",
    { class: "small-chart" },
    h("h2", {}, name, h("small", {}, most ? ` at most ${text(most)} in ${stepName(step)}` : " none")),
    svg("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", "aria-label": label }, ...bars),
    h("p", { class: "ends" }, h("small", {}, ends[0]), h("small", {}, ends[1])),
  );
}
