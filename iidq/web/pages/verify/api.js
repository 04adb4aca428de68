// The HTTP API of verification jobs, and its errors in words for a visitor.

import { apiKey, bodyOf, Fault, parsed, request, root, unreachable } from "../shared/request.js";

const JOBS = `${root}/api/verification-jobs`;

export const jobPath = (id) => `${JOBS}/${encodeURIComponent(id)}`;
export const eventsPath = (id) => `${jobPath(id)}/events`;
export const pagePath = (id) => `${root}/jobs/${encodeURIComponent(id)}`;

function headers(more = {}) {
  const key = apiKey.get();
  return key ? { ...more, "x-api-key": key } : more;
}

/** Send a request with the key, and return its reply of any status. Throw a Fault if there is no reply. */
export const send = (path, { headers: more, ...options } = {}) => request(path, { ...options, headers: headers(more) });

const idempotencyKeys = new Map();

/** Return the key of a submission: the same for the same fields, until one has been answered. */
export function idempotencyKey(kind, fields) {
  const submission = JSON.stringify([kind, fields]);
  if (!idempotencyKeys.has(submission)) {
    // Not crypto.randomUUID, which browsers offer only with TLS.
    const bytes = crypto.getRandomValues(new Uint8Array(16));
    idempotencyKeys.set(submission, Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join(""));
  }
  return idempotencyKeys.get(submission);
}

/** Make the next submission a new one. */
export const answered = () => idempotencyKeys.clear();

/** Submit a job by hash. Return `{mode: "async", jobId}` or `{mode: "sync", result}`. */
export async function submit(type, fields, key) {
  const response = await send(`${JOBS}/${type}`, {
    method: "POST",
    headers: { "Content-Type": "application/json", "Idempotency-Key": key },
    body: JSON.stringify(fields),
  });
  if (!response.ok) throw await faultOf(response);
  return response.json();
}

/** Submit a job with the file itself. Call `onProgress(sentBytes, allBytes)` on the way. */
export function upload(type, fields, file, key, onProgress) {
  const form = new FormData();
  for (const [name, value] of Object.entries(fields)) form.append(name, String(value));
  form.append("file", file);
  return new Promise((resolve, reject) => {
    // Not fetch, which reports no progress of an upload.
    const sending = new XMLHttpRequest();
    sending.open("POST", `${JOBS}/${type}`);
    for (const [name, value] of Object.entries(headers({ "Idempotency-Key": key })))
      sending.setRequestHeader(name, value);
    sending.upload.onprogress = (event) => onProgress(event.loaded, event.total);
    sending.onerror = () => reject(unreachable());
    sending.onload = () => {
      const body = parsed(sending.responseText);
      if (sending.status < 300 && body) resolve(body);
      else reject(faultFrom(sending.status, body, sending.getResponseHeader("Retry-After")));
    };
    sending.send(form);
  });
}

export async function stats() {
  const response = await send(`${JOBS}/stats`);
  return response.ok ? response.json() : null;
}

/** Return the Fault of an error reply. */
export async function faultOf(response) {
  return faultFrom(response.status, await bodyOf(response), response.headers.get("Retry-After"));
}

function faultFrom(status, body, retryAfter) {
  const reason = typeof body?.error === "string" ? body.error : "";
  const retryAfterSeconds = Number(retryAfter) || null;
  const details = { status, retryAfterSeconds };
  const soon = retryAfterSeconds ? `in ${seconds(retryAfterSeconds)}` : "in a moment";
  const id = typeof body?.correlationId === "string" ? ` This request has the number ${body.correlationId}.` : "";
  switch (true) {
    case status === 400 && Array.isArray(body?.errors): {
      const fields = Object.fromEntries(body.errors.map(({ field, message }) => [field, message]));
      return new Fault("Some entries cannot be used.", "Fix the fields marked below.", { ...details, fields });
    }
    case status === 401:
      return new Fault(
        "The service needs its API key.",
        "Enter the key. You get it from the service’s operator.",
        details,
      );
    case status === 404:
      return new Fault("There is no such verification.", "Check the link.", details);
    case status === 413:
      return new Fault(
        "The file is too large for this service.",
        "Untick “Upload the file instead”: a fingerprint can be sent of a file of any size.",
        details,
      );
    case status === 422:
      return new Fault(reason || "The verification could not be carried out.", nextStep(body?.code), details);
    case status === 429:
      return new Fault("Too many requests came from your network.", `Try again ${soon}.`, details);
    case status === 503: {
      const cause = reason ? `: ${reason}` : "";
      return new Fault(`The service cannot do this at present${cause}.`, `Try again ${soon}.`, details);
    }
    default: {
      const cause = reason ? `: ${reason}` : "";
      const next = `Try again. If this happens again, report it to the service’s operator.${id}`;
      return new Fault(`The service replied with an error (${status}${cause}).`, next, details);
    }
  }
}

function seconds(number) {
  return number === 1 ? "one second" : `${number} seconds`;
}

const NEXT_STEPS = {
  "rpc.chain_not_configured":
    "Choose another chain: this service has no connection to this one. Its operator can add it.",
  "rpc.endpoint_not_configured": "Try again without the RPC URL: the service’s operator has removed this endpoint.",
  "rpc.chain_mismatch": "Leave out the chain or the RPC URL: they belong to different chains.",
  "fetch.refused.rpc_url": "Leave out the RPC URL: this service uses only endpoints that its operator has allowed.",
  "fetch.refused":
    "Use an ipfs:// URI, or an http(s) URL of a public host: the service fetches manifests only from public addresses.",
  fetch:
    "Check the manifest’s URI, and try again later: the manifest’s server or the IPFS gateways did not deliver it.",
  manifest: "Check the manifest’s URI: the manifest is missing or malformed. If the URI is right, inform the creator.",
  signature: "Ask the creator for a manifest with a valid signature: this one proves nothing.",
  registry: "Check the registry’s address and the chain: there is no registry of content at this address.",
  rpc: "Try again in a few minutes: the chain’s endpoint did not answer. If this goes on, inform the service’s operator.",
  attempt: "Try again: the verification took longer than the service allows.",
  idempotency: "Reload the page and send it again.",
};

/** Return the advice for an error code such as `manifest.malformed`: of the code, else of its first parts. */
export function nextStep(code = "") {
  const parts = code.split(".");
  const known = [code, parts.slice(0, 2).join("."), parts[0]].find((name) => Object.hasOwn(NEXT_STEPS, name));
  return known
    ? NEXT_STEPS[known]
    : "Try again. If this happens again, send the number of this verification to the service’s operator.";
}
