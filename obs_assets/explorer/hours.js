// The trust strip: what is stored of each hour, with its receipt; where the events of a range went.

import { ask, Latest } from "./api.js";
import { button, byId, capital, counted, fill, h, some, svg } from "./dom.js";
import { facts } from "./facts.js";
import { zone } from "./range.js";
import { change, isSearch, searched } from "./state.js";
import { agoText, minuteTime } from "./times.js";

const HEIGHT = 10;

/** Above this number of hours, a block is a day. */
const MOST_BLOCKS = 240;

/** State → [its meaning, its height in the strip]; the gravest first, which a day takes. */
const STATES = {
  missing: ["has landed and is not stored", HEIGHT],
  stale: ["events came since it was stored; it will be replaced", HEIGHT],
  open: ["events may still come", 4],
  expired: ["retention dropped it", 4],
  settled: ["the table has what has landed", HEIGHT],
  empty: ["no event has landed", 1],
};

export function setUpHours() {
  const place = byId("trust");
  const latest = new Latest();
  const strip = h("div", { class: "strip" });
  const legend = h("ul", { class: "legend", "aria-label": "States of the hours" });
  const problem = h("p", { class: "facet-status" });
  const panel = h("div", { class: "receipt", hidden: true });
  const toggle = button("Hours", toTable, { class: "link", "aria-pressed": "false" });
  const table = h("div", { class: "chart-table", hidden: true });
  fill(place, strip, h("div", { class: "chart-head" }, legend, problem, h("span", { class: "chart-tools" }, toggle)), panel, table);
  let answer = null;

  function search() {
    const { from, to } = searched();
    const parameters = Object.fromEntries(Object.entries({ from, to }).filter(([, value]) => value));
    latest.run((signal) => ask("hours", parameters, { signal }), {
      done: (found) => {
        answer = found;
        place.classList.remove("is-stale");
        fill(problem);
        draw();
      },
      failed: (error) => {
        place.classList.add("is-stale");
        place.hidden = false;
        fill(problem, "The state of the hours is not known now. ", button("Ask again", search, { class: "link" }));
      },
    });
  }

  function draw() {
    const width = Math.max(200, strip.clientWidth);
    const begin = new Date(answer.searched.from).getTime();
    const end = new Date(answer.searched.to).getTime();
    const xOf = (time) => Math.max(0, Math.min(width, ((new Date(time).getTime() - begin) / (end - begin || 1)) * width));
    const blocks = blocksOf(answer.hours);
    const drawing = svg("svg", { viewBox: `0 0 ${width} ${HEIGHT + 1}`, height: HEIGHT + 1, role: "img", "aria-label": textOf(answer.hours) });
    for (const block of blocks) {
      const left = xOf(block.start);
      const across = Math.max(1, xOf(block.end) - left - 1);
      const tall = STATES[block.state][1];
      const rect = svg("rect", { class: `state-${block.state}`, x: left, y: HEIGHT - tall, width: across, height: tall, rx: 1 });
      rect.append(svg("title", {}, titleOf(block)));
      drawing.append(rect);
      if (block.replaced) drawing.append(svg("circle", { class: "replaced", cx: left + across / 2, cy: 3, r: 2 }));
    }
    drawing.addEventListener("click", (event) => {
      const box = drawing.getBoundingClientRect();
      const x = ((event.clientX - box.left) / box.width) * width;
      const block = blocks.find((each) => xOf(each.end) >= x);
      if (block?.hour) showReceipt(block.hour);
      else if (block) change({ from: block.start, to: block.end, event: "" });
    });
    fill(strip, drawing);
    const counts = countsOf(answer.hours);
    const replaced = answer.hours.filter((hour) => hour.is_replaced).length;
    fill(
      legend,
      Object.entries(counts).map(([name, count]) =>
        h("li", { title: STATES[name][0] }, h("i", { class: `swatch state-${name}` }), `${counted(count)} ${name}`),
      ),
      replaced ? h("li", { title: "These hours were stored again with other contents" }, h("i", { class: "swatch round" }), `${counted(replaced)} replaced`) : null,
    );
    place.hidden = false;
    panel.hidden = true;
    if (!table.hidden) fillTable();
  }

  function toTable() {
    table.hidden = !table.hidden;
    toggle.setAttribute("aria-pressed", String(!table.hidden));
    if (!table.hidden && answer) fillTable();
  }

  function fillTable() {
    const rows = answer.hours.filter((hour) => hour.state !== "empty").toReversed().slice(0, 500).map((hour) =>
      h(
        "tr",
        {},
        h("th", { scope: "row" }, minuteTime(hour.start, zone())),
        h("td", { class: "text" }, hour.state),
        h("td", {}, counted(hour.landed)),
        h("td", {}, hour.rows === null ? "–" : counted(hour.rows)),
        h("td", { class: "text" }, hour.loaded_at ? agoText(hour.loaded_at) : "–"),
        h("td", { class: "text" }, button("Receipt", () => showReceipt(hour), { class: "link", "aria-label": `Receipt of ${hour.partition}` })),
      ),
    );
    const heads = [["Hour"], ["State", "text"], ["Events landed"], ["Rows stored"], ["Stored", "text"], ["Receipt", "text"]];
    const caption = `Hours of the range that have events, ${zone()}, the newest first`;
    fill(table, h("table", { class: "narrow-table" }, h("caption", {}, caption), h("thead", {}, h("tr", {}, heads.map(([text, kind]) => h("th", { scope: "col", class: kind }, text)))), h("tbody", {}, rows)));
  }

  async function showReceipt(hour) {
    const { dagster } = await facts();
    const link = dagster ? h("a", { href: dagster.replace("{hour}", encodeURIComponent(hour.partition)), target: "_blank", rel: "noreferrer" }, "Partition in Dagster") : null;
    const only = button("Only this hour", () => change({ from: hour.start, to: hour.end, event: "" }));
    const close = button("×", () => { panel.hidden = true; }, { class: "close", "aria-label": "Close the receipt" });
    fill(
      panel,
      h("div", { class: "receipt-head" }, h("h2", {}, `Hour ${hour.partition}`), h("span", { class: `state-name state-${hour.state}` }, hour.state), h("span", {}, STATES[hour.state][0]), close),
      h("p", {}, factsOf(hour).join(" · ")),
      stagesOf(hour),
      h("p", { class: "actions" }, only, link),
    );
    panel.hidden = false;
    panel.scrollIntoView({ block: "nearest" });
  }

  let drawn = 0;
  let width = 0;
  new ResizeObserver(() => {
    if (!answer || strip.clientWidth === width) return;
    width = strip.clientWidth;
    cancelAnimationFrame(drawn);
    drawn = requestAnimationFrame(draw);
  }).observe(strip);

  addEventListener("search-again", search);
  addEventListener("stored", search);

  return {
    begin: search,
    changed(changed) {
      if (isSearch(changed.filter((name) => name === "from" || name === "to"))) search();
      else if (changed.includes("tz") && answer) draw();
    },
  };
}

/** Facts of an hour as short texts. */
export function factsOf(hour) {
  const parts = [some(hour.landed, "event") + " landed"];
  if (hour.rows !== null) parts.push(`${some(hour.rows, "row")} stored`);
  if (hour.loaded_at) parts.push(`${hour.is_replaced ? "replaced" : "stored"} ${agoText(hour.loaded_at)} (${minuteTime(hour.loaded_at, zone())} ${zone()})`);
  if (hour.generation !== null) parts.push(`landing generation ${hour.generation}`);
  if (hour.content_hash) parts.push(`content ${hour.content_hash}`);
  if (hour.is_archived === true) parts.push("the archive has it");
  if (hour.is_archived === false) parts.push("the archive does not have it");
  return parts;
}

/** The counts of each stage; they must add up. */
function stagesOf(hour) {
  if (!hour.stages.length) return h("p", {}, "No receipt is stored with this hour.");
  const rows = hour.stages.map(({ stage, taken, kept, dropped }) => {
    const reasons = Object.entries(dropped);
    const sum = kept + reasons.reduce((total, [, count]) => total + count, 0);
    const text = reasons.map(([reason, count]) => `${words(reason)} ${counted(count)}`).join(", ");
    return h("tr", {}, h("th", { scope: "row" }, stage), h("td", {}, counted(taken)), h("td", {}, counted(kept)), h("td", { class: "reasons text" }, text || "–"), h("td", { class: "text" }, sum === taken ? "✓ adds up" : `differs by ${counted(taken - sum)}`));
  });
  const heads = ["Stage", "Taken", "Kept", "Dropped", "Check"].map((text, i) => h("th", { scope: "col", class: i > 2 ? "text" : null }, text));
  return h("table", { class: "narrow-table" }, h("thead", {}, h("tr", {}, heads)), h("tbody", {}, rows));
}

/** A block for each hour, or for each day of a long range. */
function blocksOf(hours) {
  if (hours.length <= MOST_BLOCKS) return hours.map((hour) => ({ ...hour, hour, replaced: hour.is_replaced }));
  const days = new Map();
  for (const hour of hours) {
    const day = hour.start.slice(0, 10);
    days.set(day, [...(days.get(day) ?? []), hour]);
  }
  return [...days.values()].map((some) => ({
    start: some[0].start,
    end: some.at(-1).end,
    state: Object.keys(STATES).find((name) => some.some((hour) => hour.state === name)),
    replaced: some.some((hour) => hour.is_replaced),
    landed: some.reduce((total, hour) => total + hour.landed, 0),
    rows: some.reduce((total, hour) => total + (hour.rows ?? 0), 0),
  }));
}

function titleOf(block) {
  const rows = block.rows === null ? "" : `, ${some(block.rows, "row")}`;
  return `${minuteTime(block.start, zone())}: ${block.state}, ${counted(block.landed)} landed${rows}${block.replaced ? ", replaced" : ""}`;
}

function countsOf(hours) {
  const counts = {};
  for (const name of Object.keys(STATES)) {
    const count = hours.filter((hour) => hour.state === name).length;
    if (count) counts[name] = count;
  }
  return counts;
}

function textOf(hours) {
  const counts = Object.entries(countsOf(hours)).map(([name, count]) => `${count} ${name}`);
  return `${some(hours.length, "hour")}: ${counts.join(", ")}. The button Hours lists them.`;
}

/** Where the events of a range went, from receipts: landed, dropped by reason, waiting, stored, matching. */
export function whyPanel(why) {
  const dropped = Object.entries(why.dropped).map(([reason, count]) => [words(reason), count]);
  const dead = Object.entries(why.dead_letters).map(([reason, count]) => [`dead letters: ${words(reason)}`, count]);
  const rows = [
    ["events landed", why.landed],
    ...dropped,
    ...dead,
    ...(why.waiting ? [["not stored yet", why.waiting]] : []),
    ["rows stored", why.stored],
    ["rows that match the query", why.matching_rows],
  ];
  const most = Math.max(1, ...rows.map(([, count]) => count));
  const items = rows.map(([name, count]) => {
    const bar = h("i", { class: "facet-bar" });
    bar.style.width = `${(count / most) * 100}%`;
    return h("li", {}, bar, h("span", {}, name), h("b", {}, counted(count)));
  });
  const note = "Counts are of whole hours.";
  const sentence = capital(why.sentence.replace(/[a-z_]+:\w+/g, words));
  return [h("h3", {}, "Where the events of these hours went"), h("p", { class: "sentence" }, `${sentence}.`), h("ul", { class: "stages-list" }, items), h("small", {}, note)];
}

/** A place and its detail in words: "filtered:low_value" → "filtered (low value)". */
export function words(reason) {
  const [kind, ...detail] = reason.split(":");
  const name = kind.replaceAll("_", " ");
  return detail.length ? `${name} (${detail.join(":").replaceAll("_", " ")})` : name;
}

/** What is known of the hour in which an event of a link was. */
export async function hourOf(ms) {
  const start = new Date(ms - (ms % 36e5));
  const end = new Date(start.getTime() + 36e5);
  const { hours } = await ask("hours", { from: start.toISOString(), to: end.toISOString() });
  return hours[0] ?? null;
}


