// One job: its inputs, its attempts with times and errors, its result, its callback, and the possible changes.

import { byId, element, time } from "../shared/elements.js";
import { root } from "../shared/request.js";
import { badge, isFinal } from "../shared/states.js";
import { duration, shortHash } from "../shared/words.js";
import { cancelJob, retryJob } from "./actions.js";
import { liveTime, secondsBetween, secondsSince } from "./clock.js";
import { get, operations } from "./session.js";

let shown = "";
let openedId = "";

export function openJob(id) {
  openedId = id;
  shown = "";
  byId("job").replaceChildren(element("h1", { id: "job-title", tabindex: "-1" }, "Loading this job …"));
}

export async function updateJob(id) {
  let reply;
  try {
    reply = await get(`jobs/${encodeURIComponent(id)}`);
  } catch (error) {
    if (error.status !== 404 || id !== openedId) throw error;
    byId("job").replaceChildren(
      element("h1", { id: "job-title", tabindex: "-1" }, "No job has this id"),
      element(
        "p",
        {},
        "Retention has deleted the job, or the address is incomplete. ",
        element("a", { href: `${operations}/jobs` }, "All jobs"),
      ),
    );
    return;
  }
  if (id !== openedId) return;
  const { job, holder } = reply;
  // The time of the reply is no change.
  const text = JSON.stringify([job, { ...holder, at: null }]);
  if (text === shown) return;
  shown = text;
  const section = byId("job");
  const focused = section.contains(document.activeElement) ? document.activeElement.id : "";
  const open = section.querySelector("#job-raw")?.open;
  section.replaceChildren(...parts(job, holder));
  if (open) byId("job-raw").open = true;
  // Keep the focus, or move it to the title if its element is gone.
  if (focused) (byId(focused) || byId("job-title")).focus();
}

const stateOf = (job) =>
  ({ queued: Date.parse(job.runAt) > Date.parse(job.updatedAt) + 1 ? "delayed" : "waiting", processing: "active" })[
    job.status
  ] || job.status;

function parts(job, holder) {
  const state = stateOf(job);
  return [
    element(
      "p",
      {},
      element("a", { href: `${operations}/jobs` }, "Jobs"),
      " / ",
      element("span", { class: "mono" }, job.id),
    ),
    element(
      "div",
      { class: "row head" },
      element("h1", { id: "job-title", tabindex: "-1" }, job.fileName || shortHash(job.contentHash)),
      badge(state),
      ...buttons(job, state),
    ),
    job.error ? element("div", { class: "notice bad" }, element("p", {}, job.error)) : "",
    verdict(job.result),
    element(
      "div",
      { class: "pair" },
      element(
        "section",
        { class: "sheet stack", "aria-labelledby": "inputs-title" },
        element("h2", { id: "inputs-title" }, "Inputs"),
        facts(job, holder),
      ),
      element(
        "section",
        { class: "sheet stack", "aria-labelledby": "attempts-title" },
        element("h2", { id: "attempts-title" }, "Attempts"),
        timeline(job, holder),
      ),
    ),
    report(job.result),
    callback(job.callback),
    element(
      "details",
      { class: "sheet", id: "job-raw" },
      element("summary", { id: "job-raw-title" }, "Raw JSON"),
      element(
        "pre",
        { tabindex: "0", role: "region", "aria-labelledby": "job-raw-title" },
        JSON.stringify(job, null, 2),
      ),
    ),
  ].filter((part) => part !== "");
}

function buttons(job, state) {
  const page = element("a", { class: "button small", href: `${root}/jobs/${job.id}` }, "Public page");
  if (isFinal(job))
    return [
      element("button", { class: "small", id: "job-retry", onclick: () => retryJob(job.id, state) }, "Retry"),
      page,
    ];
  return [
    element(
      "button",
      { class: "small", id: "job-cancel", onclick: () => cancelJob(job.id, state === "active") },
      "Cancel",
    ),
    page,
  ];
}

function list(rows) {
  return element(
    "dl",
    { class: "facts" },
    ...rows
      .filter(([, value]) => value !== null && value !== undefined && value !== "")
      .flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)]),
  );
}

const code = (text) => (text === null || text === undefined ? null : element("code", {}, String(text)));

function facts(job, holder) {
  return list([
    ["Type", job.type],
    ["Content", element("a", { href: `${operations}/jobs?search=${job.contentHash}` }, code(job.contentHash))],
    [
      "Manifest",
      element("a", { href: `${operations}/jobs?search=${encodeURIComponent(job.manifestUri)}` }, code(job.manifestUri)),
    ],
    ["Registry", element("a", { href: `${operations}/jobs?search=${job.registryAddress}` }, code(job.registryAddress))],
    ["Chain", job.chainId === null ? "the default one" : String(job.chainId)],
    ["RPC endpoint", code(job.rpcUrl)],
    ["Trace", code(holder.traceId)],
  ]);
}

function step(when, title, ...rest) {
  return element(
    "li",
    {},
    element("strong", {}, title),
    element("span", { class: "soft number" }, time(when), " · ", liveTime(when)),
    ...rest,
  );
}

function timeline(job, holder) {
  const steps = [step(job.createdAt, "Submitted")];
  for (const { at, attempt, error } of job.errors) {
    steps.push(step(at, `Attempt ${attempt} failed`, element("span", { class: "error" }, error)));
  }
  if (job.startedAt && job.status !== "queued" && !job.errors.some(({ attempt }) => attempt === job.attempt)) {
    const waited =
      job.attempt === 1 ? `waited ${duration(Math.max(0, secondsBetween(job.createdAt, job.startedAt)))}` : null;
    steps.push(
      step(job.startedAt, `Attempt ${job.attempt} began`, waited && element("span", { class: "soft number" }, waited)),
    );
  }
  if (job.status === "processing") {
    steps.push(
      element(
        "li",
        {},
        element("strong", {}, `Running, ${job.progress} %`),
        element("span", { class: "mono" }, holder.workerId || ""),
        holder.leaseUntil ? element("span", { class: "soft" }, "lease ends ", liveTime(holder.leaseUntil)) : "",
      ),
    );
  }
  if (job.status === "queued")
    steps.push(
      element(
        "li",
        {},
        element("strong", {}, secondsSince(job.runAt) < 0 ? "Waits for its time" : "Waits in line"),
        element("span", { class: "soft" }, "from ", liveTime(job.runAt)),
      ),
    );
  if (job.completedAt) {
    const ran =
      job.startedAt && job.status !== "cancelled"
        ? `ran ${duration(Math.max(0, secondsBetween(job.startedAt, job.completedAt)))}`
        : null;
    steps.push(
      step(
        job.completedAt,
        { completed: "Completed", failed: "Failed", cancelled: "Cancelled" }[job.status],
        ran && element("span", { class: "soft number" }, ran),
      ),
    );
  }
  return element(
    "div",
    { class: "stack" },
    element("p", { class: "soft number" }, `${job.retryCount} of at most ${job.maxAttempts - 1} retries used`),
    element("ol", { class: "timeline" }, ...steps),
  );
}

function verdict(result) {
  const status = result?.status || result?.verification?.status;
  const message = result?.report?.conclusion?.message;
  const kind = { OK: "good", WARN: "warn", FAIL: "bad" }[status];
  return kind
    ? element(
        "div",
        { class: `notice ${kind}` },
        element("p", {}, "Verdict: ", element("strong", {}, status), message ? `: ${message}` : ""),
      )
    : "";
}

function report(result) {
  const checks = Array.isArray(result?.report?.checks) ? result.report.checks : [];
  const sources = Array.isArray(result?.report?.sources) ? result.report.sources : [];
  if (!checks.length && !sources.length) return "";
  const words = { passed: "passed", failed: "failed", notChecked: "not checked" };
  return element(
    "section",
    { class: "sheet stack", "aria-labelledby": "report-title" },
    element("h2", { id: "report-title" }, "Report"),
    element(
      "div",
      { class: "wide", tabindex: "0", role: "region", "aria-label": "Table of checks" },
      element(
        "table",
        {},
        element(
          "thead",
          {},
          element("tr", {}, ...["Check", "Outcome", "Reason"].map((name) => element("th", { scope: "col" }, name))),
        ),
        element(
          "tbody",
          {},
          ...checks.map((check) =>
            element(
              "tr",
              {},
              element("th", { scope: "row", class: "mono" }, String(check.code)),
              element(
                "td",
                {},
                element(
                  "span",
                  { class: `badge ${{ passed: "completed", failed: "failed" }[check.outcome] || ""}` },
                  words[check.outcome] || String(check.outcome),
                ),
              ),
              element("td", {}, String(check.message ?? "")),
            ),
          ),
        ),
      ),
    ),
    sources.length ? element("h3", {}, "Sources that were tried") : "",
    element(
      "ul",
      { class: "sources" },
      ...sources.map((source) =>
        element(
          "li",
          {},
          `${source.what}: `,
          element("code", {}, String(source.url ?? "")),
          ` ${source.outcome ?? ""} ${source.message ?? ""}`,
        ),
      ),
    ),
  );
}

function callback(delivery) {
  if (!delivery) return "";
  return element(
    "section",
    { class: "sheet stack", "aria-labelledby": "callback-title" },
    element("h2", { id: "callback-title" }, "Callback"),
    list([
      ["Address", code(delivery.url)],
      ["State", delivery.state],
      ["Attempts", String(delivery.attempts)],
      ["Last status", delivery.lastStatus === null ? null : String(delivery.lastStatus)],
      ["Last error", delivery.lastError],
      ["Next attempt", delivery.nextAt ? liveTime(delivery.nextAt) : null],
      ["Delivered", delivery.deliveredAt ? liveTime(delivery.deliveredAt) : null],
    ]),
  );
}
