// The search in other forms: link, curl, SQL, Python, DuckDB, obs search, an alert rule, Markdown.

import { ask, pathOf } from "./api.js";
import { byId, copyText, fill, h, sized, some, toast } from "./dom.js";
import { summaryOf } from "./events.js";
import { eventOf } from "./list.js";
import { addressOf, searched, state } from "./state.js";
import { longTime } from "./times.js";

/** Rows of the list in Markdown. */
const MARKDOWN_ROWS = 50;

let last = null;
addEventListener("searched", (event) => {
  last = event.detail.searched;
});

/** The parameters with the absolute range of the last answer: a copy means the same tomorrow. */
function absolute() {
  const range = last ? { from: last.from, to: last.to } : {};
  return { ...searched(), ...range };
}

/** A text within single quotes of a POSIX shell. */
const shellQuoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

const KINDS = [
  ["link", "Link", () => addressOf({ ...state, ...absolute() })],
  ["curl", "curl", curl],
  ["SQL", "SQL for psql", sqlText],
  ["Python", "Python", python],
  ["DuckDB", "DuckDB on the archive", duckdb],
  ["command", "Command (obs search)", command],
  ["alert rule", "Alert rule from this search", alertRule],
  ["rows", "Markdown table of the rows", markdown],
];

function curl() {
  const address = shellQuoted(location.origin + pathOf("events", { ...absolute(), order: state.order, limit: 1000 }));
  // The shell reads the token when the command runs; it never stands in what is copied.
  return `curl --fail -H "Authorization: Bearer $OBS_TOKEN" ${address}`;
}

async function sqlText() {
  const found = await ask("explain", { ...absolute(), order: state.order });
  return found.psql ?? found.sql;
}

/** The search over the archive's objects of the range, for DuckDB on any machine. */
async function duckdb() {
  const { sql, hours, objects, bytes } = await ask("archive/sql", { ...absolute(), order: state.order });
  return `-- ${some(hours, "hour")} of the archive: ${some(objects, "object")}, ${sized(bytes)}.\n${sql}`;
}

/** A text within a comment: YAML ends a line at these signs too. */
const onOneLine = (text) => JSON.stringify(text).replace(/[\u0085\u2028\u2029]/g, " ");

/** The search as an alert rule, with the alerts that it would have sent over the range. */
async function alertRule() {
  const { q = "", from = "", to = "" } = absolute();
  const tried = await ask("rule", { q, from, to });
  const left = tried.left ? `; ${some(tried.left, "hour")} not tried: not built on the server's machine, or too many` : "";
  const notes = [
    `From the search ${onOneLine(q)}, tried on ${some(tried.hours, "hour")} from ${from} to ${to}${left}.`,
    `The alert would have fired in ${some(tried.firing.length, "hour")}, with ${some(tried.messages, "message")}.`,
    "Paste it below `rules:` of a webhook in the pipeline file (defs.yaml), then run: obs validate",
    "It fires above this number of events an hour; try another number with: obs backtest --rules FILE HOURS",
  ];
  return `${notes.map((note) => `# ${note}\n`).join("")}${tried.rule}`;
}

function python() {
  const parameters = JSON.stringify({ ...absolute(), order: state.order, limit: 1000 }, null, 4);
  return `import os

import requests

address = ${JSON.stringify(`${location.origin}/api/v1/events`)}
headers = {"Authorization": f"Bearer {os.environ.get('OBS_TOKEN', '')}"}
parameters = ${parameters}
events = []
while True:
    answer = requests.get(address, params=parameters, headers=headers, timeout=30)
    answer.raise_for_status()
    page = answer.json()
    events += page["events"]
    if not page["next"]:
        break
    parameters["cursor"] = page["next"]
print(len(events))
`;
}

function command() {
  const { q = "", from = "", to = "" } = absolute();
  const ends = [from && `--from ${from}`, to && `--to ${to}`].filter(Boolean).join(" ");
  const oldest = state.order === "oldest" ? " --oldest" : "";
  return `obs search ${shellQuoted(q)} ${ends}${oldest}`;
}

function markdown() {
  const rows = [...document.querySelectorAll(".rows > .row")].slice(0, MARKDOWN_ROWS).map(eventOf);
  const safe = (text) => text.replace(/[\\`*_{}[\]<>|#]/g, "\\$&");
  const line = (event) =>
    [longTime(event.timestamp, "UTC"), event.event_level ?? "", event.event_type ?? "", summaryOf(event).slice(0, 160)].map(safe).join(" | ");
  const head = ["time | level | type | event", "--- | --- | --- | ---"];
  const source = `[the search](${addressOf({ ...state, ...absolute() })})`;
  return [...head, ...rows.map(line)].map((text) => `| ${text} |`).concat("", source).join("\n");
}

export function setUpCopy() {
  const opener = byId("copy-button");
  const menu = byId("copy-menu");
  const items = KINDS.map(([what, name, make]) =>
    h("button", { type: "button", role: "menuitem", tabindex: "-1", onclick: () => take(what, make) }, name),
  );
  fill(menu, ...items);

  async function take(what, make) {
    close();
    try {
      await copyText(await make(), what);
    } catch (error) {
      toast(`No ${what}: ${error.message}`);
    }
  }

  function open() {
    menu.hidden = false;
    opener.setAttribute("aria-expanded", "true");
    items[0].focus();
  }

  function close() {
    menu.hidden = true;
    opener.setAttribute("aria-expanded", "false");
    opener.focus();
  }

  opener.addEventListener("click", () => (menu.hidden ? open() : close()));
  menu.addEventListener("keydown", (event) => {
    const at = items.indexOf(document.activeElement);
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: items.length - 1 }[event.key];
    if (to !== undefined) items[(to + items.length) % items.length].focus();
    else if (event.key === "Escape") close();
    else if (event.key === "Tab") close();
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
  document.addEventListener("pointerdown", (event) => {
    if (!menu.hidden && !menu.contains(event.target) && !opener.contains(event.target)) {
      menu.hidden = true;
      opener.setAttribute("aria-expanded", "false");
    }
  });
  return {};
}
