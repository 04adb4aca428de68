// The data of the operations page, and its session. Changes carry the session's CSRF token.

import { bodyOf, Fault, request, root, unreachable } from "../shared/request.js";

/** The path of the page. */
export const operations = `${root}/admin/queues`;

const DATA = `${operations}/data/`;
const REPLY_MS = 15_000;

let csrfToken = "";

async function reply(path, options = {}) {
  const response = await request(DATA + path, { ...options, signal: AbortSignal.timeout(REPLY_MS) });
  const body = await bodyOf(response);
  if (response.ok && body) return body;
  // The reply was cut off.
  if (response.ok) throw unreachable();
  const fields = (body?.errors || []).map((fault) => `${fault.field}: ${fault.message}`).join("; ");
  const message = fields || body?.message || body?.error || `The server answered ${response.status}`;
  throw new Fault(message, "", { status: response.status });
}

/** Return data; throw a Fault. */
export const get = (path) => reply(path);

/** Make a change and return the reply; throw a Fault. */
export const change = (path, body = {}) =>
  reply(path, {
    method: "POST",
    headers: { "Content-Type": "application/json", "X-CSRF-Token": csrfToken },
    body: JSON.stringify(body),
  });

/** Return `{access, signedIn}` of this browser. */
export async function session() {
  const known = await get("session");
  csrfToken = known.csrfToken || "";
  return known;
}

/** Sign in with the API key and return `{access, signedIn}`. */
export async function signIn(key) {
  const opened = await change("sign-in", { key });
  csrfToken = opened.csrfToken || "";
  return opened;
}
