// The service's HTTP API, and what its refusals mean for the person in front of the page.

import { root } from "./root.js";

const JOBS = `${root}/api/verification-jobs`;
// Another service under the same host has a key of its own.
const KEY_ITEM = `iidq.apiKey${root}`;

/** Something went wrong, in words: what, and what to do next. `fields` maps a field's name to its fault. */
export class Fault extends Error {
  constructor(message, next, { status = 0, fields = {}, retryAfterSeconds = null } = {}) {
    super(message);
    this.next = next;
    this.status = status;
    this.fields = fields;
    this.retryAfterSeconds = retryAfterSeconds;
  }
}

export const apiKey = {
  get: () => sessionStorage.getItem(KEY_ITEM) ?? "",
  set: (text) => sessionStorage.setItem(KEY_ITEM, text),
  forget: () => sessionStorage.removeItem(KEY_ITEM),
};

/** Headers that each request carries. */
function headers(more = {}) {
  const key = apiKey.get();
  return key ? { ...more, "x-api-key": key } : more;
}

function unreachable() {
  return navigator.onLine === false
    ? new Fault("This device is offline.", "Connect it to the network and try again: what you entered stays here.")
    : new Fault("The service cannot be reached.", "Check the connection and try again in a moment: what you entered stays here.");
}

/** A request whose reply is of any status; a Fault only where there was no reply. */
export async function ask(path, { headers: more, ...options } = {}) {
  try {
    return await fetch(path, { cache: "no-store", credentials: "same-origin", ...options, headers: headers(more) });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw unreachable();
  }
}

export const jobPath = (id) => `${JOBS}/${encodeURIComponent(id)}`;
export const eventsPath = (id) => `${jobPath(id)}/events`;
export const pagePath = (id) => `${root}/jobs/${encodeURIComponent(id)}`;

/** Submits by hash; the reply is `{mode: "async", jobId}` or `{mode: "sync", result}`. */
export async function submit(type, fields, idempotencyKey) {
  const response = await ask(`${JOBS}/${type}`, {
    method: "POST",
    headers: { "Content-Type": "application/json", "Idempotency-Key": idempotencyKey },
    body: JSON.stringify(fields),
  });
  if (!response.ok) throw await faultOf(response);
  return response.json();
}

/** Submits the file itself; `onProgress(sentBytes, allBytes)`. */
export function upload(type, fields, file, idempotencyKey, onProgress) {
  const form = new FormData();
  for (const [name, value] of Object.entries(fields)) form.append(name, String(value));
  form.append("file", file);
  return new Promise((resolve, reject) => {
    // fetch tells nothing of how far an upload has come.
    const request = new XMLHttpRequest();
    request.open("POST", `${JOBS}/${type}`);
    for (const [name, value] of Object.entries(headers({ "Idempotency-Key": idempotencyKey }))) {
      request.setRequestHeader(name, value);
    }
    request.upload.onprogress = (event) => onProgress(event.loaded, event.total);
    request.onerror = () => reject(unreachable());
    request.onload = () => {
      const body = parsed(request.responseText);
      if (request.status < 300 && body) resolve(body);
      else reject(faultFrom(request.status, body, Number(request.getResponseHeader("Retry-After")) || null));
    };
    request.send(form);
  });
}

export async function stats() {
  const response = await ask(`${JOBS}/stats`);
  return response.ok ? response.json() : null;
}

export async function faultOf(response) {
  const body = parsed(await response.text().catch(() => ""));
  return faultFrom(response.status, body, Number(response.headers.get("Retry-After")) || null);
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

function faultFrom(status, body, retryAfterSeconds) {
  const told = typeof body?.error === "string" ? body.error : "";
  const details = { status, retryAfterSeconds };
  const soon = retryAfterSeconds ? `in ${seconds(retryAfterSeconds)}` : "in a moment";
  const id = typeof body?.correlationId === "string" ? `, who finds this request under ${body.correlationId}` : "";
  switch (true) {
    case status === 400 && Array.isArray(body?.errors): {
      const fields = Object.fromEntries(body.errors.map(({ field, message }) => [field, message]));
      return new Fault("Some of what was entered cannot be used.", "Mend the fields that are marked below.", { ...details, fields });
    }
    case status === 401:
      return new Fault("The service asks for its API key.", "Enter the key; its operator hands it out.", details);
    case status === 404:
      return new Fault("There is no such verification.", "Check the link.", details);
    case status === 413:
      return new Fault("The file is larger than this service takes.", "Untick “Upload the file instead”: a fingerprint can be sent of a file of any size.", details);
    case status === 422:
      return new Fault(told || "The verification could not be carried out.", nextStep(body?.code), details);
    case status === 429:
      return new Fault("Too many requests came from your network.", `Try again ${soon}.`, details);
    case status === 503:
      return new Fault(told ? `The service cannot do this for now: ${told}.` : "The service cannot do this for now.", `Try again ${soon}.`, details);
    default:
      return new Fault(`The service answered with an error (${status}${told ? `: ${told}` : ""}).`, `Try again; if it happens again, tell the service’s operator${id}.`, details);
  }
}

function seconds(number) {
  return number === 1 ? "one second" : `${number} seconds`;
}

/** What a person can do about an error with this code (`manifest.malformed`, `rpc.unavailable`). */
export function nextStep(code = "") {
  switch (code) {
    case "rpc.chain_not_configured":
      return "Choose another chain: this service has no connection to this one. Its operator can add it.";
    case "rpc.endpoint_not_configured":
      return "Try again without the RPC URL: the service’s operator has taken this endpoint away.";
    case "rpc.chain_mismatch":
      return "Leave out the chain or the RPC URL: they belong to different chains.";
    case "fetch.refused.rpc_url":
      return "Leave out the RPC URL: this service asks only endpoints that its operator has allowed.";
  }
  if (code.startsWith("fetch.refused")) return "The service fetches manifests only from public addresses: use an ipfs:// URI, or an http(s) URL of a public host.";
  switch (code.split(".")[0]) {
    case "fetch":
      return "Check the manifest’s URI, and try again later: the server or the IPFS gateways that hold it did not deliver it.";
    case "manifest":
      return "Check the manifest’s URI: what lies there is missing or no manifest. If the URI is right, tell the creator.";
    case "signature":
      return "The manifest’s signature is broken, so nobody can be held to it. Ask the creator for a manifest that is signed properly.";
    case "registry":
      return "Check the registry’s address and the chain: what is there is no registry of content.";
    case "rpc":
      return "Try again in a few minutes: the chain’s endpoint did not answer. If it goes on, tell the service’s operator.";
    case "attempt":
      return "Try again: it took longer than the service allows.";
    case "idempotency":
      return "Reload the page and send it again.";
    default:
      return "Try again; if it happens again, tell the service’s operator the number of this verification.";
  }
}
