// "Where is my event?": by its id, its trace, or its place in a file.

import { ask, Latest } from "./api.js";
import { button, counted, fill, h, some, visible } from "./dom.js";
import { change, state } from "./state.js";

const WAYS = [
  ["event_id", "Event id", "evt-1733308920"],
  ["trace_id", "Trace id", "4bf92f3577b34da6a3ce929d0e0e4736"],
  ["file", "Event file", "agents/agent.jsonl"],
];

/** Place → what it means, with its detail. */
const PLACES = {
  stored: () => "It is in the table.",
  sampled_out: (detail) => `Sampling dropped it (${detail}). Rows like it that were kept stand for it by their weight.`,
  filtered: (detail) => `The filter dropped it: rule ${detail}.`,
  dead: (detail) => `It is a dead letter: ${detail}. \`obs dead-letters list\` shows it.`,
  dropped: () => "A configuration that is no longer in force dropped it. The hour may be built again.",
  waiting: (detail) => `It has landed and is not stored yet: ${detail || "its hour is to be built"}.`,
  not_landed: (detail) => `It has not landed: ${detail}.`,
  expired: () => "Retention dropped its hour.",
};

/** The view, with its state in the address: `find=event_id:…`, `offset=…`. */
export class Where {
  constructor(place) {
    this.place = place;
    this.latest = new Latest();
  }

  show() {
    const [way, value] = splitAt(state.find);
    const kind = h("select", { id: "where-kind", onchange: () => this.showOffset(kind.value) }, WAYS.map(([name, label]) => h("option", { value: name, selected: name === way }, label)));
    const field = h("input", { id: "where-value", type: "text", spellcheck: "false", value, placeholder: WAYS.find(([name]) => name === (way || "event_id"))[2] });
    this.offset = h("input", { id: "where-offset", type: "number", min: "0", step: "1", value: state.offset || "0" });
    this.offsetLabel = h("label", { for: "where-offset" }, "Byte offset");
    this.result = h("div", { "aria-live": "polite" });
    const submit = (event) => {
      event.preventDefault();
      const find = field.value.trim() ? `${kind.value}:${field.value.trim()}` : "";
      const offset = kind.value === "file" ? this.offset.value : "";
      if (find === state.find && offset === state.offset) this.ask();
      else change({ find, offset }, { isStep: true });
    };
    fill(
      this.place,
      h("h2", {}, "Where is my event?"),
      h("p", {}, "An event that was sent is stored, or a receipt counts it under a reason. Look it up by the id that its sender gave it, by its trace, or by the place of its record in a file."),
      h(
        "form",
        { class: "where-form", onsubmit: submit },
        h("label", { for: "where-kind" }, "Look up by"),
        kind,
        h("label", { for: "where-value", class: "hidden-text" }, "Value"),
        field,
        this.offsetLabel,
        this.offset,
        h("button", { class: "primary" }, "Look up"),
      ),
      this.result,
    );
    this.showOffset(kind.value);
    if (value) this.ask();
    else field.focus();
  }

  showOffset(way) {
    this.offset.hidden = way !== "file";
    this.offsetLabel.hidden = way !== "file";
  }

  ask() {
    const [way, value] = splitAt(state.find);
    const parameters = { [way]: value };
    if (way === "file") parameters.offset = state.offset || 0;
    this.latest.run((signal) => ask("whereabouts", parameters, { signal }), {
      started: () => fill(this.result, h("p", { class: "wait" }, "Looking into the table, the hours of this data folder and the dead letters…")),
      done: (found) => fill(this.result, ...this.bodyOf(found)),
      failed: (error) => fill(this.result, h("p", { class: "problem", role: "alert" }, `${error.message}. `, button("Ask again", () => this.ask()))),
    });
  }

  bodyOf({ events, complete, took_ms: took }) {
    const partial = complete ? null : h("p", { class: "foot partial" }, "The time was over before all places were searched.");
    if (!events.length) {
      const text = complete
        ? "No such event is known: it has not landed here, or its hour and its receipt have expired. If you know its file, look it up by file and offset."
        : "It was not found so far.";
      return [partial, h("div", { class: "place" }, h("h3", {}, "Not found"), h("p", {}, text))];
    }
    const shown = events.slice(0, 200).map(placeOf);
    return [partial, h("p", {}, `${some(events.length, "event")}, ${counted(took)} ms`), h("ul", { class: "places" }, shown)];
  }
}

function placeOf(event) {
  const origin = event.file ? `${event.file}${event.offset === null ? "" : `, byte ${counted(event.offset)}`}` : "";
  const hour = event.partition ? `hour ${event.partition}` : "";
  const open = event.id ? button("Open the event", () => change({ view: "", event: event.id, find: "", offset: "" }, { isStep: true })) : null;
  return h(
    "li",
    { class: "place" },
    h("h3", { class: `place-${event.place}` }, visible(event.text)),
    h("p", {}, visible(PLACES[event.place]?.(event.detail) ?? event.detail)),
    h("p", {}, h("small", {}, visible([hour, origin].filter(Boolean).join(" · ")))),
    open,
  );
}

function splitAt(text) {
  const at = text.indexOf(":");
  const way = at < 0 ? "" : text.slice(0, at);
  return WAYS.some(([name]) => name === way) ? [way, text.slice(at + 1)] : ["", ""];
}
