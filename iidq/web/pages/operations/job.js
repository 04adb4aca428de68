// One job: what was asked, its attempts with their times and errors, its result and callback, and what can be done.

import { get } from "./request.js";
import { cancelJob, retryJob } from "./actions.js";
import { badge, between, byId, duration, element, liveTime, shortHash, sinceNow, time } from "./elements.js";
import { operations, root } from "../root.js";

let shown = "";
let asked = "";

export function openJob(id) {
  asked = id;
  shown = "";
  byId("job").replaceChildren(element("h1", { id: "job-title", tabindex: "-1" }, "Looking for this job …"));
}

const isOver = (job) => ["completed", "failed", "cancelled"].includes(job.status);

export async function lookAtJob(id) {
  let told;
  try {
    told = await get(`jobs/${encodeURIComponent(id)}`);
  } catch (error) {
    if (error.status !== 404 || id !== asked) throw error;
    byId("job").replaceChildren(
      element("h1", { id: "job-title", tabindex: "-1" }, "No job has this id"),
      element("p", {}, "It was removed by retention, or the address is not whole. ", element("a", { href: `${operations}/jobs` }, "All jobs")));
    return;
  }
  if (id !== asked) return;
  const { job, holder } = told;
  const { at, ...rest } = holder;
  const text = JSON.stringify([job, rest]);
  if (text === shown) return;
  shown = text;
  const section = byId("job");
  const focused = section.contains(document.activeElement) ? document.activeElement.id : "";
  const open = section.querySelector("#job-raw")?.open;
  section.replaceChildren(...parts(job, holder));
  if (open) byId("job-raw").open = true;
  // What had the focus keeps it; what is gone gives it to the title.
  if (focused) (byId(focused) || byId("job-title")).focus();
}

const stateOf = (job) => ({ queued: Date.parse(job.runAt) > Date.parse(job.updatedAt) + 1 ? "delayed" : "waiting", processing: "active" })[job.status] || job.status;

function parts(job, holder) {
  const state = stateOf(job);
  return [
    element("p", {}, element("a", { href: `${operations}/jobs` }, "Jobs"), " / ", element("span", { class: "mono" }, job.id)),
    element("div", { class: "row head" }, element("h1", { id: "job-title", tabindex: "-1" }, job.fileName || shortHash(job.contentHash)), badge(state), ...buttons(job, state)),
    job.error ? element("div", { class: "notice bad" }, element("p", {}, job.error)) : "",
    verdict(job.result),
    element("div", { class: "pair" },
      element("section", { class: "sheet stack", "aria-labelledby": "asked-title" }, element("h2", { id: "asked-title" }, "Asked"), facts(job, holder)),
      element("section", { class: "sheet stack", "aria-labelledby": "attempts-title" }, element("h2", { id: "attempts-title" }, "Attempts"), timeline(job, holder))),
    report(job.result),
    callback(job.callback),
    element("details", { class: "sheet", id: "job-raw" }, element("summary", { id: "job-raw-title" }, "Raw JSON"),
      element("pre", { tabindex: "0", role: "region", "aria-labelledby": "job-raw-title" }, JSON.stringify(job, null, 2))),
  ].filter((part) => part !== "");
}

function buttons(job, state) {
  const page = element("a", { class: "button small", href: `${root}/jobs/${job.id}` }, "Public page");
  if (isOver(job)) return [element("button", { class: "small", id: "job-retry", onclick: () => retryJob(job.id, state) }, "Retry"), page];
  return [element("button", { class: "small", id: "job-cancel", onclick: () => cancelJob(job.id, state === "active") }, "Cancel"), page];
}

function list(rows) {
  return element("dl", { class: "facts" }, ...rows.filter(([, value]) => value !== null && value !== undefined && value !== "").flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)]));
}

const code = (text) => (text === null || text === undefined ? null : element("code", {}, String(text)));

function facts(job, holder) {
  return list([
    ["Type", job.type],
    ["Content", element("a", { href: `${operations}/jobs?search=${job.contentHash}` }, code(job.contentHash))],
    ["Manifest", element("a", { href: `${operations}/jobs?search=${encodeURIComponent(job.manifestUri)}` }, code(job.manifestUri))],
    ["Registry", element("a", { href: `${operations}/jobs?search=${job.registryAddress}` }, code(job.registryAddress))],
    ["Chain", job.chainId === null ? "the default one" : String(job.chainId)],
    ["RPC endpoint", code(job.rpcUrl)],
    ["Trace", code(holder.traceId)],
  ]);
}

function step(when, title, ...rest) {
  return element("li", {}, element("strong", {}, title), element("span", { class: "soft number" }, time(when), " · ", liveTime(when)), ...rest);
}

function timeline(job, holder) {
  const steps = [step(job.createdAt, "Asked")];
  for (const told of job.errors) steps.push(step(told.at, `Attempt ${told.attempt} failed`, element("span", { class: "error" }, told.error)));
  if (job.startedAt && job.status !== "queued" && !job.errors.some((told) => told.attempt === job.attempt)) {
    const waited = job.attempt === 1 ? `waited ${duration(Math.max(0, between(job.createdAt, job.startedAt)))}` : null;
    steps.push(step(job.startedAt, `Attempt ${job.attempt} began`, waited && element("span", { class: "soft number" }, waited)));
  }
  if (job.status === "processing") {
    steps.push(element("li", {}, element("strong", {}, `Running, ${job.progress} %`), element("span", { class: "mono" }, holder.workerId || ""),
      holder.leaseUntil ? element("span", { class: "soft" }, "its lease ends ", liveTime(holder.leaseUntil)) : ""));
  }
  if (job.status === "queued") steps.push(element("li", {}, element("strong", {}, sinceNow(job.runAt) < 0 ? "Waits for its time" : "Waits in line"), element("span", { class: "soft" }, "from ", liveTime(job.runAt))));
  if (job.completedAt) {
    const ran = job.startedAt && job.status !== "cancelled" ? `ran ${duration(Math.max(0, between(job.startedAt, job.completedAt)))}` : null;
    steps.push(step(job.completedAt, { completed: "Completed", failed: "Failed", cancelled: "Cancelled" }[job.status], ran && element("span", { class: "soft number" }, ran)));
  }
  return element("div", { class: "stack" }, element("p", { class: "soft number" }, `${job.retryCount} of at most ${job.maxAttempts - 1} retries used`), element("ol", { class: "timeline" }, ...steps));
}

function verdict(result) {
  const status = result?.status || result?.verification?.status;
  const told = result?.report?.conclusion?.message;
  const kind = { OK: "good", WARN: "warn", FAIL: "bad" }[status];
  return kind ? element("div", { class: `notice ${kind}` }, element("p", {}, "Verdict: ", element("strong", {}, status), told ? `: ${told}` : "")) : "";
}

function report(result) {
  const checks = Array.isArray(result?.report?.checks) ? result.report.checks : [];
  const sources = Array.isArray(result?.report?.sources) ? result.report.sources : [];
  if (!checks.length && !sources.length) return "";
  const words = { passed: "passed", failed: "failed", notChecked: "not checked" };
  return element("section", { class: "sheet stack", "aria-labelledby": "report-title" }, element("h2", { id: "report-title" }, "Report"),
    element("div", { class: "wide", tabindex: "0", role: "region", "aria-label": "Table of checks" }, element("table", {},
      element("thead", {}, element("tr", {}, ...["Check", "Outcome", "Reason"].map((name) => element("th", { scope: "col" }, name)))),
      element("tbody", {}, ...checks.map((check) => element("tr", {}, element("th", { scope: "row", class: "mono" }, String(check.code)),
        element("td", {}, element("span", { class: `badge ${{ passed: "completed", failed: "failed" }[check.outcome] || ""}` }, words[check.outcome] || String(check.outcome))), element("td", {}, String(check.message ?? ""))))))),
    sources.length ? element("h3", {}, "Sources that were tried") : "",
    element("ul", { class: "sources" }, ...sources.map((source) => element("li", {}, `${source.what}: `, element("code", {}, String(source.url ?? "")), ` ${source.outcome ?? ""} ${source.message ?? ""}`))));
}

function callback(told) {
  if (!told) return "";
  return element("section", { class: "sheet stack", "aria-labelledby": "callback-title" }, element("h2", { id: "callback-title" }, "Callback"), list([
    ["Address", code(told.url)], ["State", told.state], ["Attempts", String(told.attempts)], ["Last status", told.lastStatus === null ? null : String(told.lastStatus)],
    ["Last error", told.lastError], ["Next attempt", told.nextAt ? liveTime(told.nextAt) : null], ["Delivered", told.deliveredAt ? liveTime(told.deliveredAt) : null]]));
}
