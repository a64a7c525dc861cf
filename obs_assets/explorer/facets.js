// The most frequent values of fields; a click adds a value to the query, or its opposite.

import { ask, Latest } from "./api.js";
import { button, byId, counted, cut, fill, h, visible } from "./dom.js";
import { filter } from "./details.js";
import { noValue, SHORT_NAMES } from "./events.js";
import { hasTerm, opposite, parse, termOf } from "./language.js";
import { change, isSearch, searched, state } from "./state.js";

const FIRST = ["event_level", "event_type", "master_type", "source_name"];
const MOST_VALUES = 8;

export function setUpFacets() {
  const place = byId("facets");
  const latest = new Latest();
  const box = h("div", { class: "facet-list" });
  const status = h("p", { class: "facet-status" });
  const more = h("select", { "aria-label": "Show values of another field", onchange: add, hidden: true });
  const whole = h("details", { class: "facets-whole" }, h("summary", {}, h("h2", {}, "Values")), status, box, h("p", { class: "facet-more" }, more));
  whole.open = !matchMedia("(max-width: 760px)").matches;
  fill(place, whole);
  let known = null;

  const fields = () => [...FIRST, ...state.facets.split(",").filter(Boolean)].slice(0, 20);

  function search() {
    if (!whole.open) return;
    const parameters = { ...searched(), field: fields(), limit: MOST_VALUES };
    latest.run((signal) => ask("facets", parameters, { signal }), {
      started: () => {
        place.setAttribute("aria-busy", "true");
        if (!box.childElementCount) fill(status, "Counting…");
      },
      done: (answer) => {
        place.removeAttribute("aria-busy");
        place.classList.remove("is-stale");
        const found = answer.facets.filter((facet) => facet.values.length);
        fill(status, found.length ? null : "No event matches, so there are no values.");
        fill(box, ...found.map(facetOf));
        choices();
      },
      failed: (error) => {
        place.removeAttribute("aria-busy");
        place.classList.add("is-stale");
        const text = error.parameter === "q" ? "" : "No values now. ";
        fill(status, text, text ? button("Ask again", search, { class: "link" }) : null);
      },
    });
  }

  function facetOf(facet) {
    const most = Math.max(1, ...facet.values.map(({ rows }) => rows));
    const name = SHORT_NAMES[facet.field] ?? facet.field;
    const isOwn = !FIRST.includes(facet.field);
    const remove = isOwn ? button("×", () => change({ facets: without(facet.field) }), { class: "link", "aria-label": `Remove the values of ${name}` }) : null;
    const how = h("small", { class: facet.is_exact ? "exact" : "sampled", title: `${facet.how}, ${facet.took_ms} ms` }, facet.is_exact ? "" : facet.how);
    const distinct = facet.distinct > facet.values.length ? h("p", { class: "facet-rest" }, `${counted(facet.distinct)} values in all`) : null;
    const rows = facet.values.map((value) => valueOf(name, value, most));
    return h("section", { class: "facet" }, h("h3", {}, visible(name), how, remove), h("ul", {}, rows), distinct);
  }

  function valueOf(name, { value, rows, events }, most) {
    const [has, hasNot] = chosen(name, value);
    const text = value === null ? noValue(name) : visible(cut(value || "(empty)", 60));
    const count = counted(rows) === counted(events) ? counted(rows) : `${counted(rows)} rows for about ${counted(events)}`;
    const bar = h("i", { class: "facet-bar" });
    bar.style.width = `${(rows / most) * 100}%`;
    const only = button("", () => filter(name, value), {
      class: "facet-value",
      "aria-pressed": String(has),
      title: `${count} events. Click: only these`,
    });
    fill(only, bar, h("span", { class: value === null ? "none" : "" }, text), h("small", {}, counted(rows)));
    const not = button("≠", () => filter(name, value, false), {
      class: "facet-not",
      "aria-pressed": String(hasNot),
      "aria-label": `Without ${name} ${text}`,
      title: "Without these",
    });
    return h("li", {}, only, not);
  }

  function chosen(name, value) {
    try {
      const query = parse(state.q);
      const term = termOf(name, value);
      return [hasTerm(query, term), hasTerm(query, opposite(term))];
    } catch {
      return [false, false];
    }
  }

  const without = (field) => state.facets.split(",").filter((each) => each && each !== field).join(",");

  function add() {
    if (more.value) change({ facets: [...state.facets.split(",").filter(Boolean), more.value].join(",") });
  }

  /** Fields that events have, for the choice of another one. */
  async function choices() {
    if (known === null) {
      known = [];
      const answer = await ask("fields", searched()).catch(() => ({ fields: [] }));
      known = answer.fields.map(({ name }) => name);
    }
    const shown = new Set([...fields(), "row_uid", "timestamp", "data"]);
    const left = known.filter((name) => !shown.has(name) && !name.includes(","));
    const names = left.map((name) => h("option", { value: name }, visible(cut(name, 60))));
    fill(more, h("option", { value: "" }, "Another field…"), ...names);
    more.hidden = !left.length;
  }

  whole.addEventListener("toggle", () => whole.open && !box.childElementCount && search());
  addEventListener("search-again", search);
  addEventListener("stored", search);

  return {
    begin: search,
    changed(changed) {
      const isNew = isSearch(changed.filter((name) => name !== "order"));
      if (isNew) known = null;
      if (isNew || changed.includes("facets")) search();
    },
  };
}
