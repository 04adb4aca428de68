// The error at the top of the page, and the form for the API key.

import { button, byId, element } from "../shared/elements.js";
import { apiKey } from "../shared/request.js";

const service = document.body.dataset;
/** Repeated once the key is entered. */
let afterKey = null;

/** Whether the service needs a key with every request and none is entered. */
export const needsKey = () => service.key === "required" && !apiKey.get();

export function openKeyForm() {
  byId("key").addEventListener("submit", (event) => {
    event.preventDefault();
    useKey();
  });
}

/** Show a Fault with further lines. On a job's page, offer `retry`. */
export function showTrouble(fault, retry, more = [], focus = true) {
  const box = byId("trouble");
  box.replaceChildren(
    element("p", {}, element("strong", {}, fault.message)),
    ...more.map((text) => element("p", {}, text)),
    element("p", {}, fault.next),
  );
  if (service.view === "job") box.append(button("Try again", () => (hideTrouble(), void retry()), "small"));
  box.hidden = false;
  if (focus) box.focus();
}

export function hideTrouble() {
  byId("trouble").hidden = true;
  byId("trouble").replaceChildren();
}

/** Show the form with `fault` about the last key; call `retry` once a key is entered. */
export function askForKey(fault, retry) {
  apiKey.forget();
  afterKey = retry;
  byId("key").hidden = false;
  byId("key-fault").textContent = fault;
  byId("key-text").value = "";
  byId("key-text").focus();
}

function useKey() {
  const text = byId("key-text").value.trim();
  // Other characters cannot be sent in a header.
  if (!/^[\x21-\x7e]+$/.test(text)) {
    byId("key-fault").textContent = text
      ? "A key has no spaces, only letters, digits and signs. Enter it again."
      : "Enter the key.";
    byId("key-text").focus();
    return;
  }
  apiKey.set(text);
  byId("key").hidden = true;
  const retry = afterKey;
  afterKey = null;
  if (service.view === "ask") byId("file").focus();
  void retry?.();
}
