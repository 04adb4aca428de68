// Elements, numbers and times. Text only ever becomes a text node.

import { moment } from "../words.js";

export const byId = (id) => document.getElementById(id);

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

export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

const plain = new Intl.NumberFormat("en");
export const count = (number) => plain.format(number);

export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  const sign = seconds < 0 ? "−" : "";
  const size = Math.abs(seconds);
  if (size < 0.9995) return `${sign}${Math.round(size * 1000)} ms`;
  if (size < 9.95) return `${sign}${size.toFixed(1)} s`;
  if (size < 120) return `${sign}${Math.round(size)} s`;
  if (size < 7200) return `${sign}${Math.round(size / 60)} min`;
  if (size < 172800) return `${sign}${Math.round(size / 3600)} h`;
  return `${sign}${Math.round(size / 86400)} d`;
}

// Times are the database's: this browser's clock may be another.
let ahead = 0;
export const setClock = (at) => {
  ahead = Date.parse(at) - Date.now();
};
const now = () => Date.now() + ahead;

export function ago(text) {
  const seconds = Math.round((now() - Date.parse(text)) / 1000);
  const size = Math.max(1, Math.abs(seconds));
  const words = size < 120 ? `${size} s` : duration(size);
  return seconds >= 0 ? `${words} ago` : `in ${words}`;
}

/** A time as such; `shown` says it in other words than the moment itself. */
export const time = (text, shown = moment(text)) => element("time", { datetime: text, title: moment(text) }, shown);

// Every relative time on the page, kept true.
export function refreshTimes() {
  for (const node of document.querySelectorAll("time[data-ago]")) setText(node, ago(node.dateTime));
}
export function liveTime(text) {
  const made = time(text, ago(text));
  made.dataset.ago = "";
  return made;
}

export const between = (from, to) => (Date.parse(to) - Date.parse(from)) / 1000;
export const sinceNow = (text) => (now() - Date.parse(text)) / 1000;

const STATES = { waiting: "Waiting", active: "Active", delayed: "Delayed", completed: "Completed", failed: "Failed", cancelled: "Cancelled" };
export const STATE_NAMES = STATES;
export const badge = (state) => element("span", { class: `badge ${state}` }, STATES[state] || state);
export const shortHash = (hash) => `${hash.slice(0, 10)}…${hash.slice(-6)}`;
