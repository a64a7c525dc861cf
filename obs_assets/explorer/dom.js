// Elements. Text of events reaches the page through `textContent` alone: nothing here reads HTML.

/**
 * An element. `attributes` are attributes; `on…` members are listeners; true and false add or leave out
 * an attribute. Children are elements or texts; null is left out.
 */
export function h(name, attributes = {}, ...children) {
  return filled(document.createElement(name), attributes, children);
}

/** An element of SVG. */
export function svg(name, attributes = {}, ...children) {
  return filled(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);
}

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  append(element, children);
  return element;
}

function append(element, children) {
  for (const child of children.flat(Infinity)) {
    // A text becomes a text node: its characters mean nothing to the browser.
    if (child !== null && child !== undefined) element.append(child);
  }
}

/** The text as a sentence without its full stop: the first letter is a capital. */
export function capital(text) {
  const trimmed = text.replace(/\.$/, "");
  // The name of a field stays as it is.
  if (/^\S*[_.]/.test(trimmed)) return trimmed;
  return trimmed.charAt(0).toUpperCase() + trimmed.slice(1);
}

/** Put children in the place of all others. */
export function fill(element, ...children) {
  element.replaceChildren();
  append(element, children);
}

export const byId = (id) => document.getElementById(id);

/** A button with a text. */
export function button(text, onclick, attributes = {}) {
  return h("button", { type: "button", onclick, ...attributes }, text);
}

/** Whether keys belong to a field in which a person types. */
export function isTyping(target) {
  return target.matches?.("input, textarea, select, [contenteditable]") ?? false;
}

const announcer = () => byId("announce");
let announced = 0;

/** Say something to screen readers, politely; the newest text wins. */
export function announce(text) {
  clearTimeout(announced);
  announced = setTimeout(() => {
    announcer().textContent = text;
  }, 200);
}

let toastTimer = 0;

/** Show a short note at the bottom for some seconds. */
export function toast(text) {
  const note = byId("toast");
  note.textContent = text;
  note.hidden = false;
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => {
    note.hidden = true;
    // A long text takes longer to read.
  }, Math.max(4000, 60 * text.length));
}

/** Copy a text; says so, or shows the text to be copied by hand where the browser refuses. */
export async function copyText(text, what) {
  try {
    await navigator.clipboard.writeText(text);
    toast(`${what} copied`);
  } catch {
    window.prompt(`Copy the ${what}:`, text);
  }
}

/** A text that is at most some characters long, with its length behind the cut. */
export function cut(text, most) {
  if (text.length <= most) return text;
  // Half of a pair would be shown as a box.
  const end = /[\uD800-\uDBFF]/.test(text[most - 1]) ? most - 1 : most;
  return `${text.slice(0, end)}…`;
}

// Marks that turn the direction of the text behind them: a reader would see other text than is there.
const HIDDEN = /[\u200e\u200f\u202a-\u202e\u2066-\u2069\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f\ufeff]/g;

/** A text with characters that cannot be seen written by their numbers. */
export function visible(text) {
  return text.replace(HIDDEN, (c) => `‹U+${c.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}›`);
}

/** Characters of a block of a long text: a browser needs seconds to break a single block of 64 kB into lines. */
const BLOCK = 1000;

/** A long text as blocks below one another, which the browser lays out one by one as they come into sight. */
export function blocksOf(text) {
  const blocks = [];
  for (let start = 0; start < text.length; ) {
    let end = Math.min(text.length, start + BLOCK);
    const lineEnd = text.lastIndexOf("\n", end - 1);
    if (end < text.length && lineEnd > start) end = lineEnd + 1;
    else if (/[\uD800-\uDBFF]/.test(text[end - 1])) end += 1;
    // A line end between blocks is there already.
    blocks.push(h("div", { class: "block" }, text.slice(start, end).replace(/\n$/, "")));
    start = end;
  }
  return blocks;
}

/** A number of bytes or characters in words. */
export function sized(count) {
  if (count < 1024) return `${count} B`;
  if (count < 1048576) return `${(count / 1024).toFixed(0)} kB`;
  return `${(count / 1048576).toFixed(1)} MB`;
}

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

/** A count with commas. */
export const counted = (count) => whole.format(count);

/** "1 row", "2 rows". */
export function some(count, word) {
  return `${counted(count)} ${word}${count === 1 ? "" : "s"}`;
}
