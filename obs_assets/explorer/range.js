// The range of time: presets, typed moments, the zone of all times on the page.

import { button, byId, fill, h } from "./dom.js";
import { change, state } from "./state.js";
import { isDistance, knownZone, localZone, minuteTime, momentOf, parameterOf } from "./times.js";

const PRESETS = [
  ["15 minutes", "now-15m"],
  ["1 hour", "now-1h"],
  ["6 hours", "now-6h"],
  ["1 day", "now-1d"],
  ["7 days", "now-7d"],
  ["30 days", "now-30d"],
];

/** The zone of the page's times. */
export const zone = () => knownZone(state.tz);

function buttonText() {
  if (!state.from && !state.to) return "Last day with events";
  const preset = PRESETS.find(([, from]) => from === state.from);
  if (preset && !state.to) return `Last ${preset[0]}`;
  const from = state.from ? endText(state.from) : "a day before";
  return `${from} → ${state.to ? endText(state.to) : "newest"}`;
}

function endText(text) {
  if (isDistance(text)) return text;
  const ms = momentOf(text, "UTC");
  return ms === null ? text : minuteTime(ms, zone());
}

function typedText(text) {
  return text && !isDistance(text) ? endText(text) : text;
}

export function setUpRange() {
  const opener = byId("range-button");
  const panel = byId("range-panel");
  const from = h("input", { id: "from", type: "text", spellcheck: "false", placeholder: "now-6h, 2025-12-04 10:00" });
  const to = h("input", { id: "to", type: "text", spellcheck: "false", placeholder: "empty: the newest event" });
  const problem = h("p", { class: "field-problem", role: "alert" });
  const where = h("small", {});
  const presets = [["Last day with events", ""], ...PRESETS.map(([name, value]) => [`Last ${name}`, value])];

  fill(
    panel,
    h("div", { class: "presets" }, presets.map(([name, value]) => button(name, () => set(value, "")))),
    h(
      "div",
      { class: "typed" },
      h("label", { for: "from" }, "From"),
      from,
      h("label", { for: "to" }, "To (not in the range)"),
      to,
      problem,
      where,
      button("Use this range", apply, { class: "primary" }),
    ),
  );

  opener.addEventListener("click", () => (panel.hidden ? open() : close()));
  panel.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && event.target.tagName === "INPUT") {
      event.preventDefault();
      apply();
    }
    if (event.key === "Escape") {
      event.stopPropagation();
      close();
      opener.focus();
    }
  });
  document.addEventListener("pointerdown", (event) => {
    if (!panel.hidden && !panel.contains(event.target) && !opener.contains(event.target)) close();
  });

  function open() {
    from.value = typedText(state.from);
    to.value = typedText(state.to);
    problem.textContent = "";
    where.textContent = `Times without an offset are in ${zone()}.`;
    panel.hidden = false;
    opener.setAttribute("aria-expanded", "true");
    from.focus();
    from.select();
  }

  function close() {
    panel.hidden = true;
    opener.setAttribute("aria-expanded", "false");
  }

  function apply() {
    const values = [from, to].map((field) => parameterOf(field.value, zone()));
    const wrong = [from, to].find((_, index) => values[index] === null);
    if (wrong) {
      problem.textContent = `“${wrong.value}” is no moment: write now-6h (s, m, h, d, w), 2025-12-04 or 2025-12-04 10:00`;
      wrong.focus();
      return;
    }
    const [start, end] = values.map((value) => (value ? momentOf(value, "UTC") : null));
    if (start !== null && end !== null && start >= end) {
      problem.textContent = "The start is not before the end.";
      from.focus();
      return;
    }
    set(...values);
  }

  function set(start, end) {
    close();
    opener.focus();
    change({ from: start, to: end, event: "" });
  }

  const select = byId("zone");
  select.addEventListener("change", () => change({ tz: select.value }));

  function show() {
    opener.textContent = buttonText();
    const common = ["UTC", localZone(), zone()];
    const others = Intl.supportedValuesOf?.("timeZone") ?? [];
    const names = [...new Set([...common, ...others])];
    // The long list is made when somebody opens it.
    if (!select.options.length) fill(select, ...[...new Set(common)].map((name) => h("option", {}, name)));
    if (![...select.options].some((option) => option.value === zone())) select.append(h("option", {}, zone()));
    select.value = zone();
    select.addEventListener(
      "pointerdown",
      () => {
        fill(select, ...names.map((name) => h("option", {}, name)));
        select.value = zone();
      },
      { once: true },
    );
    select.addEventListener("focus", () => select.dispatchEvent(new Event("pointerdown")), { once: true });
  }

  return {
    begin: show,
    changed(changed) {
      if (changed.some((name) => ["from", "to", "tz"].includes(name))) show();
    },
  };
}
