// Moments: as the server writes them, as people read them in a zone, as people type them.

const DISTANCE = /^now(?:([+-])(\d{1,6})([smhdw]))?$/;
const UNITS = { s: 1e3, m: 6e4, h: 36e5, d: 864e5, w: 6048e5 };
const formats = new Map();

/** The formatter of a zone; making one takes a millisecond, so each is kept. */
function formatOf(zone) {
  if (!formats.has(zone)) {
    const options = {
      timeZone: zone,
      hourCycle: "h23",
      year: "numeric",
      month: "2-digit",
      day: "2-digit",
      hour: "2-digit",
      minute: "2-digit",
      second: "2-digit",
    };
    formats.set(zone, new Intl.DateTimeFormat("en", options));
  }
  return formats.get(zone);
}

/** Date and time of a moment in a zone: {year, month, day, hour, minute, second} as texts. */
function partsIn(zone, date) {
  const parts = formatOf(zone).formatToParts(date);
  return Object.fromEntries(parts.map((part) => [part.type, part.value]));
}

/** The zone if the browser knows it, else UTC. */
export function knownZone(name) {
  try {
    formatOf(name);
    return name;
  } catch {
    return "UTC";
  }
}

export const localZone = () => Intl.DateTimeFormat().resolvedOptions().timeZone;

/** Fraction of a second of a moment as the server wrote it, six digits. */
function fractionOf(text) {
  const written = /\.(\d+)/.exec(text)?.[1] ?? "";
  return written.padEnd(6, "0").slice(0, 6);
}

/** "12-04 10:42:07.123" */
export function shortTime(text, zone) {
  const p = partsIn(zone, new Date(text));
  return `${p.month}-${p.day} ${p.hour}:${p.minute}:${p.second}.${fractionOf(text).slice(0, 3)}`;
}

/** "2025-12-04 10:42:07.123456 UTC" */
export function longTime(text, zone) {
  const p = partsIn(zone, new Date(text));
  const day = `${p.year}-${p.month}-${p.day}`;
  return `${day} ${p.hour}:${p.minute}:${p.second}.${fractionOf(text)} ${zone}`;
}

/** "2025-12-04 10:42", with seconds where there are any. */
export function minuteTime(value, zone) {
  const date = new Date(value);
  const p = partsIn(zone, date);
  const seconds = date.getTime() % 6e4 ? `:${p.second}` : "";
  return `${p.year}-${p.month}-${p.day} ${p.hour}:${p.minute}${seconds}`;
}

/** Text for an axis: the day at midnight, else the time. */
export function axisTime(value, zone, stepMs) {
  const p = partsIn(zone, new Date(value));
  if (stepMs >= 864e5 || (p.hour === "00" && p.minute === "00")) return `${p.month}-${p.day}`;
  if (stepMs < 6e4) return `${p.hour}:${p.minute}:${p.second}`;
  return `${p.hour}:${p.minute}`;
}

/** A length of time in words: "6 hours", "1 day 2 hours". */
export function lengthText(ms) {
  const units = [["day", 864e5], ["hour", 36e5], ["minute", 6e4], ["second", 1e3]];
  const parts = [];
  let rest = ms;
  for (const [name, unit] of units) {
    const count = Math.floor(rest / unit);
    rest -= count * unit;
    if (count) parts.push(`${count} ${name}${count === 1 ? "" : "s"}`);
  }
  return parts.slice(0, 2).join(" ") || `${Math.round(ms)} ms`;
}

/** "1 m 49 s" */
export const shortLength = (ms) => lengthText(ms).replace(/ (day|hour|minute|second)s?/g, (_, unit) => ` ${unit[0]}`);

/** "3 minutes ago" */
export function agoText(text, now = Date.now()) {
  const ms = now - new Date(text).getTime();
  if (ms < 0) return `in ${lengthText(-ms)}`;
  return ms < 5000 ? "just now" : `${lengthText(ms).split(" ").slice(0, 2).join(" ")} ago`;
}

/** Whether a text is a distance such as now-6h. */
export const isDistance = (text) => DISTANCE.test(text.trim());

/** Milliseconds since 1970 of a moment as it is typed, or null. */
export function momentOf(text, zone, now = Date.now()) {
  const written = text.trim();
  const distance = DISTANCE.exec(written);
  if (distance) {
    const [, sign, count, unit] = distance;
    if (!sign) return now;
    return now + (sign === "+" ? 1 : -1) * Number(count) * UNITS[unit];
  }
  const typed = /^(\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d(?::\d\d(?:\.\d+)?)?))?\s*(Z|[+-]\d\d:?\d\d)?$/.exec(written);
  if (!typed) return null;
  const [, day, time = "00:00", offset] = typed;
  const asUtc = Date.parse(`${day}T${time}Z`);
  if (Number.isNaN(asUtc)) return null;
  if (offset) return Date.parse(`${day}T${time}${offset}`);
  return asUtc - offsetMs(asUtc, zone);
}

/** How far a zone is ahead of UTC at a local time, in milliseconds. */
function offsetMs(localMs, zone) {
  // Twice: the first guess can be on the other side of a change of the clocks.
  return offsetAt(localMs - offsetAt(localMs, zone), zone);
}

function offsetAt(utcMs, zone) {
  const second = utcMs - (utcMs % 1000);
  const p = partsIn(zone, new Date(second));
  return Date.parse(`${p.year}-${p.month}-${p.day}T${p.hour}:${p.minute}:${p.second}Z`) - second;
}

/** A moment as the server reads it: RFC 3339 in UTC, without a fraction of zero. */
export function rfc(ms) {
  return new Date(ms).toISOString().replace(".000Z", "Z");
}

/** A typed moment as a parameter: a distance stays as it is. Null where it is no moment. */
export function parameterOf(text, zone) {
  const written = text.trim();
  if (!written || isDistance(written)) return written;
  const ms = momentOf(written, zone);
  return ms === null ? null : rfc(ms);
}
