// Events over time: stacked bars, a drag or a click zooms, Back undoes; the same as a table.

import { ask, Latest } from "./api.js";
import { announce, button, byId, counted, fill, h, some, svg, visible } from "./dom.js";
import { LEVELS, noValue } from "./events.js";
import { rangeText } from "./list.js";
import { zone } from "./range.js";
import { change, isSearch, searched, state } from "./state.js";
import { axisTime, lengthText, minuteTime, rfc } from "./times.js";

const HEIGHT = 96;
const AXIS = 16;
const COLOURS = 10;

const FIELDS = [
  ["event_level", "level"],
  ["event_type", "type"],
  ["master_type", "master"],
  ["worker_type", "worker type"],
  ["source_name", "source"],
  ["", "nothing"],
];

export function setUpHistogram() {
  const place = byId("histogram");
  const latest = new Latest();
  const chart = h("div", { class: "chart" });
  const legend = h("ul", { class: "legend", "aria-label": "Colours" });
  const note = h("p", { class: "chart-note" });
  const tip = h("div", { class: "tip", hidden: true });
  const table = h("div", { class: "chart-table", hidden: true });
  const select = h("select", { "aria-label": "Divide bars by", onchange: () => change({ by: select.value }) });
  const unit = h(
    "select",
    {
      "aria-label": "Count",
      title: "Rows are stored. A row can stand for several events, because others like it were sampled out.",
      onchange: () => change({ count: unit.value }),
    },
    h("option", { value: "events" }, "events"),
    h("option", { value: "rows" }, "rows"),
  );
  const asTable = button("Table", toTable, { class: "link", "aria-pressed": "false" });
  fill(
    place,
    h("div", { class: "chart-head" }, legend, h("span", { class: "chart-tools" }, h("label", {}, "Count ", unit), h("label", {}, "by ", select), asTable)),
    chart,
    note,
    tip,
    table,
  );
  let answer = null;
  let width = 0;

  function search() {
    const parameters = { ...searched(), tz: zone() };
    if (state.by) parameters.by = state.by;
    latest.run((signal) => ask("histogram", parameters, { signal }), {
      started: () => {
        place.setAttribute("aria-busy", "true");
        if (!answer) fill(chart, h("p", { class: "wait" }, "Counting…"));
      },
      done: (found) => {
        place.removeAttribute("aria-busy");
        place.classList.remove("is-stale");
        answer = found;
        draw();
        dispatchEvent(new CustomEvent("counted", { detail: found }));
      },
      failed: (error) => {
        place.removeAttribute("aria-busy");
        place.classList.add("is-stale");
        // A mistake in the query is shown at the query.
        if (!answer) fill(chart);
        const text = error.parameter === "q" ? "" : `The bars could not be counted: ${error.message}. `;
        fill(note, text, text ? button("Count again", search, { class: "link" }) : null);
        dispatchEvent(new CustomEvent("counted", { detail: null }));
      },
    });
  }

  // -- drawing ---------------------------------------------------------------------------------

  function draw() {
    controls();
    width = Math.max(200, chart.clientWidth);
    const groups = groupsOf(answer, state.by);
    const most = Math.max(1, ...answer.bars.map(amount));
    const drawing = svg("svg", { viewBox: `0 0 ${width} ${HEIGHT + AXIS}`, height: HEIGHT + AXIS, role: "img", "aria-label": label() });
    drawing.append(...axis(most), ...answer.bars.flatMap((bar) => barOf(bar, groups, most)));
    drawing.append(...unsearched());
    fill(chart, drawing);
    fill(legend, ...groups.map(([key, colour], i) => h("li", {}, h("i", { class: `swatch ${colour}` }), nameOf(groups[i][2], key))));
    legend.hidden = !state.by;
    drag(drawing);
    if (!table.hidden) fillTable();
    const until = minuteTime(answer.searched.until, zone());
    fill(note, answer.complete ? null : `Counted as far as ${until}: the time limit ended the count. The grey part was not counted.`);
  }

  function controls() {
    unit.value = state.count === "rows" ? "rows" : "events";
    const known = FIELDS.some(([field]) => field === state.by);
    const fields = known ? FIELDS : [...FIELDS, [state.by, state.by]];
    fill(select, ...fields.map(([field, name]) => h("option", { value: field, selected: field === state.by }, name)));
  }

  function label() {
    return `${some(answer.rows, "row")}, standing for about ${counted(answer.events_estimated)} events, ${rangeText(answer.searched)}. The table has the same figures.`;
  }

  const amount = (part) => (state.count === "rows" ? part.rows : part.events);
  const begin = () => new Date(answer.searched.from).getTime();
  const end = () => new Date(answer.searched.to).getTime();
  const xOf = (time) => ((new Date(time).getTime() - begin()) / (end() - begin() || 1)) * width;

  function barOf(bar, groups, most) {
    const left = xOf(bar.start);
    const gap = xOf(bar.end) - left > 4 ? 1 : 0;
    const across = Math.max(1, xOf(bar.end) - left - gap);
    const parts = state.by ? bar.groups : [{ ...bar, value: null, is_other: false }];
    let top = HEIGHT;
    return groups.flatMap(([key, colour]) => {
      const part = parts.find((each) => keyOf(each) === key);
      if (!part || !part.rows) return [];
      const height = Math.max(1, (amount(part) / most) * (HEIGHT - 12));
      top -= height;
      return [svg("rect", { class: colour, x: left, y: top, width: across, height })];
    });
  }

  function axis(most) {
    const ticks = Math.max(2, Math.floor(width / 110));
    const every = Math.max(1, Math.ceil(answer.bars.length / ticks));
    const marked = answer.bars.filter((_, i) => i > 0 && i % every === 0);
    const texts = marked.map((bar) =>
      svg("text", { x: xOf(bar.start), y: HEIGHT + AXIS - 3, "text-anchor": "middle" }, axisTime(bar.start, zone(), answer.step_s * 1000)),
    );
    const line = svg("line", { x1: 0, x2: width, y1: HEIGHT + 0.5, y2: HEIGHT + 0.5 });
    const height = svg("text", { x: 2, y: 9 }, `${counted(most)} ${state.count === "rows" ? "rows" : "events"} / ${stepText()}`);
    const nothing = svg("text", { x: width / 2, y: HEIGHT / 2, "text-anchor": "middle" }, "no event in this range matches");
    return [line, ...texts, answer.rows ? height : nothing];
  }

  const stepText = () => lengthText(answer.step_s * 1000).replace(/^1 /, "");

  function unsearched() {
    if (answer.complete) return [];
    return [svg("rect", { class: "unsearched", x: 0, y: 0, width: Math.max(0, xOf(answer.searched.until)), height: HEIGHT })];
  }

  // -- pointing --------------------------------------------------------------------------------

  function barAt(x) {
    return answer.bars.find((bar) => xOf(bar.end) > x) ?? answer.bars.at(-1);
  }

  function drag(drawing) {
    const chosen = svg("rect", { class: "chosen", y: 0, height: HEIGHT, visibility: "hidden" });
    drawing.append(chosen);
    let from = null;
    const place = (event) => {
      const box = drawing.getBoundingClientRect();
      return Math.max(0, Math.min(width, ((event.clientX - box.left) / box.width) * width));
    };
    function mark(a, b) {
      const [first, last] = [barAt(Math.min(a, b)), barAt(Math.max(a, b))];
      chosen.setAttribute("x", xOf(first.start));
      chosen.setAttribute("width", xOf(last.end) - xOf(first.start));
      chosen.setAttribute("visibility", "visible");
      return [first.start, last.end];
    }
    drawing.addEventListener("pointerdown", (event) => {
      if (event.button) return;
      from = place(event);
      drawing.setPointerCapture(event.pointerId);
      mark(from, from);
    });
    drawing.addEventListener("pointermove", (event) => {
      const x = place(event);
      if (from !== null) mark(from, x);
      showTip(barAt(x), x);
    });
    drawing.addEventListener("pointerup", (event) => {
      if (from === null) return;
      zoom(...mark(from, place(event)));
      from = null;
    });
    drawing.addEventListener("pointercancel", stop);
    drawing.addEventListener("pointerleave", () => {
      tip.hidden = true;
    });
    addEventListener("keydown", (event) => {
      if (event.key === "Escape" && from !== null) stop();
    });
    function stop() {
      from = null;
      chosen.setAttribute("visibility", "hidden");
    }
  }

  function zoom(start, stop) {
    tip.hidden = true;
    change({ from: rfc(new Date(start).getTime()), to: rfc(new Date(stop).getTime()), event: "" });
    announce("Zoomed; Back undoes it");
  }

  function showTip(bar, x) {
    const groups = groupsOf(answer, state.by);
    const parts = groups
      .map(([key, colour, other]) => [bar.groups.find((each) => keyOf(each) === key), colour, nameOf(other, key)])
      .filter(([part]) => part?.rows);
    fill(
      tip,
      h("b", {}, `${minuteTime(bar.start, zone())} → ${minuteTime(bar.end, zone()).slice(11)}`),
      h("p", {}, both(bar)),
      state.by ? h("ul", {}, parts.toReversed().map(([part, colour, name]) => h("li", {}, h("i", { class: `swatch ${colour}` }), `${name}: ${both(part)}`))) : null,
    );
    tip.hidden = false;
    const left = Math.min(Math.max(0, x + 14), width - tip.offsetWidth);
    tip.style.left = `${left}px`;
  }

  // -- the same as a table ---------------------------------------------------------------------

  function toTable() {
    table.hidden = !table.hidden;
    asTable.setAttribute("aria-pressed", String(!table.hidden));
    if (!table.hidden && answer) fillTable();
  }

  function fillTable() {
    const groups = state.by ? groupsOf(answer, state.by) : [];
    const heads = ["Start", "Rows", "Events (estimated)", ...groups.map(([key, , other]) => nameOf(other, key)), "Zoom"];
    const rows = answer.bars.filter((bar) => bar.rows).map((bar) =>
      h(
        "tr",
        {},
        h("th", { scope: "row" }, minuteTime(bar.start, zone())),
        h("td", {}, counted(bar.rows)),
        h("td", {}, counted(bar.events)),
        groups.map(([key]) => h("td", {}, counted(bar.groups.find((each) => keyOf(each) === key)?.rows ?? 0))),
        h("td", { class: "text" }, button("Zoom", () => zoom(bar.start, bar.end), { class: "link", "aria-label": `Zoom to ${minuteTime(bar.start, zone())}` })),
      ),
    );
    const empty = answer.bars.length - rows.length;
    const caption = `Bars of ${lengthText(answer.step_s * 1000)}, ${zone()}; columns of values count rows. ${empty ? `${some(empty, "bar")} without rows left out.` : ""}`;
    fill(table, h("table", {}, h("caption", {}, caption), h("thead", {}, h("tr", {}, heads.map((text) => h("th", { scope: "col" }, text)))), h("tbody", {}, rows)));
  }

  let drawn = 0;
  new ResizeObserver(() => {
    if (!answer || chart.clientWidth === width) return;
    cancelAnimationFrame(drawn);
    drawn = requestAnimationFrame(draw);
  }).observe(chart);

  addEventListener("search-again", search);
  addEventListener("stored", search);

  return {
    begin() {
      controls();
      search();
    },
    changed(changed) {
      if (isSearch(changed.filter((name) => name !== "order")) || changed.includes("by") || changed.includes("tz")) search();
      else if (changed.includes("count") && answer) draw();
    },
  };
}

/** Rows, and the events they stand for, where these differ. */
export function both({ rows, events }) {
  const estimated = counted(events);
  return counted(rows) === estimated ? some(rows, "row") : `${some(rows, "row")} for about ${estimated} events`;
}

const keyOf = (group) => (group.is_other ? "\u0000other" : group.value ?? "\u0000none");

function nameOf(kind, key) {
  if (kind === "other") return "others";
  if (kind === "none") return noValue(state.by);
  return visible(key.length > 40 ? `${key.slice(0, 40)}…` : key);
}

/** [key, CSS class, kind] of the values of all bars, from the bottom of a bar on. */
function groupsOf(answer, by) {
  if (!by) return [["\u0000none", "fill-all", "none"]];
  const totals = new Map();
  for (const bar of answer.bars) {
    for (const group of bar.groups) totals.set(keyOf(group), (totals.get(keyOf(group)) ?? 0) + group.rows);
  }
  const keys = [...totals.keys()].sort((a, b) => totals.get(b) - totals.get(a));
  if (by === "event_level" || by === "level") keys.sort((a, b) => rank(a) - rank(b));
  return keys.map((key, i) => [key, colourOf(key, i, by), kindOf(key)]);
}

const rank = (level) => (LEVELS.includes(level) ? LEVELS.indexOf(level) : LEVELS.length);

function kindOf(key) {
  if (key === "\u0000other") return "other";
  return key === "\u0000none" ? "none" : "value";
}

function colourOf(key, index, by) {
  if (key.startsWith("\u0000")) return "fill-rest";
  if (by === "event_level" || by === "level") return LEVELS.includes(key) ? `fill-${key}` : "fill-rest";
  return `fill-${index % COLOURS}`;
}

