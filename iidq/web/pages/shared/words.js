// Numbers, times and addresses in words. Pure.

// Times are in this browser's time zone. A moment names the zone of its own day: the offset changes over the year.
const DAY = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "long", year: "numeric" });
const MOMENT = new Intl.DateTimeFormat("en-GB", {
  day: "numeric",
  month: "short",
  year: "numeric",
  hour: "2-digit",
  minute: "2-digit",
  second: "2-digit",
  timeZoneName: "short",
});
const MINUTE = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", timeZoneName: "short" });
const COUNT = new Intl.NumberFormat("en");

/** The day of Unix `seconds`. Text that is no time is returned as it is, here and in the next two. */
export const day = (seconds) => formatted(DAY, seconds * 1000) ?? String(seconds);
export const moment = (time) => formatted(MOMENT, time) ?? String(time);
export const minute = (time) => formatted(MINUTE, time) ?? String(time);

function formatted(format, time) {
  const date = new Date(time);
  return Number.isNaN(date.getTime()) ? null : format.format(date);
}

export const count = (number) => COUNT.format(number);

export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  const sign = seconds < 0 ? "−" : "";
  const span = Math.abs(seconds);
  if (span < 0.9995) return `${sign}${Math.round(span * 1000)} ms`;
  if (span < 9.95) return `${sign}${span.toFixed(1)} s`;
  if (span < 120) return `${sign}${Math.round(span)} s`;
  if (span < 7200) return `${sign}${Math.round(span / 60)} min`;
  if (span < 172800) return `${sign}${Math.round(span / 3600)} h`;
  return `${sign}${Math.round(span / 86400)} d`;
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

export const shortHash = (hash) => `${hash.slice(0, 10)}…${hash.slice(-6)}`;

/** Make a sentence of a text: a capital and a full stop. Names such as creator_did or 0x… keep their spelling. */
export const sentence = (text) => {
  const whole = /^[a-z]+(?![\w_])/.test(text) ? text.charAt(0).toUpperCase() + text.slice(1) : text;
  return /[.!?…]$/.test(whole) ? whole : `${whole}.`;
};
