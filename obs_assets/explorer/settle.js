// Rows of an hour that was replaced: a row that is not stored any more stays where it is and says why.

import { ask } from "./api.js";
import { announce, some } from "./dom.js";
import { words } from "./hours.js";
import { eventOf } from "./list.js";

const HOUR_MS = 36e5;

/** Rows whose storage is looked up for a replaced hour, the newest first. */
const MOST_ROWS = 400;

/** Rows of a question: a query has at most 4,000 characters. */
const ROWS_OF_QUESTION = 80;

/** Rows whose reason is looked up. */
const MOST_REASONS = 20;

/** Mark the rows of an hour that the table no longer has. */
export async function settle(list, hour) {
  const start = new Date(hour).getTime();
  const rows = list.rowsBetween(start, start + HOUR_MS).slice(0, MOST_ROWS);
  const gone = [];
  for (let i = 0; i < rows.length; i += ROWS_OF_QUESTION) {
    gone.push(...(await missing(rows.slice(i, i + ROWS_OF_QUESTION), start)));
  }
  for (const row of gone) list.markGone(row, "no longer stored");
  if (gone.length) announce(`${some(gone.length, "row")} no longer stored`);
  for (const row of gone.slice(0, MOST_REASONS)) await explain(list, row);
}

async function missing(rows, start) {
  const uids = rows.map((row) => eventOf(row).row_uid);
  const range = { from: new Date(start).toISOString(), to: new Date(start + HOUR_MS).toISOString() };
  const { events, complete } = await ask("events", { ...range, q: `row_uid:(${uids.join(" OR ")})`, limit: ROWS_OF_QUESTION });
  const stored = new Set(events.map((event) => event.row_uid));
  return complete ? rows.filter((_, i) => !stored.has(uids[i])) : [];
}

/** Say by which stage a row's event was dropped, where this is known. */
async function explain(list, row) {
  const id = eventOf(row).event_id;
  if (!id) return;
  const { events } = await ask("whereabouts", { event_id: id });
  const found = events.find(({ place }) => place !== "stored");
  if (found && row.isConnected) list.markGone(row, words(found.text));
}
