// What went wrong and what to do next, told at the top of the page; and the form for the API key.
import { apiKey } from "./api.js";
import { $, button, element } from "./elements.js";

const service = document.body.dataset;
/** What is done again once the key is there. */
let afterKey = null;

/** Whether the service wants a key with every request and has not been given one. */
export const needsKey = () => service.key === "required" && !apiKey.get();

export function openKeyForm() {
  $("key").addEventListener("submit", (event) => {
    event.preventDefault();
    useKey();
  });
}

/** Shows a Fault with further lines; `retry` is offered where no button stands for it. */
export function showTrouble(fault, retry, more = [], focus = true) {
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

export function hideTrouble() {
  $("trouble").hidden = true;
  $("trouble").replaceChildren();
}

/** Asks for the key, tells `fault` about the last one, and then calls `retry`. */
export function askForKey(fault, retry) {
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
