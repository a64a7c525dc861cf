// Which view is shown: the events, or one that takes the whole page.

import { byId, counted, fill, h, some } from "./dom.js";
import { rangeText } from "./list.js";
import { state } from "./state.js";
import { Overview } from "./overview.js";
import { Trace } from "./trace.js";
import { Where } from "./where.js";

export function setUpViews() {
  const place = byId("other-view");
  const others = { overview: new Overview(place), trace: new Trace(place), where: new Where(place) };
  let searched = null;
  let totals = null;

  function show() {
    const other = Object.hasOwn(others, state.view) ? others[state.view] : null;
    byId("events-view").hidden = Boolean(other);
    // The overview has a range and a query, the others have not.
    const hasSearch = !other || state.view === "overview";
    for (const id of ["search", "status"]) byId(id).hidden = !hasSearch;
    place.hidden = !other;
    document.body.classList.toggle("has-other", Boolean(other));
    for (const link of document.querySelectorAll(".views a")) {
      const isHere = link.id === `view-${other ? state.view : "events"}`;
      if (isHere) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    other?.show();
    document.title = state.q ? `${state.q.slice(0, 60)} · obs_assets` : "Events · obs_assets";
  }

  /** How many rows match, how many events they stand for, in which range. */
  function summarize() {
    if (!searched) return;
    const { searched: range, took_ms: took } = searched;
    const isWhole = !searched.next && !totals;
    const matching = totals ?? (isWhole ? { rows: searched.rows, events: searched.events_estimated } : null);
    const parts = [];
    if (matching) {
      const least = totals && !totals.complete ? "at least " : "";
      parts.push(h("b", {}, `${least}${some(matching.rows, "row")}`));
      if (counted(matching.rows) !== counted(matching.events)) parts.push(` standing for about ${counted(matching.events)} events`);
      parts.push(" · ");
    }
    parts.push(rangeText(range), state.from || state.to ? "" : ", the last day that has events", ` · ${counted(took)} ms`);
    fill(byId("summary"), ...parts);
  }

  addEventListener("searched", (event) => {
    searched = event.detail;
    summarize();
  });
  addEventListener("counted", (event) => {
    const found = event.detail;
    totals = found ? { rows: found.rows, events: found.events_estimated, complete: found.complete } : null;
    summarize();
  });

  return {
    begin: show,
    changed(changed) {
      const own = ["view", "same", "find", "offset", "q", ...(state.view === "overview" ? ["from", "to", "tz"] : [])];
      if (own.some((name) => changed.includes(name)) || (changed.includes("event") && state.view)) show();
      if (changed.includes("tz")) summarize();
      if (["q", "from", "to"].some((name) => changed.includes(name))) totals = null;
    },
  };
}
