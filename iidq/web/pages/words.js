// Numbers, times and addresses as people read them. Pure.

// In this browser's time zone. A moment names it, as of its own day: the offset changes over the year.
const DAY = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "long", year: "numeric" });
const MOMENT = new Intl.DateTimeFormat("en-GB", {
  day: "numeric", month: "short", year: "numeric", hour: "2-digit", minute: "2-digit", second: "2-digit", timeZoneName: "short",
});
const MINUTE = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", timeZoneName: "short" });

/** A registration's day; `seconds` are Unix time. What is no time stays as it is. */
export const day = (seconds) => formatted(DAY, seconds * 1000) ?? String(seconds);
export const moment = (time) => formatted(MOMENT, time) ?? String(time);
export const minute = (time) => formatted(MINUTE, time) ?? String(time);

function formatted(format, time) {
  const date = new Date(time);
  return Number.isNaN(date.getTime()) ? null : format.format(date);
}

export function size(bytes) {
  const units = ["bytes", "kB", "MB", "GB", "TB"];
  let unit = 0;
  while (bytes >= 1000 && unit < units.length - 1) {
    bytes /= 1000;
    unit += 1;
  }
  return `${unit && bytes < 100 ? bytes.toFixed(1) : Math.round(bytes)} ${units[unit]}`;
}

export const sentence = (text) => {
  // A name such as creator_did or 0x… keeps its spelling.
  const whole = /^[a-z]+(?![\w_])/.test(text) ? text.charAt(0).toUpperCase() + text.slice(1) : text;
  return /[.!?…]$/.test(whole) ? whole : `${whole}.`;
};
