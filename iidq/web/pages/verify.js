// The verification page: the form at `/`, a job at `/jobs/<id>`.
import { apiKey, Fault, pagePath, stats, submit, upload } from "./api.js";
import { $, copyText, element } from "./elements.js";
import { follow, isFinal } from "./follow.js";
import { hashFile } from "./hashing.js";
import { clearJob, permanentLink, showJob, showNoJob } from "./job-view.js";
import { downloadLink, makeProof } from "./proof.js";
import { sentence, size } from "./words.js";

const service = document.body.dataset;
const FIELDS = ["manifestURI", "registryAddress", "chainId"];
const WHY_QUEUED_AFTER_MS = 2_000;
const WHY_QUEUED_EVERY_MS = 10_000;

/** What the form holds besides its fields. */
const form = { file: null, hashing: null, hash: null, sending: false };
/** What is being followed; aborted when another view comes. */
let following = new AbortController();
/** What is done again once the key is there. */
let afterKey = null;

function start() {
  prefill();
  $("file").addEventListener("change", () => choose($("file").files[0]));
  dropping();
  $("form").addEventListener("submit", (event) => {
    event.preventDefault();
    void send();
  });
  $("upload").addEventListener("change", () => rehash());
  $("registryAddress").addEventListener("input", registryHint);
  for (const name of FIELDS) $(name).addEventListener("input", () => setFault(name, ""));
  $("key").addEventListener("submit", (event) => {
    event.preventDefault();
    useKey();
  });
  window.addEventListener("popstate", () => void route());
  if (service.key === "required" && !apiKey.get()) askForKey("", route);
  void route();
}

async function route() {
  following.abort();
  hideTrouble();
  const id = /^\/jobs\/([^/]+)$/.exec(location.pathname)?.[1];
  service.view = id ? "job" : "ask";
  if (!id) {
    document.title = "Verify a file · iidq";
    return;
  }
  clearJob();
  if (service.key === "required" && !apiKey.get()) return;
  await followJob(decodeURIComponent(id));
}

/* The form */

function prefill() {
  const link = new URLSearchParams(location.search);
  const asked = { manifestURI: link.get("manifestURI"), registryAddress: link.get("registry") ?? link.get("registryAddress"), chainId: link.get("chainId") };
  for (const [name, value] of Object.entries(asked)) {
    if (value !== null) $(name).value = value;
  }
  registryHint();
}

function registryHint() {
  const entered = $("registryAddress").value.trim().toLowerCase();
  const foreign = service.registry && entered && entered !== service.registry.toLowerCase();
  $("registryAddress-hint").textContent = foreign
    ? "Not the registry that this service fills in: its entries are worth as much as your trust in it."
    : "The contract that the content is registered in.";
}

function dropping() {
  const zone = $("drop");
  const over = (event) => {
    if (service.view !== "ask") return;
    event.preventDefault();
    zone.classList.toggle("over", event.type !== "dragleave" && event.type !== "drop");
  };
  for (const name of ["dragover", "dragleave", "drop"]) document.addEventListener(name, over);
  document.addEventListener("drop", (event) => {
    if (service.view === "ask" && event.dataTransfer?.files.length) choose(event.dataTransfer.files[0]);
  });
}

function choose(file) {
  if (!file) return;
  form.file = file;
  $("file-name").textContent = file.name;
  $("file-hint").textContent = size(file.size);
  setFault("file", "");
  rehash();
}

function rehash() {
  form.hashing?.cancel();
  form.hashing = null;
  form.hash = null;
  showHashing({ state: form.file ? "" : "No fingerprint yet" });
  if (!form.file) return;
  if ($("upload").checked) {
    const limit = Number(service.maxUploadBytes);
    showHashing({ state: "The file is sent when you press Verify" });
    if (form.file.size > limit) setFault("file", `is larger than the ${size(limit)} that this service takes; untick “Upload the file instead”`);
    return;
  }
  const file = form.file;
  showHashing({ state: "Computing the fingerprint …" });
  const hashing = hashFile(file, (done, speed) => {
    if (form.hashing === hashing) {
      showHashing({ state: `Computing the fingerprint: ${size(done)} of ${size(file.size)}`, speed: `${size(speed)}/s`, percent: (100 * done) / file.size });
    }
  });
  form.hashing = hashing;
  hashing.result.then(
    (hash) => {
      if (form.hashing !== hashing) return;
      form.hash = hash;
      showHashing({ state: "Fingerprint computed", percent: 100, hash });
    },
    (error) => {
      if (form.hashing !== hashing) return;
      showHashing({ state: "No fingerprint" });
      setFault("file", `${error.message} Choose it again, or another one.`);
    },
  );
}

function showHashing({ state, speed = "", percent = 0, hash = "" }) {
  $("hash-state").textContent = state;
  $("hash-speed").textContent = speed;
  $("hash-progress").value = percent;
  $("hash-text").textContent = hash;
}

async function send() {
  if (form.sending) return;
  hideTrouble();
  const fields = enteredFields();
  if (!markFaults(fields)) return;
  sending(true, "");
  try {
    const reply = $("upload").checked ? await sendFile(fields) : await sendHash(fields);
    keys.clear();
    received(reply, "verify", { ...fields, contentHash: form.hash, fileName: form.file.name });
  } catch (error) {
    if (!(error instanceof Fault)) {
      setFault("file", `${error.message} Choose it again, or another one.`);
      $("file").focus();
    } else refused(error, send);
  } finally {
    sending(false, "");
  }
}

function enteredFields() {
  const fields = {};
  for (const name of FIELDS) {
    const value = $(name).value.trim();
    if (value) fields[name] = value;
  }
  return fields;
}

async function sendHash(fields) {
  sending(true, "It is sent as soon as the fingerprint is known.");
  const contentHash = await form.hashing.result;
  sending(true, "Sending …");
  const asked = { ...fields, contentHash, ...fileNameOf(form.file) };
  return submit("verify", asked, idempotencyKey("verify", asked));
}

async function sendFile(fields) {
  const { name, size: bytes, lastModified } = form.file;
  return upload("verify", fields, form.file, idempotencyKey("upload", { ...fields, name, bytes, lastModified }), (sent, all) => {
    const percent = all ? (100 * sent) / all : 0;
    showHashing({ state: sent < all ? `Sent: ${size(sent)} of ${size(all)}` : "Sent; the service is answering …", percent });
  });
}

/** The service refuses names with controls or of undue length; a hash needs none. */
function fileNameOf(file) {
  const fits = file.name && file.name.length <= 255 && !/[\u0000-\u001f\u007f/\\]/.test(file.name);
  return fits ? { fileName: file.name } : {};
}

const EXPECTED = {
  manifestURI: [/^(ipfs|https?):\/\/\S+$/i, "expected ipfs://…, https://… or http://…"],
  registryAddress: [/^0x[0-9a-fA-F]{40}$/, "expected 0x followed by 40 hex digits"],
  chainId: [/^[1-9][0-9]{0,15}$/, "expected the chain’s number, or nothing for the default chain"],
};

/** Marks what is wrong before anything is sent; whether all is well. */
function markFaults(fields) {
  const faults = {};
  if (!form.file) faults.file = "is missing: choose the file that you want to verify";
  else if ($("file-fault").textContent) return focusFirst(["file"]);
  for (const [name, [pattern, expected]] of Object.entries(EXPECTED)) {
    if (!(name in fields)) {
      if (name !== "chainId") faults[name] = `is missing: ${expected}`;
    } else if (!pattern.test(fields[name])) faults[name] = expected;
  }
  return markFields(faults);
}

function markFields(faults) {
  for (const name of ["file", ...FIELDS]) setFault(name, faults[name] ?? "");
  return focusFirst(["file", ...FIELDS].filter((name) => faults[name]));
}

function focusFirst(names) {
  if (names.length) $(names[0]).focus();
  return names.length === 0;
}

const NAMES = { file: "The file", manifestURI: "The manifest", registryAddress: "The registry", chainId: "The chain" };

function setFault(name, text) {
  // The service's own messages go on after a field's name, or say what was expected.
  const goesOn = /^(is|are|must|cannot|has|names|contains)\b/.test(text);
  $(`${name}-fault`).textContent = text ? sentence(goesOn ? `${NAMES[name]} ${text}` : text) : "";
  if (text) $(name).setAttribute("aria-invalid", "true");
  else $(name).removeAttribute("aria-invalid");
}

function sending(on, state) {
  form.sending = on;
  $("send").setAttribute("aria-disabled", String(on));
  $("send-state").textContent = state;
}

/* What is sent twice is asked once: one key per question, until it has been answered. */

const keys = new Map();

function idempotencyKey(kind, fields) {
  const question = JSON.stringify([kind, fields]);
  if (!keys.has(question)) {
    // randomUUID is not to be had without TLS.
    keys.set(question, Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join(""));
  }
  return keys.get(question);
}

/* A job */

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
    } else trouble(error, route);
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
  if (copy) buttons.push(copy);
  if (job.status === "completed" && job.type === "proof") buttons.push(downloadLink(job.result, job.contentHash));
  if (job.status === "completed" && job.type === "verify") buttons.push(button("Make a proof", (self) => void prove(job, self)));
  if (job.status === "failed" || job.status === "cancelled") buttons.push(button("Try again", () => void again(job), "main"));
  if (isFinal(job)) buttons.push(element("a", { className: "button", href: "/", textContent: "Verify another file" }));
  if (told) buttons.push(told);
  $("actions").replaceChildren(...buttons);
}

function button(text, onClick, className = "") {
  const made = element("button", { type: "button", textContent: text, className });
  made.addEventListener("click", () => onClick(made));
  return made;
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
    keys.clear();
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

async function again(job) {
  hideTrouble();
  const fields = questionOf(job);
  try {
    const reply = await submit(job.type, fields, idempotencyKey(job.type, fields));
    keys.clear();
    received(reply, job.type, fields);
  } catch (error) {
    if (!(error instanceof Fault)) throw error;
    refused(error, () => again(job));
  }
}

/* Trouble, and the key */

function refused(fault, retry) {
  if (fault.status === 401) {
    askForKey(apiKey.get() ? "This key is not the service’s." : "", retry);
    return;
  }
  const known = Object.fromEntries(Object.entries(fault.fields).filter(([name]) => name in NAMES));
  const rest = Object.entries(fault.fields).filter(([name]) => !(name in NAMES) || service.view === "job");
  if (service.view === "ask" && Object.keys(known).length) markFields(known);
  trouble(fault, retry, rest.map(([name, message]) => `${name}: ${message}`), Object.keys(known).length === 0 || service.view === "job");
}

function trouble(fault, retry, more = [], focus = true) {
  const box = $("trouble");
  box.replaceChildren(
    element("p", {}, element("strong", { textContent: fault.message })),
    ...more.map((text) => element("p", { textContent: text })),
    element("p", { textContent: fault.next }),
  );
  if (service.view === "job") box.append(button("Try again", () => (hideTrouble(), void retry()), "small"));
  box.hidden = false;
  if (focus) box.focus();
}

function hideTrouble() {
  $("trouble").hidden = true;
  $("trouble").replaceChildren();
}

function askForKey(fault, retry) {
  apiKey.forget();
  afterKey = retry;
  $("key").hidden = false;
  $("key-fault").textContent = fault;
  $("key-text").value = "";
  $("key-text").focus();
}

function useKey() {
  const text = $("key-text").value.trim();
  // What a header can carry; anything else would fail in fetch.
  if (!/^[\x21-\x7e]+$/.test(text)) {
    $("key-fault").textContent = text ? "A key has no spaces and only letters, digits and signs." : "Enter the key.";
    $("key-text").focus();
    return;
  }
  apiKey.set(text);
  $("key").hidden = true;
  const retry = afterKey;
  afterKey = null;
  if (service.view === "ask") $("file").focus();
  void retry?.();
}

start();
