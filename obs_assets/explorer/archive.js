// Hours that retention dropped: their events are read from the archive when a person asks for it.

import { ask } from "./api.js";
import { announce, blocksOf, button, fill, h, sized, some, visible } from "./dom.js";
import { levelClass, summaryOf } from "./events.js";
import { zone } from "./range.js";
import { longTime } from "./times.js";

/** An offer to search the archive for a range; its answer takes the place of the offer. */
export function archiveOffer(parameters) {
  const place = h("section", { class: "archive" });
  fill(
    place,
    h("h3", {}, "The table no longer has some of these hours"),
    button("Search the archive", () => searchArchive(place, parameters), { class: "primary" }),
    h("small", {}, " Downloads at most 200 MB; takes some seconds."),
  );
  return place;
}

async function searchArchive(place, parameters) {
  fill(place, h("h3", {}, "Archive"), h("p", { class: "hint-text" }, "Reading archived hours …"));
  try {
    showFound(place, await ask("archive", parameters));
  } catch (error) {
    const again = button("Try again", () => searchArchive(place, parameters));
    fill(place, h("h3", {}, "Archive"), h("p", { role: "alert" }, error.message), again);
  }
}

function showFound(place, answer) {
  const read = `${some(answer.hours.length, "archived hour")} and ${sized(answer.bytes_read)} read`;
  const rest = answer.complete ? "" : `; ${some(answer.left.length, "hour")} not read: choose a narrower range`;
  const found = `${some(answer.rows, "event")} found, ${read}${rest}.`;
  const items = answer.events.map(itemOf);
  fill(place, h("h3", {}, "Archive"), h("p", { class: "sentence" }, found), h("div", { class: "archived" }, items));
  announce(found);
}

/** An event as a line that opens to its text. */
function itemOf(event) {
  const item = h("details", { class: levelClass(event.event_level) });
  const head = [longTime(event.timestamp, zone()), event.event_level ?? "no level", event.event_type ?? ""];
  item.append(h("summary", {}, h("small", {}, head.join("  ")), " ", visible(summaryOf(event))));
  // Made when it is opened: a page of long events stays small.
  item.addEventListener("toggle", () => {
    if (item.children.length === 1) item.append(h("pre", {}, blocksOf(visible(JSON.stringify(event.data, null, 2)))));
  });
  return item;
}
