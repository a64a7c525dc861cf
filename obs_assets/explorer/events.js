// What is shown of an event: its line, its levels, its exact numbers.

import { cut, visible } from "./dom.js";

export const SUMMARY_CHARACTERS = 400;

/** Members of an object in an event's line. */
const SHOWN_KEYS = 4;

/** Levels from the gravest on; every other level is shown as the last one. */
export const LEVELS = ["fatal", "critical", "error", "warning", "info", "debug", "trace"];

/** The name of "no value" of a field: "(no level)". */
export const noValue = (field) => `(no ${SHORT_NAMES[field] ?? field})`;

/** The CSS class of a level. */
export const levelClass = (level) => `level-${LEVELS.includes(level) ? level : "none"}`;

/** Column → its short name in queries. */
export const SHORT_NAMES = {
  event_id: "id",
  event_type: "type",
  event_level: "level",
  source_name: "source",
  master_type: "master",
  worker_id: "worker",
  trace_id: "trace",
  session_id: "session",
};

const HIDDEN_KEYS = new Set(["timestamp", "type", "event_type", "level", "master", "master_type", "id", "event_id"]);

/** The text of an event's line: its error and its message, else its members. */
export function summaryOf(event) {
  const data = event.data ?? {};
  const texts = [event.error, data.message ?? data.msg].filter((text) => typeof text === "string" && text);
  if (texts.length) return oneLine([...new Set(texts.map((text) => text.slice(0, SUMMARY_CHARACTERS * 2)))].join(" · "));
  const parts = [];
  let length = 0;
  for (const [key, value] of Object.entries(data)) {
    if (HIDDEN_KEYS.has(key) || key.startsWith("_")) continue;
    const text = `${key}=${shortText(value)}`;
    parts.push(text);
    length += text.length;
    if (length > SUMMARY_CHARACTERS) break;
  }
  return oneLine(parts.join("  "));
}

function shortText(value, isInside = false) {
  if (typeof value === "string") return cut(value, 80);
  if (Array.isArray(value)) return `[${value.length}]`;
  if (!value || typeof value !== "object") return String(value);
  // A large object is not written out for a line of some characters.
  const keys = Object.keys(value).slice(0, SHOWN_KEYS);
  const parts = isInside ? keys : keys.map((key) => `${cut(key, 40)}: ${shortText(value[key], true)}`);
  return `{${parts.join(", ")}}`;
}

function oneLine(text) {
  return visible(cut(text.slice(0, SUMMARY_CHARACTERS * 2).replace(/\s+/g, " "), SUMMARY_CHARACTERS));
}

/** The value at a path of keys joined by dots, or of a column, as text. */
export function valueAt(event, field) {
  if (field in event && field !== "data") return textOf(event[field]);
  let value = event.data;
  if (value && typeof value === "object" && field in value) return textOf(value[field]);
  for (const key of field.split(".")) value = value?.[key];
  return textOf(value);
}

export function textOf(value) {
  if (value === undefined || value === null) return "";
  if (value instanceof Exact) return value.source;
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}

/** A number that JavaScript cannot hold exactly, as it was written. */
export class Exact {
  constructor(source) {
    this.source = source;
  }

  toString() {
    return this.source;
  }
}

/** Read JSON; numbers that would lose digits are `Exact`, where the browser shows the source. */
export function parseExactly(text) {
  return JSON.parse(text, (key, value, context) => {
    const source = context?.source;
    if (typeof value !== "number" || source === undefined) return value;
    return String(value) === source || Number(source) === value && /^-?\d{1,15}$/.test(source)
      ? value
      : new Exact(source);
  });
}

/** Milliseconds since 1970 of an event's public id, which begins with its microseconds. */
export const timeOfId = (id) => Number(id.slice(0, id.lastIndexOf("-"))) / 1000;
