// The verification page: the form at `/`, a job at `/jobs/<id>`.

import { button, byId, copyText, element, setText } from "../shared/elements.js";
import { apiKey, Fault, root } from "../shared/request.js";
import { isFinal } from "../shared/states.js";
import { answered, idempotencyKey, pagePath, stats, submit } from "./api.js";
import { follow } from "./follow.js";
import { markRefused, openForm, sendForm } from "./form.js";
import { clearJob, permanentLink, showJob, showNoJob } from "./job-view.js";
import { downloadLink, makeProof } from "./proof.js";
import { askForKey, hideTrouble, needsKey, openKeyForm, showTrouble } from "./trouble.js";
import { registeredManifest } from "./verdict.js";

const service = document.body.dataset;
const WHY_QUEUED_AFTER_MS = 2_000;
const WHY_QUEUED_EVERY_MS = 10_000;

/** Aborts the job that is followed; used when the view changes. */
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
      id: null,
      type,
      status: "completed",
      progress: 100,
      result,
      error: null,
      errors: [],
      attempt: 1,
      contentHash: result?.fileHash ?? result?.content?.hash ?? asked.contentHash,
      manifestUri: asked.manifestURI,
      registryAddress: asked.registryAddress,
      chainId: asked.chainId ?? null,
      fileName: asked.fileName ?? null,
    };
    showJob(job);
    showActions(job);
    byId("job-words").append(
      element(
        "p",
        { class: "soft" },
        "The queue was not available, so the file was verified at once. This page has no link: keep the JSON below.",
      ),
    );
  }
  byId("job-title").focus();
  window.scrollTo(0, 0);
}

async function followJob(id) {
  following.abort();
  const mine = (following = new AbortController());
  let latest = null;
  let shownActions = "";
  let why = setTimeout(function repeat() {
    why = setTimeout(repeat, WHY_QUEUED_EVERY_MS);
    void showWhyQueued(latest, mine.signal);
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
        byId("job").dataset.transport = how;
        if (how === "lost") byId("progress").hidden = false;
        if (how === "lost")
          setConnection("The connection to the service is lost. The verification goes on; this page tries again.");
        else if (byId("connection").textContent.startsWith("The connection")) setConnection("");
      },
    });
  } catch (error) {
    if (mine.signal.aborted) return;
    if (!(error instanceof Fault)) throw error;
    if (error.status === 401) refused(error, route);
    else if (error.status === 404) {
      showNoJob("There is no such verification", [
        "The link is incomplete, or this service has deleted the verification because of its age.",
        "Ask the sender for the link again, or verify the file yourself.",
      ]);
    } else showTrouble(error, route);
  } finally {
    clearTimeout(why);
  }
}

async function showWhyQueued(job, signal) {
  if (job?.status !== "queued" || job.errors?.length) return;
  const counts = await stats().catch(() => null);
  if (signal.aborted || !counts?.available) return;
  const reason = counts.pauseReason ? ` (${counts.pauseReason})` : "";
  const back = "You can close this page and return by its link.";
  if (counts.state === "paused") setConnection(`The queue is paused${reason}, so this verification waits. ${back}`);
  else if (counts.workers === 0) setConnection(`No worker is running, so this verification waits for one. ${back}`);
  else setConnection(`${counts.waiting} waiting. ${back}`);
}

function setConnection(text) {
  setText(byId("connection"), text);
}

function showActions(job) {
  const link = permanentLink(job);
  const buttons = [];
  const [copy, copyState] = link ? copyButton(link) : [];
  const registered = registeredManifest(job);
  if (registered)
    buttons.push(
      button(
        "Verify with the registered manifest",
        () => void again(job, { ...fieldsOf(job), manifestURI: registered }),
        "main",
      ),
    );
  if (copy) buttons.push(copy);
  if (job.status === "completed" && job.type === "proof") buttons.push(downloadLink(job.result, job.contentHash));
  if (job.status === "completed" && job.type === "verify")
    buttons.push(button("Make a proof", (self) => void prove(job, self)));
  if (job.status === "failed" || job.status === "cancelled")
    buttons.push(button("Try again", () => void again(job), "main"));
  if (isFinal(job)) buttons.push(element("a", { class: "button", href: `${root}/` }, "Verify another file"));
  if (copyState) buttons.push(copyState);
  byId("actions").replaceChildren(...buttons);
}

function copyButton(link) {
  const state = element("span", { class: "soft", role: "status" });
  const copy = button("Copy the link", () => {
    copyText(link).then(
      () => (state.textContent = "Copied"),
      () => (state.textContent = link),
    );
  });
  return [copy, state];
}

function fieldsOf(job) {
  const fields = { contentHash: job.contentHash, manifestURI: job.manifestUri, registryAddress: job.registryAddress };
  if (job.chainId) fields.chainId = job.chainId;
  if (job.fileName) fields.fileName = job.fileName;
  if (job.rpcUrl) fields.rpcUrl = job.rpcUrl;
  return fields;
}

async function prove(job, self) {
  if (self?.getAttribute("aria-disabled") === "true") return;
  self?.setAttribute("aria-disabled", "true");
  hideTrouble();
  const fields = fieldsOf(job);
  try {
    await makeProof(fields, idempotencyKey("proof", fields), following.signal);
    answered();
    const held = document.activeElement === self;
    self?.remove();
    if (held) byId("proof").querySelector("a")?.focus();
  } catch (error) {
    if (!(error instanceof Fault)) throw error;
    byId("proof").hidden = true;
    self?.removeAttribute("aria-disabled");
    refused(error, () => prove(job, self));
  }
}

async function again(job, fields = fieldsOf(job)) {
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

/** Show a fault where it belongs: at the key's form, at the fields, or at the top of the page. */
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
