// A job on the page: its verdict, progress, checks and facts.

import { byId, element, setText, time } from "../shared/elements.js";
import { root } from "../shared/request.js";
import { isFinal } from "../shared/states.js";
import { pagePath } from "./api.js";
import { attemptWords, checksOf, OUTCOMES, stepsOf, verdictOf } from "./verdict.js";

let announced = "";

/** Show `job` in any state. Unchanged parts keep their elements. */
export function showJob(job) {
  const verdict = verdictOf(job);
  byId("verdict").className = `verdict ${verdict.tone}`;
  setText(byId("job-sign"), verdict.sign);
  setTitle(verdict.title, verdict.detail);
  const words = verdict.sentences.map((text) => element("p", {}, text));
  if (verdict.next) words.push(element("p", {}, element("strong", {}, "What to do: "), verdict.next));
  words.push(...foreignRegistry(job));
  replace(byId("job-words"), words);
  document.title = `${isFinal(job) ? verdict.title : "Verifying …"} · iidq`;
  showProgress(job);
  showChecks(job);
  showFacts(job);
  byId("raw").hidden = !isFinal(job);
  setText(byId("raw-text"), JSON.stringify(job.id ? job : job.result, null, 2));
  announce(isFinal(job) ? `${verdict.sign}. ${byId("job-title").textContent}` : latestStep(job));
}

/** Show that there is no job, as for a broken link. */
export function showNoJob(title, sentences) {
  byId("verdict").className = "verdict";
  setText(byId("job-sign"), "Nothing to show");
  setTitle(title, "");
  replace(byId("job-words"), [
    ...sentences.map((text) => element("p", {}, text)),
    element("p", {}, element("a", { href: `${root}/` }, "Verify a file")),
  ]);
  document.title = `${title} · iidq`;
  for (const id of ["progress", "facts", "raw", "proof"]) byId(id).hidden = true;
  for (const id of ["checks", "actions"]) replace(byId(id), []);
}

/** Show the state before any job. */
export function clearJob() {
  announced = "";
  showNoJob("Loading this verification …", []);
  setText(byId("job-sign"), "Verification");
  replace(byId("job-words"), []);
  setText(byId("announcer"), "");
  setText(byId("connection"), "");
}

function showProgress(job) {
  byId("progress").hidden = isFinal(job);
  byId("job-progress").value = job.progress;
  const steps = stepsOf(job);
  const items = byId("steps");
  if (items.children.length !== steps.length) {
    replace(
      items,
      steps.map(() => element("li", {}, element("span"), element("span", { class: "visually-hidden" }))),
    );
  }
  steps.forEach(({ state, label }, place) => {
    const item = items.children[place];
    item.className = state;
    setText(item.firstChild, label);
    if (state === "now") item.setAttribute("aria-current", "step");
    else item.removeAttribute("aria-current");
    setText(item.lastChild, { done: ": done", now: ": now", later: "" }[state]);
  });
  setText(byId("attempt"), attemptWords(job));
}

function showChecks(job) {
  const checks = job.status === "completed" ? checksOf(job.result) : [];
  const looked = checks.filter((check) => check.outcome !== "notChecked");
  const left = checks.filter((check) => check.outcome === "notChecked");
  replace(byId("checks"), [
    ...(looked.length ? [sheet("What was checked", list(looked))] : []),
    ...(checks.length
      ? [
          sheet(
            "What was not checked",
            list(left),
            element(
              "p",
              { class: "soft" },
              "No check shows who owns an address, or whether that person made the content.",
            ),
          ),
        ]
      : []),
  ]);
}

const sheet = (title, ...children) =>
  element("section", { class: "sheet stack" }, element("h2", {}, title), ...children);

function list(checks) {
  const items = checks.map(({ outcome, label, message }) =>
    element(
      "li",
      { class: outcome },
      element("span", { class: "outcome" }, OUTCOMES[outcome]),
      element("div", {}, element("p", {}, label), element("p", {}, message)),
    ),
  );
  return items.length ? element("ul", { class: "checks" }, ...items) : "";
}

function showFacts(job) {
  const result = job.result ?? {};
  const block = result.report?.block;
  const rows = [
    ["File", job.fileName],
    ["SHA-256", job.contentHash, "mono"],
    ["Manifest", job.manifestUri, "mono"],
    ["Registry", job.registryAddress, "mono"],
    ["Chain", block?.chainId ?? job.chainId ?? "the service’s default"],
    ["Registered by", Number(result.onchain?.timestamp) ? result.onchain.creator : null, "mono"],
    ["Signed by", result.recovered ?? result.signature?.recovered, "mono"],
    ["Transaction", result.tx?.txHash, "mono"],
    ["Read at block", block?.number],
    ["Verified", result.report?.verifiedAt, "time"],
    ["Submitted", job.createdAt, "time"],
    ["Verification number", job.id, "mono"],
  ].filter(([, value]) => value !== null && value !== undefined && value !== "");
  byId("facts").hidden = false;
  const facts = byId("facts-list");
  // Unchanged rows keep their elements, so that a screen reader keeps its place.
  const shown = JSON.stringify(rows);
  if (facts.dataset.shown === shown) return;
  facts.dataset.shown = shown;
  replace(
    facts,
    rows.map(([name, value, kind = ""]) =>
      element(
        "div",
        {},
        element("dt", {}, name),
        element("dd", { class: kind }, kind === "time" ? time(value) : String(value)),
      ),
    ),
  );
}

/** Warn about a registry that is not the service's own: a link can name any registry. */
function foreignRegistry(job) {
  const own = document.body.dataset.registry;
  if (job.status !== "completed" || !own || own.toLowerCase() === String(job.registryAddress).toLowerCase()) return [];
  return [
    element(
      "p",
      {},
      element("strong", {}, "Mind the registry: "),
      `${job.registryAddress} is not this service’s registry. Rely on its entries only if you trust it.`,
    ),
  ];
}

/** Show the heading in two sizes; a screen reader reads one sentence. */
function setTitle(title, detail) {
  const joined = detail ? element("span", { class: "visually-hidden" }, ": ") : "";
  replace(byId("job-title"), [element("span", {}, title), joined, element("span", { class: "detail" }, detail)]);
}

function latestStep(job) {
  const done = stepsOf(job)
    .filter((step) => step.state === "done")
    .at(-1);
  return done ? done.label : "Waiting for a worker";
}

/** Announce a text to screen readers, once. */
function announce(text) {
  if (text === announced) return;
  announced = text;
  byId("announcer").textContent = text;
}

export function permanentLink(job) {
  return job.id ? new URL(pagePath(job.id), location.href).href : null;
}

function replace(target, children) {
  const made = children.filter((child) => child !== "");
  const same =
    made.length === target.children.length && made.every((child, place) => child.isEqualNode(target.children[place]));
  if (!same) target.replaceChildren(...made);
}
