// Times by the database's clock; this browser's clock may differ.

import { setText, time } from "../shared/elements.js";
import { duration } from "../shared/words.js";

let ahead = 0;

/** Take `at` as the database's present time. */
export const setClock = (at) => {
  ahead = Date.parse(at) - Date.now();
};

const now = () => Date.now() + ahead;

export const secondsBetween = (from, to) => (Date.parse(to) - Date.parse(from)) / 1000;
export const secondsSince = (text) => (now() - Date.parse(text)) / 1000;

function ago(text) {
  const seconds = Math.round(secondsSince(text));
  const size = Math.max(1, Math.abs(seconds));
  const words = size < 120 ? `${size} s` : duration(size);
  return seconds >= 0 ? `${words} ago` : `in ${words}`;
}

/** Make a relative time that refreshTimes() keeps true. */
export function liveTime(text) {
  const made = time(text, ago(text));
  made.dataset.ago = "";
  return made;
}

/** Update every relative time on the page. */
export function refreshTimes() {
  for (const node of document.querySelectorAll("time[data-ago]")) setText(node, ago(node.dateTime));
}
