// The page: it puts the parts together and asks for events when the address changes.

import { onUnauthorized } from "./api.js";
import { setUpCopy } from "./copy.js";
import { setUpDetails } from "./details.js";
import { byId } from "./dom.js";
import { setUpFacts } from "./facts.js";
import { setUpFacets } from "./facets.js";
import { setUpHelp, setUpKeys, setUpTheme, askForToken } from "./frame.js";
import { setUpHistogram } from "./histogram.js";
import { setUpHours } from "./hours.js";
import { setUpList } from "./list.js";
import { setUpLive } from "./live.js";
import { setUpRange } from "./range.js";
import { setUpSearch } from "./search.js";
import { setUpViews } from "./views.js";
import { onChange, state } from "./state.js";

setUpTheme();
onUnauthorized(askForToken);

const list = setUpList();
const parts = [
  setUpSearch(),
  setUpRange(),
  list,
  setUpHistogram(),
  setUpHours(),
  setUpFacets(),
  setUpDetails(),
  setUpViews(),
  setUpCopy(),
  setUpFacts(),
  setUpLive(list),
];
setUpHelp();
setUpKeys(list);

onChange((changed) => {
  for (const part of parts) part.changed?.(changed);
});
for (const part of parts) part.begin?.();
byId("q").value = state.q;
if (!state.event && !matchMedia("(pointer: coarse)").matches) byId("q").focus();
