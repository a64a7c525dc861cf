// Facts about the server: the environment in the head, saved searches, links to Dagster.

import { ask } from "./api.js";
import { byId, fill, h } from "./dom.js";
import { addressOf, change, state } from "./state.js";

const NONE = { environment: "", dagster: null, searches: [], searches_problem: "" };

let asked = null;

/** The facts; without an answer of the server, those that show nothing. */
export function facts() {
  asked ??= ask("page").catch(() => {
    asked = null;
    return NONE;
  });
  return asked;
}

/** The state of a saved search. */
function stateOf(saved) {
  const { q, from, to, by, cols } = saved;
  return { q, from, to, by, cols, event: "", view: "" };
}

export function setUpFacts() {
  const badge = byId("environment");
  const opener = byId("saved-button");
  const dialog = byId("saved");

  async function begin() {
    const { environment } = await facts();
    badge.textContent = environment;
    badge.hidden = !environment;
    badge.classList.toggle("is-production", environment.toLowerCase().startsWith("prod"));
  }

  opener.addEventListener("click", async () => {
    asked = null; // the file may have changed
    const found = await facts();
    fill(
      dialog,
      h("h2", { id: "saved-title" }, "Saved searches"),
      found.searches_problem ? h("pre", { class: "problem", role: "alert" }, found.searches_problem) : null,
      h("ul", { class: "saved" }, found.searches.map(itemOf)),
      ...howTo(found),
      h("form", { method: "dialog" }, h("button", { class: "primary" }, "Close")),
    );
    dialog.showModal();
  });

  function itemOf(saved) {
    const open = (event) => {
      event.preventDefault();
      dialog.close();
      change(stateOf(saved));
    };
    const link = h("a", { href: addressOf({ ...state, ...stateOf(saved) }), onclick: open }, saved.name);
    const range = [saved.from, saved.to].filter(Boolean).join(" → ");
    return h("li", {}, link, h("code", {}, saved.q || "every event"), h("small", {}, range), saved.note ? h("p", {}, saved.note) : null);
  }

  /** The present search as an item of the file, to be pasted. */
  function howTo() {
    const lines = ["searches:", "  - name: …", `    q: ${JSON.stringify(state.q)}`];
    if (state.from) lines.push(`    from: ${JSON.stringify(state.from)}`);
    if (state.to) lines.push(`    to: ${JSON.stringify(state.to)}`);
    return [
      h("p", {}, "Searches are kept in ", h("code", {}, "searches.yaml"), " beside the pipeline file, under version control. This page never writes it. The present search is:"),
      h("pre", { tabindex: "0" }, lines.join("\n")),
    ];
  }

  return { begin };
}
