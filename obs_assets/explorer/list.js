// The list: a line for each event, at most 2,000 in the page, further pages by their cursor.

import { ask, Latest } from "./api.js";
import { announce, button, byId, capital, counted, fill, h, some, visible } from "./dom.js";
import { levelClass, summaryOf, valueAt } from "./events.js";
import { showQueryProblem, unitsOf } from "./search.js";
import { change, isSearch, searched, state } from "./state.js";
import { lengthText, longTime, minuteTime, shortTime } from "./times.js";
import { zone } from "./range.js";
import { explainNothing } from "./empty.js";

/** Rows of a page; the first one is small, so that it is there soon. */
const PAGE = 100;

/** Rows in the page, at most. */
export const MOST_ROWS = 2000;

/** Rows that are taken out at the other end when the list is full. */
const DROPPED_ROWS = 500;

const SLOW_MS = 1500;

/** Live rows that are marked as new. */
const FEW_ROWS = 40;

const events = new WeakMap();

/** The event of a row. */
export const eventOf = (row) => events.get(row);

export function columnsOf(some) {
  return some.cols ? some.cols.split(",").filter(Boolean).slice(0, 12) : [];
}

export function setUpList() {
  const list = byId("list");
  const problem = byId("list-problem");
  const empty = byId("empty");
  const latest = new Latest();
  const body = h("div", { role: "rowgroup", class: "rows" });
  const foot = h("div", { class: "foot" });
  const scroller = list.parentElement;
  const rows = new Map();
  let next = null;
  let answer = null;
  let above = 0;
  let seen = 0;
  let slowTimer = 0;

  // There before the first answer: it says that a search takes long.
  list.hidden = true;
  list.after(foot);

  // -- asking ----------------------------------------------------------------------------------

  function question(cursor) {
    const parameters = { ...searched(), order: state.order, limit: PAGE };
    if (cursor) parameters.cursor = cursor;
    return (signal) => ask("events", parameters, { signal });
  }

  function search() {
    latest.run(question(null), { started: () => loading("Searching…"), done: first, failed });
  }

  function more() {
    if (!next || list.getAttribute("aria-busy") === "true") return;
    latest.run(question(next), { started: () => loading("Loading more…"), done: further, failed });
  }

  function loading(text) {
    list.setAttribute("aria-busy", "true");
    document.body.classList.add("is-searching");
    clearTimeout(slowTimer);
    slowTimer = setTimeout(() => slow(text), SLOW_MS);
    if (!body.childElementCount && empty.hidden) fill(foot, h("p", {}, text));
  }

  function slow(text) {
    const stop = button("Stop", () => {
      latest.abort();
      loaded();
      fill(foot, "Stopped. ", button("Search again", search));
    });
    fill(foot, h("p", { class: "slow" }, `${text} A narrower range, or a field with a value, is found sooner. `, stop));
    announce("Still searching");
  }

  function loaded() {
    clearTimeout(slowTimer);
    list.removeAttribute("aria-busy");
    document.body.classList.remove("is-searching");
  }

  function failed(error) {
    loaded();
    // The old rows stay, dimmed: they belong to the search before.
    list.classList.add("is-stale");
    empty.hidden = true;
    if (error.position !== null && error.position !== undefined) {
      showQueryProblem({ message: error.message, position: unitsOf(state.q, error.position) });
    } else if (error.parameter === "q") showQueryProblem(error);
    const again = button("Ask again", () => (next && seen ? more() : search()));
    const title = error.title ? h("strong", {}, `${error.title}. `) : null;
    fill(problem, title, `${capital(error.message)}. `, again);
    problem.hidden = false;
    fill(foot);
    console.info("search failed:", error.status);
  }

  // -- showing ---------------------------------------------------------------------------------

  function first(found) {
    body.replaceChildren();
    rows.clear();
    [above, seen] = [0, 0];
    scroller.scrollTop = 0;
    further(found);
    const text = found.events.length ? `${some(seen, "row")} shown` : "No event matches";
    announce(text);
    dispatchEvent(new CustomEvent("searched", { detail: found }));
  }

  function further(found) {
    loaded();
    [answer, next] = [found, found.next];
    list.classList.remove("is-stale");
    problem.hidden = true;
    add(found.events);
    seen += found.events.length;
    head();
    showFoot();
    showEmpty();
    select(false);
  }

  function add(found) {
    const columns = columnsOf(state);
    const fragment = document.createDocumentFragment();
    for (const event of found) fragment.append(rowOf(event, columns));
    body.append(fragment);
    const extra = body.childElementCount - MOST_ROWS;
    if (extra > 0) dropAbove(Math.max(extra, DROPPED_ROWS));
    if (!body.querySelector('[tabindex="0"]')) body.firstElementChild?.setAttribute("tabindex", "0");
  }

  function dropAbove(count) {
    const height = scroller.scrollHeight;
    for (let i = 0; i < count; i += 1) remove(body.firstElementChild);
    above += count;
    scroller.scrollTop -= height - scroller.scrollHeight;
  }

  /** Live rows push older ones out; the next page would not follow on what is left. */
  function dropBelow() {
    while (body.childElementCount > MOST_ROWS) remove(body.lastElementChild);
    next = null;
    sentinel.disconnect();
    fill(foot, "Older rows have left the page. ", button("Search again", search), " shows them.");
  }

  function remove(row) {
    rows.delete(row.dataset.id);
    row.remove();
  }

  function rowOf(event, columns) {
    const level = event.event_level ?? "";
    const weight = event.weight && event.weight !== 1 ? weightOf(event.weight) : null;
    const row = h(
      "div",
      { role: "row", class: `row ${levelClass(level)}`, tabindex: "-1", "aria-selected": "false" },
      cell("time", shortTime(event.timestamp, zone()), longTime(event.timestamp, zone())),
      cell("level", level || "–"),
      cell("type", event.event_type ?? ""),
      cell("master", event.master_type ?? ""),
      columns.map((field) => cell("own", valueAt(event, field))),
      h("span", { role: "gridcell", class: "text" }, weight, summaryOf(event)),
    );
    row.dataset.id = event.id;
    events.set(row, event);
    rows.set(event.id, row);
    return row;
  }

  function weightOf(weight) {
    const text = `×${Number.isInteger(weight) ? counted(weight) : weight.toFixed(1)}`;
    return h("abbr", { class: "weight", title: `This row stands for ${weight} events: others like it were sampled out.` }, text);
  }

  function cell(name, text, title) {
    const short = visible(text.length > 200 ? `${text.slice(0, 200)}…` : text);
    return h("span", { role: "gridcell", class: name, title: title ?? null }, short);
  }

  function head() {
    const columns = columnsOf(state);
    list.style.setProperty("--own", String(columns.length));
    list.classList.toggle("has-own", columns.length > 0);
    const own = columns.map((field) =>
      h(
        "span",
        { role: "columnheader", class: "own" },
        visible(field),
        button("×", () => change({ cols: columns.filter((each) => each !== field).join(",") }), {
          class: "link",
          "aria-label": `Remove the column ${field}`,
        }),
      ),
    );
    const order = state.order === "newest" ? "↓" : "↑";
    const other = state.order === "newest" ? "oldest" : "newest";
    const time = button(`Time ${order}`, () => change({ order: other }), {
      class: "link",
      title: `${state.order} first; click for the ${other} first`,
    });
    const names = ["Level", "Type", "Master"].map((name) => h("span", { role: "columnheader" }, name));
    const row = h(
      "div",
      { role: "row", class: "row header" },
      h("span", { role: "columnheader" }, time),
      names,
      own,
      h("span", { role: "columnheader" }, "Event"),
    );
    fill(list, h("div", { role: "rowgroup", class: "heads" }, row), body);
    body.before(...(above ? [newest()] : []));
    list.hidden = !body.childElementCount;
  }

  function newest() {
    const text = `${some(above, "row")} above ${above === 1 ? "is" : "are"} no longer in the page. `;
    return h("div", { role: "rowgroup", class: "above" }, h("div", { role: "row" }, h("span", { role: "gridcell" }, text, button("Back to the first rows", search, { class: "link" }))));
  }

  function showFoot() {
    const { searched: range, complete } = answer;
    const until = minuteTime(range.until, zone());
    if (next && complete) {
      fill(foot, button(`Load ${PAGE} more`, more), h("span", {}, ` ${some(seen, "row")} loaded, down to ${until}.`));
    } else if (next) {
      const done = h("strong", {}, `The search took its time limit and has read as far as ${until}. `);
      fill(foot, done, button("Go on from there", more));
    } else if (seen) {
      fill(foot, `All ${some(seen, "row")} of this range are loaded.`);
    } else fill(foot);
    foot.className = next && !complete ? "foot partial" : "foot";
    // Anew, so that an end that is still in sight is reported again.
    sentinel.disconnect();
    if (next && complete) sentinel.observe(foot);
  }

  // Scrolling to the end loads the next page; without scrolling, nothing loads by itself.
  const sentinel = new IntersectionObserver(
    (entries) => {
      const hasScrolled = scroller.scrollTop > 0 || scrollY > 0;
      if (hasScrolled && entries.some((entry) => entry.isIntersecting)) more();
    },
    { rootMargin: "0px 0px 300px 0px" },
  );

  function showEmpty() {
    const isEmpty = seen === 0 && !next;
    empty.hidden = !isEmpty;
    if (isEmpty) explainNothing(empty, answer);
  }

  // -- moving ----------------------------------------------------------------------------------

  function focused() {
    return body.querySelector('[tabindex="0"]');
  }

  function move(target) {
    if (!target || target.parentElement !== body) return;
    focused()?.setAttribute("tabindex", "-1");
    target.setAttribute("tabindex", "0");
    target.focus({ preventScroll: true });
    target.scrollIntoView({ block: "nearest" });
    if (state.event) open(target);
    if (target === body.lastElementChild) more();
  }

  function open(row) {
    change({ event: row.dataset.id, view: "" });
  }

  function select(mayScroll) {
    for (const row of body.querySelectorAll('[aria-selected="true"]')) row.setAttribute("aria-selected", "false");
    if (!state.event) return;
    const row = rows.get(state.event);
    row?.setAttribute("aria-selected", "true");
    if (row && mayScroll) row.scrollIntoView({ block: "nearest" });
  }

  function step(by) {
    const row = focused();
    if (!row) return;
    const isHere = row === document.activeElement || state.event;
    if (!isHere) return void move(row);
    move(by > 0 ? row.nextElementSibling : row.previousElementSibling);
  }

  list.addEventListener("keydown", (event) => {
    if (event.target.tagName === "BUTTON") return;
    const keys = {
      ArrowDown: () => step(1),
      ArrowUp: () => step(-1),
      Home: () => move(body.firstElementChild),
      End: () => move(body.lastElementChild),
      PageDown: () => jump(20),
      PageUp: () => jump(-20),
      Enter: () => focused() && open(focused()),
    };
    if (!keys[event.key] || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    keys[event.key]();
  });

  function jump(by) {
    const rows = [...body.children];
    const at = rows.indexOf(focused());
    move(rows[Math.max(0, Math.min(rows.length - 1, at + by))]);
  }

  list.addEventListener("click", (event) => {
    const row = event.target.closest(".rows > .row");
    if (!row || String(getSelection())) return;
    focused()?.setAttribute("tabindex", "-1");
    row.setAttribute("tabindex", "0");
    open(row);
  });

  addEventListener("search-again", search);

  return {
    begin: search,
    /** The rows of events in a range of milliseconds, as they stand in the list. */
    rowsBetween(start, end) {
      return [...body.children].filter((row) => {
        const at = new Date(eventOf(row).timestamp).getTime();
        return at >= start && at < end;
      });
    },
    /** Say of a row, at its place, what became of its event. */
    markGone(row, text) {
      row.classList.add("is-gone");
      row.querySelector(".fate")?.remove();
      const title = "The hour was stored anew, without this event";
      row.querySelector(".text").prepend(h("abbr", { class: "weight fate", title }, visible(text)));
    },
    step,
    openFocused: () => focused() && open(focused()),
    focusRow: () => focused()?.focus(),
    more,
    scroller,
    /** Rows of a live stream, the newest last; rows that the list has are replaced. */
    addLive(found) {
      if (!found.length) return;
      const columns = columnsOf(state);
      const isAtTop = scroller.scrollTop < 60;
      const fragment = document.createDocumentFragment();
      // A flood is not painted row by row.
      const isFew = found.length <= FEW_ROWS;
      for (const event of found) {
        const old = rows.get(event.id);
        const row = rowOf(event, columns);
        if (isFew) row.classList.add("is-new");
        if (old?.isConnected) old.replaceWith(row);
        else fragment.prepend(row);
      }
      body.prepend(fragment);
      if (body.childElementCount > MOST_ROWS) dropBelow();
      if (!focused()) body.firstElementChild.setAttribute("tabindex", "0");
      if (list.hidden || !body.isConnected) head();
      empty.hidden = true;
      if (isAtTop) scroller.scrollTop = 0;
    },
    changed(changed) {
      if (isSearch(changed)) search();
      else if (changed.includes("tz") || changed.includes("cols")) redraw();
      if (changed.includes("event")) select(true);
    },
  };

  function redraw() {
    const columns = columnsOf(state);
    const old = [...body.children].map(eventOf);
    body.replaceChildren(...old.map((event) => rowOf(event, columns)));
    body.firstElementChild?.setAttribute("tabindex", "0");
    if (answer) {
      head();
      showFoot();
    }
    select(false);
  }
}

/** "2025-12-04 10:00 → 11:00 UTC (1 hour)" */
export function rangeText(range) {
  const [from, to] = [range.from, range.to].map((text) => minuteTime(text, zone()));
  const length = new Date(range.to) - new Date(range.from);
  return `${from} → ${to} ${zone()} (${lengthText(length)})`;
}
