// Elements of a page. Text becomes a text node, never HTML.

import { moment } from "./words.js";

export const byId = (id) => document.getElementById(id);

/**
 * Make an element. `attributes` are HTML attributes; true sets an empty one, false and null set none, and a name that
 * begins with "on" adds a listener. Children are nodes or texts; null and "" are left out.
 */
export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
  return made;
}

/** Make a button; `onClick` gets the button. */
export function button(text, onClick, className = "") {
  const made = element("button", { type: "button", class: className }, text);
  made.addEventListener("click", () => onClick(made));
  return made;
}

/** Change the text of a node only if it differs, so that nothing is announced twice. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Make a time element; `shown` is its text, by default the moment. */
export const time = (text, shown = moment(text)) => element("time", { datetime: text, title: moment(text) }, shown);

export async function copyText(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  // Browsers offer no clipboard without TLS.
  const field = element("textarea", { class: "visually-hidden" });
  field.value = text;
  document.body.append(field);
  field.select();
  const copied = document.execCommand("copy");
  field.remove();
  if (!copied) throw new Error("not copied");
}
