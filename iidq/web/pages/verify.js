// The verification page: the form at `/`, a job at `/jobs/<id>`.
import { apiKey, Fault, pagePath, stats, submit } from "./api.js";
import { $, button, copyText, element } from "./elements.js";
import { follow, isFinal } from "./follow.js";
import { markRefused, openForm, sendForm } from "./form.js";
import { answered, idempotencyKey } from "./idempotency.js";
import { clearJob, permanentLink, showJob, showNoJob } from "./job-view.js";
import { downloadLink, makeProof } from "./proof.js";
import { root } from "./root.js";
import { askForKey, hideTrouble, needsKey, openKeyForm, showTrouble } from "./trouble.js";
import { registeredManifest } from "./verdict.js";

const service = document.body.dataset;
const WHY_QUEUED_AFTER_MS = 2_000;
const WHY_QUEUED_EVERY_MS = 10_000;

/** What is being followed; aborted when another view comes. */
let following = new AbortController();

function start() {
  openForm(() => void send());
  openKeyForm();
  window.addEventListener("popstate", () => void route());
  if (needsKey()) askForKey("", route);
  void route();
}

async function route() {
  following.abort();
  hideTrouble();
  const id = /^\/jobs\/([^/]+)\/?$/.exec(location.pathname.slice(root.length))?.[1];
  service.view = id ? "job" : "ask";
  if (!id) {
    document.title = "Verify a file · iidq";
    return;
  }
  clearJob();
  if (needsKey()) return;
  await followJob(decodeURIComponent(id));
}

async function send() {
  hideTrouble();
  try {
    const sent = await sendForm();
    if (sent === null) return;
    answered();
    received(sent.reply, "verify", sent.asked);
  } catch (error) {
    if (!(error instanceof Fault)) throw error;
    refused(error, send);
  }
}

function received(reply, type, asked) {
  if (reply.mode === "async") {
    history.pushState(null, "", pagePath(reply.jobId));
    void route();
  } else {
    following.abort();
    following = new AbortController();
    service.view = "job";
    clearJob();
    const result = reply.result;
    const job = {
      id: null, type, status: "completed", progress: 100, result, error: null, errors: [], attempt: 1,
      contentHash: result?.fileHash ?? result?.content?.hash ?? asked.contentHash,
      manifestUri: asked.manifestURI, registryAddress: asked.registryAddress, chainId: asked.chainId ?? null, fileName: asked.fileName ?? null,
    };
    showJob(job);
    showActions(job);
    $("job-words").append(
      element("p", { className: "soft", textContent: "The queue was not available, so this was verified at once. It has no link of its own: keep the JSON below." }),
    );
  }
  $("job-title").focus();
  window.scrollTo(0, 0);
}

async function followJob(id) {
  following.abort();
  const mine = (following = new AbortController());
  let latest = null;
  let shownActions = "";
  let why = setTimeout(function tell() {
    why = setTimeout(tell, WHY_QUEUED_EVERY_MS);
    void tellWhyQueued(latest, mine.signal);
  }, WHY_QUEUED_AFTER_MS);
  mine.signal.addEventListener("abort", () => clearTimeout(why));
  try {
    await follow(id, {
      signal: mine.signal,
      onJob: (job) => {
        if (mine.signal.aborted) return;
        latest = job;
        if (job.status !== "queued" || isFinal(job)) setConnection("");
        showJob(job);
        const wanted = JSON.stringify([job.id, job.status]);
        if (wanted !== shownActions) {
          shownActions = wanted;
          showActions(job);
        }
      },
      onConnection: (how) => {
        if (mine.signal.aborted) return;
        $("job").dataset.transport = how;
        if (how === "lost") $("progress").hidden = false;
        if (how === "lost") setConnection("The connection to the service is lost; trying again. The verification goes on meanwhile.");
        else if ($("connection").textContent.startsWith("The connection")) setConnection("");
      },
    });
  } catch (error) {
    if (mine.signal.aborted) return;
    if (!(error instanceof Fault)) throw error;
    if (error.status === 401) refused(error, route);
    else if (error.status === 404) {
      showNoJob("There is no such verification", [
        "Either the link is not complete, or the verification is older than this service keeps them.",
        "Ask whoever sent you the link, or verify the file yourself.",
      ]);
    } else showTrouble(error, route);
  } finally {
    clearTimeout(why);
  }
}

async function tellWhyQueued(job, signal) {
  if (job?.status !== "queued" || job.errors?.length) return;
  const counts = await stats().catch(() => null);
  if (signal.aborted || !counts?.available) return;
  if (counts.state === "paused") setConnection(`The queue is paused${counts.pauseReason ? ` (${counts.pauseReason})` : ""}. This goes on when it is resumed; you can close the page and come back by its link.`);
  else if (counts.workers === 0) setConnection("No worker is running at present. This goes on when one comes; you can close the page and come back by its link.");
  else setConnection(`${counts.waiting} waiting. You can close the page and come back by its link.`);
}

function setConnection(text) {
  if ($("connection").textContent !== text) $("connection").textContent = text;
}

function showActions(job) {
  const link = permanentLink(job);
  const buttons = [];
  const [copy, told] = link ? copyButton(link) : [];
  const registered = registeredManifest(job);
  if (registered) buttons.push(button("Verify with the registered manifest", () => void again(job, { ...questionOf(job), manifestURI: registered }), "main"));
  if (copy) buttons.push(copy);
  if (job.status === "completed" && job.type === "proof") buttons.push(downloadLink(job.result, job.contentHash));
  if (job.status === "completed" && job.type === "verify") buttons.push(button("Make a proof", (self) => void prove(job, self)));
  if (job.status === "failed" || job.status === "cancelled") buttons.push(button("Try again", () => void again(job), "main"));
  if (isFinal(job)) buttons.push(element("a", { className: "button", href: `${root}/`, textContent: "Verify another file" }));
  if (told) buttons.push(told);
  $("actions").replaceChildren(...buttons);
}

function copyButton(link) {
  const told = element("span", { className: "soft", role: "status" });
  const copy = button("Copy the link", () => {
    copyText(link).then(
      () => (told.textContent = "Copied"),
      () => (told.textContent = link),
    );
  });
  return [copy, told];
}

function questionOf(job) {
  const question = { contentHash: job.contentHash, manifestURI: job.manifestUri, registryAddress: job.registryAddress };
  if (job.chainId) question.chainId = job.chainId;
  if (job.fileName) question.fileName = job.fileName;
  if (job.rpcUrl) question.rpcUrl = job.rpcUrl;
  return question;
}

async function prove(job, self) {
  if (self?.getAttribute("aria-disabled") === "true") return;
  self?.setAttribute("aria-disabled", "true");
  hideTrouble();
  const fields = questionOf(job);
  try {
    await makeProof(fields, idempotencyKey("proof", fields), following.signal);
    answered();
    const held = document.activeElement === self;
    self?.remove();
    if (held) $("proof").querySelector("a")?.focus();
  } catch (error) {
    if (!(error instanceof Fault)) throw error;
    $("proof").hidden = true;
    self?.removeAttribute("aria-disabled");
    refused(error, () => prove(job, self));
  }
}

async function again(job, fields = questionOf(job)) {
  hideTrouble();
  try {
    const reply = await submit(job.type, fields, idempotencyKey(job.type, fields));
    answered();
    received(reply, job.type, fields);
  } catch (error) {
    if (!(error instanceof Fault)) throw error;
    refused(error, () => again(job, fields));
  }
}

/** A refusal where it belongs: the key's form, the fields, or the top of the page. */
function refused(fault, retry) {
  if (fault.status === 401) {
    askForKey(apiKey.get() ? "This key is not the service’s." : "", retry);
    return;
  }
  const others = service.view === "ask" ? markRefused(fault.fields) : fault.fields;
  const marked = Object.keys(fault.fields).length > Object.keys(others).length;
  const more = Object.entries(others).map(([name, message]) => `${name}: ${message}`);
  showTrouble(fault, retry, more, !marked);
}

start();
