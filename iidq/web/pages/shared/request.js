// One request to the service: where the service is, its replies, and the errors of both pages.

/** The path before all paths of the service: "", or for example "/iidq" behind a proxy. */
// This file is <root>/assets/<digest>/shared/request.js.
export const root = new URL("../../..", import.meta.url).pathname.slice(0, -1);

// Another service of the same host has a key of its own.
const KEY_ITEM = `iidq.apiKey${root}`;

/** The API key of this browser tab. */
export const apiKey = {
  get: () => sessionStorage.getItem(KEY_ITEM) ?? "",
  set: (text) => sessionStorage.setItem(KEY_ITEM, text),
  forget: () => sessionStorage.removeItem(KEY_ITEM),
};

/**
 * A request that failed. `message` is the cause, `next` the advice. `status` is the HTTP status, 0 without a
 * reply. `fields` maps names of refused fields to their faults.
 */
export class Fault extends Error {
  constructor(message, next = "", { status = 0, fields = {}, retryAfterSeconds = null } = {}) {
    super(message);
    this.next = next;
    this.status = status;
    this.fields = fields;
    this.retryAfterSeconds = retryAfterSeconds;
  }
}

/** Return the fault of a request without a reply. */
export function unreachable() {
  return navigator.onLine === false
    ? new Fault("This device is offline.", "Connect it to the network and try again. Your entries are kept.")
    : new Fault(
        "The service cannot be reached.",
        "Check the connection and try again in a moment. Your entries are kept.",
      );
}

/** Send a request and return its reply of any status. Throw a Fault if there is no reply. */
export async function request(path, options = {}) {
  try {
    return await fetch(path, { cache: "no-store", credentials: "same-origin", ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw unreachable();
  }
}

/** Return the JSON of a reply, or null if there is none, as from a proxy. */
export async function bodyOf(response) {
  return parsed(await response.text().catch(() => ""));
}

export function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}
