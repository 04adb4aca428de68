// A job on the page: its verdict, progress, checks and facts.
import { pagePath } from "./api.js";
import { $, element } from "./elements.js";
import { isFinal } from "./follow.js";
import { root } from "./root.js";
import { attemptWords, checksOf, OUTCOMES, stepsOf, verdictOf } from "./verdict.js";
import { moment } from "./words.js";

let announced = "";

/** Shows `job` in whatever state it is; unchanged parts stay as they are. */
export function showJob(job) {
  const verdict = verdictOf(job);
  $("verdict").className = `verdict ${verdict.tone}`;
  setText($("job-sign"), verdict.sign);
  setTitle(verdict.title, verdict.detail);
  const words = verdict.sentences.map((text) => element("p", { textContent: text }));
  if (verdict.next) words.push(element("p", {}, element("strong", { textContent: "What to do: " }), verdict.next));
  words.push(...foreignRegistry(job));
  replace($("job-words"), words);
  document.title = `${isFinal(job) ? verdict.title : "Verifying …"} · iidq`;
  showProgress(job);
  showChecks(job);
  showFacts(job);
  $("raw").hidden = !isFinal(job);
  setText($("raw-text"), JSON.stringify(job.id ? job : job.result, null, 2));
  announce(isFinal(job) ? `${verdict.sign}. ${$("job-title").textContent}` : latestStep(job));
}

/** A link that leads nowhere, or another end without a job. */
export function showNoJob(title, sentences) {
  $("verdict").className = "verdict";
  setText($("job-sign"), "Nothing to show");
  setTitle(title, "");
  replace($("job-words"), [
    ...sentences.map((text) => element("p", { textContent: text })),
    element("p", {}, element("a", { href: `${root}/`, textContent: "Verify a file" })),
  ]);
  document.title = `${title} · iidq`;
  for (const id of ["progress", "facts", "raw", "proof"]) $(id).hidden = true;
  for (const id of ["checks", "actions"]) replace($(id), []);
}

/** Back to how it looked before any job. */
export function clearJob() {
  announced = "";
  showNoJob("Looking for this verification …", []);
  setText($("job-sign"), "Verification");
  replace($("job-words"), []);
  setText($("announcer"), "");
  setText($("connection"), "");
}

function showProgress(job) {
  $("progress").hidden = isFinal(job);
  $("job-progress").value = job.progress;
  const steps = stepsOf(job);
  const list = $("steps");
  if (list.children.length !== steps.length) {
    replace(list, steps.map(() => element("li", {}, element("span"), element("span", { className: "seen-not" }))));
  }
  steps.forEach(({ state, label }, place) => {
    const item = list.children[place];
    item.className = state;
    setText(item.firstChild, label);
    if (state === "now") item.setAttribute("aria-current", "step");
    else item.removeAttribute("aria-current");
    setText(item.lastChild, { done: ": done", now: ": now", later: "" }[state]);
  });
  setText($("attempt"), attemptWords(job));
}

function showChecks(job) {
  const checks = job.status === "completed" ? checksOf(job.result) : [];
  const looked = checks.filter((check) => check.outcome !== "notChecked");
  const left = checks.filter((check) => check.outcome === "notChecked");
  replace($("checks"), [
    ...(looked.length ? [sheet("What was checked", list(looked))] : []),
    ...(checks.length
      ? [
          sheet(
            "What was not checked",
            list(left),
            element("p", {
              className: "soft",
              textContent: "No check can tell who stands behind an address, nor whether they made the content themselves.",
            }),
          ),
        ]
      : []),
  ]);
}

const sheet = (title, ...children) => element("section", { className: "sheet stack" }, element("h2", { textContent: title }), ...children);

function list(checks) {
  const items = checks.map(({ outcome, label, message }) =>
    element(
      "li",
      { className: outcome },
      element("span", { className: "outcome", textContent: OUTCOMES[outcome] }),
      element("div", {}, element("p", { textContent: label }), element("p", { textContent: message })),
    ),
  );
  return items.length ? element("ul", { className: "checks" }, ...items) : "";
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
    ["Asked", job.createdAt, "time"],
    ["Verification number", job.id, "mono"],
  ].filter(([, value]) => value !== null && value !== undefined && value !== "");
  $("facts").hidden = false;
  const facts = $("facts-list");
  // Rows come when they are known; those that stand keep their elements, and so a reader's place.
  const shown = JSON.stringify(rows);
  if (facts.dataset.shown === shown) return;
  facts.dataset.shown = shown;
  replace(
    facts,
    rows.map(([name, value, className = ""]) =>
      element("div", {}, element("dt", { textContent: name }), element("dd", { className }, className === "time" ? timeOf(value) : String(value))),
    ),
  );
}

const timeOf = (time) => element("time", { dateTime: String(time), textContent: moment(time) });

/** A link can name any registry, also one that its sender has filled: the verdict then says so. */
function foreignRegistry(job) {
  const own = document.body.dataset.registry;
  if (job.status !== "completed" || !own || own.toLowerCase() === String(job.registryAddress).toLowerCase()) return [];
  return [
    element("p", {}, element("strong", { textContent: "Mind the registry: " }), `${job.registryAddress} is not the one that this service fills in. Its entries are worth as much as your trust in it.`),
  ];
}

/** One heading in two sizes; read aloud it is one sentence. */
function setTitle(title, detail) {
  const joined = detail ? element("span", { className: "seen-not", textContent: ": " }) : "";
  replace($("job-title"), [element("span", { textContent: title }), joined, element("span", { className: "detail", textContent: detail })]);
}

function latestStep(job) {
  const done = stepsOf(job).filter((step) => step.state === "done").at(-1);
  return done ? done.label : "Waiting for a worker";
}

/** Tells a screen reader, once. */
function announce(text) {
  if (text === announced) return;
  announced = text;
  $("announcer").textContent = text;
}

export function permanentLink(job) {
  return job.id ? new URL(pagePath(job.id), location.href).href : null;
}

function setText(target, text) {
  if (target.textContent !== text) target.textContent = text;
}

function replace(target, children) {
  const made = children.filter((child) => child !== "");
  const same = made.length === target.children.length && made.every((child, place) => child.isEqualNode(target.children[place]));
  if (!same) target.replaceChildren(...made);
}
