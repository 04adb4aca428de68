// The list of jobs: a state or a cause, or a search; pages by cursor.

import { byId, element, setText } from "../shared/elements.js";
import { badge, STATE_NAMES } from "../shared/states.js";
import { count, duration, shortHash } from "../shared/words.js";
import { cancelJob, retryCause, retryJob } from "./actions.js";
import { liveTime, secondsBetween, secondsSince } from "./clock.js";
import { get, operations } from "./session.js";

const LIST = `${operations}/jobs`;
const ORDERS = { waiting: "First in line first", delayed: "Soonest first", active: "Longest running first" };
const LIVE_MS = 2000;
const SEARCH_MS = 1500;

let shown = "";
let nextUpdate = 0;
let counts = null;
let opened = null;

const address = (asked) => {
  const query = new URLSearchParams([...asked].filter(([, value]) => value));
  return query.size ? `${LIST}?${query}` : LIST;
};

export function openJobs(query) {
  opened = query;
  shown = "";
  nextUpdate = 0;
  byId("sought").value = query.get("search") || "";
  showTabs(query);
  const cause = query.get("cause");
  byId("filter").hidden = !cause;
  if (cause) {
    setText(byId("filter-text"), `Failed: ${cause}`);
    const retry = byId("filter-retry");
    retry.hidden = false;
    setText(retry, "Retry all of them");
    retry.onclick = () => retryCause(cause);
  }
  byId("rows").replaceChildren();
  byId("none").hidden = true;
  byId("next").hidden = true;
  byId("first").hidden = !query.get("cursor");
  byId("first").href = address(new Map([...query].filter(([name]) => name !== "cursor")));
  setText(byId("sought-kind"), "Loading …");
}

export function showTabs(query, queue = counts) {
  counts = queue;
  const tabs = byId("tabs");
  const names = ["", ...Object.keys(STATE_NAMES)];
  if (!tabs.children.length) {
    tabs.append(...names.map(() => element("a", {}, element("span"), element("b", { class: "number" }))));
  }
  names.forEach((state, index) => {
    const tab = tabs.children[index];
    tab.href = address(
      new Map([
        ["state", state],
        ["search", query.get("search")],
      ]),
    );
    if ((query.get("state") || "") === state) tab.setAttribute("aria-current", "page");
    else tab.removeAttribute("aria-current");
    setText(tab.children[0], state ? STATE_NAMES[state] : "All");
    if (queue)
      setText(
        tab.children[1],
        count(state ? queue[state] : names.slice(1).reduce((sum, name) => sum + queue[name], 0)),
      );
  });
}

// Update the list. Without a request of the operator, only a first page without a search is updated.
export async function updateJobs(query, isAsked) {
  if (!isAsked && (Date.now() < nextUpdate || query.get("cursor") || query.get("search"))) return;
  // Keep the list while one of its buttons has the focus.
  if (!isAsked && byId("rows").contains(document.activeElement)) return;
  nextUpdate = Date.now() + LIVE_MS;
  let page = await get(`jobs?${query}`);
  // Search a long history in steps that are short for the database.
  const until = Date.now() + SEARCH_MS;
  let searched = page.reach;
  for (; page.cut && !page.jobs.length && Date.now() < until && query === opened; searched += page.reach) {
    setText(byId("sought-kind"), `Searched ${count(searched)} jobs …`);
    nextUpdate = Infinity;
    const next = new URLSearchParams(query);
    next.set("cursor", page.nextCursor);
    page = await get(`jobs?${next}`);
  }
  // Another list was opened meanwhile.
  if (query !== opened) return;
  const text = JSON.stringify(page);
  if (text === shown) return;
  shown = text;
  const hadFocus = byId("rows").contains(document.activeElement);
  byId("rows").replaceChildren(...page.jobs.map(row));
  if (hadFocus) byId("refresh").focus();
  showPageFacts(query, page, searched);
}

function showPageFacts(query, page, searched) {
  const state = query.get("state");
  const search = query.get("search");
  const order = search
    ? `Found for “${search}”`
    : query.get("cause")
      ? "Latest failure first"
      : ORDERS[state] || "Newest first";
  const more = page.cut ? ` ${count(searched)} jobs were searched; “Search further” continues from here.` : "";
  setText(byId("sought-kind"), `${order}.${more}`);
  const none = byId("none");
  none.hidden = page.jobs.length > 0;
  setText(none, page.cut ? `No match among ${count(searched)} jobs so far.` : "No job here.");
  const next = byId("next");
  next.hidden = !page.nextCursor;
  setText(next, page.cut ? "Search further" : "Next page");
  if (page.nextCursor) next.href = address(new Map([...query, ["cursor", page.nextCursor]]));
}

function took(job) {
  if (job.state === "active") return `runs ${duration(secondsSince(job.startedAt))}`;
  if (job.state === "delayed") return element("span", {}, "due ", liveTime(job.runAt));
  if (job.state === "waiting") return `waits ${duration(Math.max(0, secondsSince(job.runAt)))}`;
  return job.startedAt && job.completedAt ? `took ${duration(secondsBetween(job.startedAt, job.completedAt))}` : "–";
}

function outcome(job) {
  if (job.error) return element("span", { class: "clip error" }, job.error);
  if (job.verdict) return element("span", { class: `verdict-${job.verdict}` }, job.verdict);
  if (job.state === "active") return element("span", { class: "soft number" }, `${job.progress} %`);
  return "";
}

function action(job) {
  const name = job.id.slice(-8);
  if (job.state === "failed" || job.state === "cancelled") {
    return element(
      "button",
      { class: "small", "aria-label": `Retry job ${name}`, onclick: () => retryJob(job.id, job.state) },
      "Retry",
    );
  }
  if (job.state === "completed") return "";
  return element(
    "button",
    { class: "small", "aria-label": `Cancel job ${name}`, onclick: () => cancelJob(job.id, job.state === "active") },
    "Cancel",
  );
}

function row(job) {
  return element(
    "tr",
    { "data-id": job.id },
    element("td", {}, badge(job.state), element("small", { class: "soft" }, job.type)),
    element(
      "th",
      { scope: "row" },
      element("a", { href: `${LIST}/${job.id}` }, job.fileName || shortHash(job.contentHash)),
      element("small", { class: "soft mono" }, job.id),
    ),
    element(
      "td",
      { class: "what" },
      element("span", { class: "clip soft mono", title: job.manifestUri }, job.manifestUri),
      outcome(job),
    ),
    element("td", { class: "number" }, liveTime(job.createdAt)),
    element("td", { class: "number" }, took(job)),
    element("td", { class: "right number" }, `${job.attempt}`),
    element("td", { class: "right" }, action(job)),
  );
}
