// The page's state is its address: whoever opens the address sees the same page.

/** Name of a parameter → its value where the address has none. */
const DEFAULTS = {
  q: "",
  from: "",
  to: "",
  order: "newest",
  by: "event_level",
  tz: "UTC",
  count: "events",
  cols: "",
  facets: "",
  event: "",
  view: "",
  same: "",
  find: "",
  offset: "",
  live: "",
};

/** Parameters that choose the events; with another value the page asks the server again. */
const SEARCH = ["q", "from", "to", "order"];

const listeners = [];

/** The present state. */
export let state = read();

function read() {
  const parameters = new URLSearchParams(location.search);
  const found = {};
  for (const [name, otherwise] of Object.entries(DEFAULTS)) {
    found[name] = parameters.get(name) ?? otherwise;
  }
  return found;
}

/** The address of a state, absolute. */
export function addressOf(some) {
  const parameters = new URLSearchParams();
  for (const [name, otherwise] of Object.entries(DEFAULTS)) {
    if (some[name] !== otherwise) parameters.set(name, some[name]);
  }
  const text = parameters.toString();
  // Blanks and colons are readable in an address.
  const readable = text.replaceAll("%3A", ":").replaceAll("%2C", ",").replaceAll("%28", "(").replaceAll("%29", ")");
  return `${location.origin}${location.pathname}${readable ? `?${readable}` : ""}`;
}

/**
 * Change the state.
 *
 * A change of the search is a step that Back undoes; a change of what is looked at replaces the address.
 */
export function change(changes, { isStep = false } = {}) {
  const before = state;
  state = { ...state, ...changes };
  const changed = Object.keys(DEFAULTS).filter((name) => before[name] !== state[name]);
  if (!changed.length) return;
  const isSearch = changed.some((name) => SEARCH.includes(name));
  if (isSearch || isStep) history.pushState(null, "", addressOf(state));
  else history.replaceState(null, "", addressOf(state));
  tell(changed);
}

/** Call `listener(changed names)` after each change. */
export function onChange(listener) {
  listeners.push(listener);
}

function tell(changed) {
  for (const listener of listeners) listener(changed);
}

addEventListener("popstate", () => {
  const before = state;
  state = read();
  tell(Object.keys(DEFAULTS).filter((name) => before[name] !== state[name]));
});

/** Whether a change needs new events. */
export const isSearch = (changed) => changed.some((name) => SEARCH.includes(name));

/** The parameters of a question about the range and query of the page. */
export function searched(some = state) {
  const parameters = {};
  for (const name of ["q", "from", "to"]) {
    if (some[name]) parameters[name] = some[name];
  }
  return parameters;
}
