// What the page asks of its server: data as JSON, and changes that carry the session's CSRF token.

import { operations } from "../root.js";

const DATA = `${operations}/data/`;
const ANSWER_MS = 15000;

let csrfToken = "";

export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

async function ask(path, options = {}) {
  let reply;
  try {
    reply = await fetch(DATA + path, { ...options, signal: AbortSignal.timeout(ANSWER_MS), cache: "no-store" });
  } catch {
    throw new Refused(0, "The server does not answer. Is it running, and is this machine online?");
  }
  let body = {};
  try {
    body = await reply.json();
  } catch {
    // A proxy's page, or half a reply.
  }
  if (reply.ok) return body;
  const fields = (body.errors || []).map((fault) => `${fault.field}: ${fault.message}`).join("; ");
  throw new Refused(reply.status, fields || body.message || body.error || `The server answered ${reply.status}`);
}

export const get = (path) => ask(path);

export const change = (path, body = {}) =>
  ask(path, {
    method: "POST",
    headers: { "Content-Type": "application/json", "X-CSRF-Token": csrfToken },
    body: JSON.stringify(body),
  });

export async function session() {
  const known = await get("session");
  csrfToken = known.csrfToken || "";
  return known;
}

export async function signIn(key) {
  const opened = await change("sign-in", { key });
  csrfToken = opened.csrfToken || "";
  return opened;
}
