// The operations page: the session, the open view, and one update a second while the page is visible.

import { byId, setText, time } from "../shared/elements.js";
import { Fault } from "../shared/request.js";
import { sentence } from "../shared/words.js";
import { changed, pauseQueue, resumeQueue, say } from "./actions.js";
import { refreshTimes, setClock } from "./clock.js";
import { openJob, updateJob } from "./job.js";
import { openJobs, showTabs, updateJobs } from "./jobs.js";
import { showOverview } from "./overview.js";
import { change, get, operations, session, signIn } from "./session.js";

const UPDATE_MS = 1000;
const STALE = "This page shows earlier data and tries again.";
const TITLES = { overview: "Overview", jobs: "Jobs", job: "Job" };
const STATE_WORDS = {
  running: "Running",
  idle: "Idle",
  paused: "Paused",
  "no workers": "No workers",
  "idle, no workers": "Idle, no workers",
};

let view = { name: "", query: new URLSearchParams(), id: "" };
let access = { signedIn: false };
let timer = 0;
let updating = null;

function readAddress() {
  const rest = location.pathname.slice(operations.length).replace(/\/$/, "");
  if (rest.startsWith("/jobs/"))
    return { name: "job", query: new URLSearchParams(), id: decodeURIComponent(rest.slice(6)) };
  return { name: rest === "/jobs" ? "jobs" : "overview", query: new URLSearchParams(location.search), id: "" };
}

function open(focus) {
  view = readAddress();
  document.title = `${TITLES[view.name]} · iidq operations`;
  for (const name of Object.keys(TITLES)) byId(name).hidden = !access.signedIn || view.name !== name;
  byId("sign-in").hidden = access.signedIn;
  byId("views").hidden = byId("control").hidden = !access.signedIn;
  for (const link of byId("views").children) {
    if (link.pathname === location.pathname) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (!access.signedIn) return;
  if (view.name === "jobs") openJobs(view.query);
  if (view.name === "job") openJob(view.id);
  if (focus) byId(`${view.name}-title`).focus();
  update(true);
}

function go(address) {
  say("");
  history.pushState(null, "", address);
  window.scrollTo(0, 0);
  open(true);
}

document.addEventListener("click", (event) => {
  const link = event.target.closest("a[href]");
  const isPlain = !(
    event.button ||
    event.metaKey ||
    event.ctrlKey ||
    event.shiftKey ||
    event.altKey ||
    event.defaultPrevented
  );
  if (!link || !isPlain || link.origin !== location.origin || !link.pathname.startsWith(operations) || link.hash)
    return;
  event.preventDefault();
  go(link.href);
});
window.addEventListener("popstate", () => open(false));

// Read the snapshot and the data of the open view. A newer update makes an older one void.
async function update(isAsked) {
  clearTimeout(timer);
  if (!access.signedIn || document.hidden) return;
  const mine = (updating = {});
  try {
    const [snapshot] = await Promise.all([get("snapshot"), updateView(isAsked)]);
    if (mine !== updating) return;
    show(snapshot);
  } catch (error) {
    if (!(error instanceof Fault)) throw error;
    if (mine !== updating) return;
    if (error.status === 401) signedOut();
    else trouble(`${sentence(error.message)} ${STALE}`);
  }
  if (mine === updating) timer = setTimeout(update, UPDATE_MS);
}

async function updateView(isAsked) {
  if (view.name === "jobs") await updateJobs(view.query, isAsked);
  if (view.name === "job") await updateJob(view.id);
}

function trouble(text) {
  const box = byId("trouble");
  box.hidden = !text;
  setText(box, text);
}

function show(snapshot) {
  if (!snapshot.available) {
    trouble(`The queue cannot be read: ${snapshot.reason}. Circuit: ${snapshot.circuit}. ${STALE}`);
    return;
  }
  trouble("");
  const { queue } = snapshot;
  setClock(queue.at);
  const state = byId("state");
  setText(state, STATE_WORDS[queue.state] || queue.state);
  state.className = `badge ${{ running: "completed", idle: "", paused: "delayed" }[queue.state] ?? "failed"}`;
  setText(byId("pause"), queue.pausedAt ? "Resume" : "Pause");
  byId("paused").hidden = !queue.pausedAt;
  if (queue.pausedAt)
    byId("paused-since").replaceChildren(
      "since ",
      time(queue.pausedAt),
      ". Running jobs go on; no other job is claimed.",
    );
  byId("paused-reason").hidden = !queue.pauseReason;
  setText(byId("paused-reason"), queue.pauseReason || "");
  byId("no-workers").hidden = queue.workers > 0;
  byId("as-of").replaceChildren("as of ", time(queue.at));
  if (view.name === "overview") showOverview(snapshot);
  if (view.name === "jobs") showTabs(view.query, queue);
  refreshTimes();
}

function signedOut() {
  access = { ...access, signedIn: false };
  open(false);
  byId("key").focus();
}

byId("sign-in").addEventListener("submit", async (event) => {
  event.preventDefault();
  const key = byId("key");
  try {
    access = await signIn(key.value);
    key.value = "";
    setText(byId("key-fault"), "");
    key.removeAttribute("aria-invalid");
    started();
    open(true);
  } catch (error) {
    if (!(error instanceof Fault)) throw error;
    const isWrong = error.status === 401;
    const text = isWrong
      ? "This is not the service’s API key. Compare it with API_KEY in its environment."
      : error.message;
    setText(byId("key-fault"), text);
    key.setAttribute("aria-invalid", "true");
    key.focus();
  }
});

byId("sign-out").addEventListener("click", async () => {
  try {
    await change("sign-out");
  } catch (error) {
    if (!(error instanceof Fault)) throw error;
  }
  signedOut();
});

byId("pause").addEventListener("click", () => (byId("paused").hidden ? pauseQueue() : resumeQueue()));
byId("refresh").addEventListener("click", () => update(true));
byId("search").addEventListener("submit", (event) => {
  event.preventDefault();
  const query = new URLSearchParams();
  const state = view.query.get("state");
  const sought = byId("sought").value.trim();
  if (state) query.set("state", state);
  if (sought) query.set("search", sought);
  go(`${operations}/jobs${query.size ? `?${query}` : ""}`);
});
changed.addEventListener("change", () => update(true));
changed.addEventListener("signed-out", signedOut);
document.addEventListener("visibilitychange", () => update(true));

function started() {
  byId("open").hidden = access.access !== "loopback";
  byId("sign-out").hidden = access.access === "loopback";
}

async function start() {
  try {
    access = await session();
  } catch (error) {
    if (!(error instanceof Fault)) throw error;
    trouble(error.message);
    timer = setTimeout(start, UPDATE_MS * 3);
    return;
  }
  trouble("");
  started();
  open(false);
}

start();
