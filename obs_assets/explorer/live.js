// Live rows: one stream for all tabs with the same query, none for hidden tabs.

import { request } from "./api.js";
import { announce, button, byId, counted, fill } from "./dom.js";
import { settle } from "./settle.js";
import { change, isSearch, state } from "./state.js";
import { agoText, minuteTime } from "./times.js";
import { zone } from "./range.js";
import { MOST_ROWS } from "./list.js";

/** The page is changed at most this often, however many rows come. */
const SHOW_EVERY_MS = 100;

/** Rows of a change: more at a time would make the page stutter. That is 600 rows a second. */
const SHOW_ROWS = 60;

/** Rows that wait above which the button says so. */
const BEHIND_ROWS = 200;
const FIRST_RETRY_MS = 3000;
const LAST_RETRY_MS = 30000;
const REFRESH_MS = 3000;

export function setUpLive(list) {
  const opener = byId("live-button");
  const text = byId("live-text");
  const notice = byId("notice");
  let follower = null;
  let waiting = [];
  let isPaused = false;
  let lost = 0;
  let status = "off";
  let lag = null;
  let timer = 0;
  let refresh = 0;
  let replaced = new Set();

  opener.addEventListener("click", () => {
    if (!state.live) return change({ live: "1", to: "", order: "newest" });
    isPaused = !isPaused;
    if (!isPaused) {
      list.scroller.scrollTop = 0;
      clearTimeout(timer);
      flush();
    }
    show();
    return undefined;
  });

  // A reader who looks further down is not disturbed.
  list.scroller.addEventListener(
    "scroll",
    () => {
      if (!state.live) return;
      const isAway = list.scroller.scrollTop > 60;
      if (isAway && !isPaused) {
        isPaused = true;
        show();
      }
    },
    { passive: true },
  );

  document.addEventListener("visibilitychange", () => (document.hidden ? stop("hidden") : start()));

  function start() {
    stop("off");
    if (!state.live || document.hidden) return;
    follower = new Follower(state.q, { onStatus, onMessage });
    follower.start();
  }

  function stop(next) {
    follower?.stop();
    follower = null;
    clearTimeout(timer);
    timer = 0;
    onStatus(next);
  }

  function onStatus(next) {
    if (next === status) return;
    status = next;
    if (next === "lost") announce("The live stream is lost; trying again");
    show();
  }

  function onMessage({ type, body }) {
    if (type === "rows") take(body.events);
    if (type === "hour" && body.state === "replaced") replaced.add(body.hour);
    if (type === "hour" || type === "rows") refreshSoon();
    // An old hour that is replaced is not the newest one.
    if (type === "lag" || (type === "hour" && body.hour >= (lag?.hour ?? ""))) lag = body;
    if (type === "dropped") lost += 1;
    // Without a row to go on from, rows may have been stored before the stream was open: the table has them.
    if ((type === "hello" && !body.after) || (type === "stale" && body.reason)) {
      dispatchEvent(new CustomEvent("search-again"));
    }
    show();
  }

  function take(events) {
    waiting.push(...events);
    // The list holds no more, so that the older ones would leave it at once.
    if (waiting.length > MOST_ROWS) waiting = waiting.slice(-MOST_ROWS);
    if (!isPaused && !timer) timer = setTimeout(flush, SHOW_EVERY_MS);
  }

  function flush() {
    timer = 0;
    if (isPaused) return;
    const events = waiting.slice(0, SHOW_ROWS);
    waiting = waiting.slice(SHOW_ROWS);
    list.addLive(events);
    if (waiting.length) timer = setTimeout(flush, SHOW_EVERY_MS);
    if (events.length) announce(`${events.length} new rows`);
    show();
  }

  /** Bars, values and hours follow, some seconds after the last news. */
  function refreshSoon() {
    if (refresh) return;
    refresh = setTimeout(() => {
      refresh = 0;
      dispatchEvent(new CustomEvent("stored"));
      settleRows();
    }, REFRESH_MS);
  }

  /** Rows of replaced hours that were not sent again may be stored no more. */
  async function settleRows() {
    const hours = [...replaced];
    replaced = new Set();
    try {
      for (const hour of hours) await settle(list, hour);
    } catch (error) {
      // The rows stay as they are: the next search shows the truth.
      console.info("rows of a replaced hour are not looked up:", error.status);
    }
  }

  function show() {
    const isOn = Boolean(state.live);
    opener.setAttribute("aria-pressed", String(isOn));
    opener.dataset.status = isOn && isPaused && status === "live" ? "paused" : status;
    text.textContent = isOn ? statusText() : "Live";
    opener.title = isOn ? "Pause and go on (l)" : "Follow rows as their hours are stored, some minutes after they happen (l)";
    notice.hidden = !isOn;
    if (!isOn) return;
    const end = button("Stop", () => change({ live: "" }), { class: "link" });
    const newest = lag?.hour ? ` The newest stored hour is ${minuteTime(lag.hour, zone())}, stored ${agoText(lag.loaded_at)}.` : "";
    const missed = lost ? ` ${counted(lost)} rows or more were left out: search again to see all.` : "";
    fill(notice, `Following stored hours: rows come when their hour is stored or replaced.${newest}${missed} `, end);
  }

  function statusText() {
    if (status === "lost") return "Lost, trying again";
    if (status === "connecting") return "Connecting";
    if (isPaused) return waiting.length ? `Paused, ${counted(waiting.length)} new` : "Paused";
    if (waiting.length > BEHIND_ROWS) return "Catching up";
    return status === "live" ? "Live" : "Waiting";
  }

  return {
    begin: () => {
      show();
      start();
    },
    changed(changed) {
      if (changed.includes("live") || (state.live && isSearch(changed))) {
        [isPaused, waiting, lost] = [false, [], 0];
        start();
        show();
      }
    },
  };
}

/**
 * Messages of a query. The tab that holds the lock of the query has the stream, and passes each message on
 * to the others; when it is closed or hidden, another tab gets the lock and goes on behind the last row.
 */
class Follower {
  constructor(query, { onStatus, onMessage }) {
    this.query = query;
    this.onStatus = onStatus;
    this.onMessage = onMessage;
    this.controller = new AbortController();
    this.channel = new BroadcastChannel(`obs-tail:${query}`);
    this.after = "";
  }

  start() {
    this.onStatus("connecting");
    this.channel.onmessage = ({ data }) => this.pass(data);
    const { signal } = this.controller;
    navigator.locks
      .request(`obs-tail:${this.query}`, { signal }, () => this.follow(signal))
      .catch((error) => {
        if (error.name !== "AbortError") throw error;
      });
    // A tab that does not get the lock hears the other one; without news it is live all the same.
    navigator.locks.query().then(({ held }) => {
      if (held?.some((lock) => lock.name === `obs-tail:${this.query}`) && !signal.aborted) this.onStatus("live");
    });
  }

  stop() {
    this.controller.abort();
    this.channel.close();
  }

  pass(message) {
    if (message.id) this.after = message.id;
    if (message.type === "status") this.onStatus(message.body);
    else this.onMessage({ type: message.type, body: this.bodyOf(message) });
  }

  /** A message travels between tabs as text, which a browser copies faster than an object. */
  bodyOf({ type, body, after }) {
    const read = JSON.parse(body);
    return type === "hello" ? { ...read, after } : read;
  }

  tell(message) {
    if (this.controller.signal.aborted) return;
    this.channel.postMessage(message);
    this.pass(message);
  }

  /** Read the stream until the tab is closed; connect again after each loss. */
  async follow(signal) {
    let wait = FIRST_RETRY_MS;
    while (!signal.aborted) {
      try {
        await this.read(signal, () => {
          wait = FIRST_RETRY_MS;
        });
      } catch (error) {
        if (signal.aborted) return;
        if (error.status >= 400 && error.status < 429) {
          this.tell({ type: "status", body: "off" });
          return;
        }
      }
      this.tell({ type: "status", body: "lost" });
      await new Promise((resolve) => {
        const timer = setTimeout(resolve, wait);
        signal.addEventListener("abort", () => (clearTimeout(timer), resolve()), { once: true });
      });
      wait = Math.min(LAST_RETRY_MS, wait * 2);
    }
  }

  async read(signal, onOpen) {
    const parameters = this.query ? { q: this.query } : {};
    if (this.after) parameters.after = this.after;
    const response = await request("tail", parameters, { signal, accept: "text/event-stream" });
    onOpen();
    this.tell({ type: "status", body: "live" });
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      rest += value;
      const pieces = rest.split("\n\n");
      rest = pieces.pop();
      for (const piece of pieces) {
        this.take(piece);
        // Messages that came together would else be one long task.
        await new Promise((resolve) => setTimeout(resolve));
      }
    }
  }

  take(piece) {
    const message = { type: "", body: "", id: "" };
    for (const line of piece.split("\n")) {
      const at = line.indexOf(": ");
      const [name, value] = [line.slice(0, at), line.slice(at + 2)];
      if (name === "event") message.type = value;
      if (name === "data") message.body += value;
      if (name === "id") message.id = value;
    }
    if (!message.type) return; // a sign of life
    this.tell({ ...message, after: this.after });
  }
}
