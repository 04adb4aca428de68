// What operators change: each asks first where it cannot be undone, says what came of it, and lets the views look anew.

import { change, Refused } from "./request.js";
import { byId, count, setText } from "./elements.js";

export const changed = new EventTarget();
const tellChanged = () => changed.dispatchEvent(new Event("change"));

export function say(text, isBad = false) {
  const said = byId("said");
  said.classList.toggle("fault", isBad);
  setText(said, text);
}

async function attempt(work) {
  try {
    await work();
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    if (error.status === 401) changed.dispatchEvent(new Event("signed-out"));
    say(error.status === 403 ? `Refused: ${error.message}. Load the page again and repeat.` : `Not done: ${error.message}`, true);
  }
  tellChanged();
}

// null where the operator thinks better of it; else the text of the field, which may be empty.
export function askFirst({ title, text, yes, label }) {
  const dialog = byId("dialog");
  const input = byId("dialog-input");
  setText(byId("dialog-title"), title);
  setText(byId("dialog-text"), text);
  setText(byId("dialog-yes"), yes);
  setText(byId("dialog-label"), label || "");
  byId("dialog-field").hidden = !label;
  input.value = "";
  dialog.returnValue = "no";
  dialog.showModal();
  (label ? input : byId("dialog-yes")).focus();
  return new Promise((done) => {
    dialog.addEventListener("close", () => done(dialog.returnValue === "yes" ? input.value : null), { once: true });
  });
}

const tail = (id) => `…${id.slice(-8)}`;

export async function cancelJob(id, isActive) {
  const text = isActive ? "Its attempt is interrupted and its outcome dropped." : "It will not run.";
  if ((await askFirst({ title: `Cancel job ${tail(id)}?`, text, yes: "Cancel the job" })) === null) return;
  await attempt(async () => {
    await change(`jobs/${id}/cancel`);
    say(`Job ${tail(id)} is cancelled.`);
  });
}

export async function retryJob(id, state) {
  if (state === "completed") {
    const text = "It has a result, which is given up; the job runs anew.";
    if ((await askFirst({ title: `Run job ${tail(id)} again?`, text, yes: "Run it again" })) === null) return;
  }
  await attempt(async () => {
    await change(`jobs/${id}/retry`);
    say(`Job ${tail(id)} is back in line.`);
  });
}

export async function retryCause(cause) {
  const text = "Every job that is failed for this cause by now goes back in line, with all its attempts. You can stop in between.";
  if ((await askFirst({ title: `Retry all failures of “${cause}”?`, text, yes: "Retry them" })) === null) return;
  const stop = byId("stop");
  let isStopped = false;
  const onStop = () => {
    isStopped = true;
  };
  stop.addEventListener("click", onStop);
  stop.hidden = false;
  await attempt(async () => {
    let retried = 0;
    let before;
    for (let more = true; more && !isStopped; ) {
      const batch = await change("failures/retry", { cause, before });
      retried += batch.retried;
      ({ more, before } = batch);
      say(`${count(retried)} jobs of “${cause}” are back in line${more && !isStopped ? " …" : "."}`);
    }
  });
  stop.hidden = true;
  stop.removeEventListener("click", onStop);
}

export async function pauseQueue() {
  const text = "No job is claimed until you resume; those that run go on to their end.";
  const reason = await askFirst({ title: "Pause the queue?", text, yes: "Pause", label: "Reason, for your colleagues" });
  if (reason === null) return;
  await attempt(async () => {
    await change("pause", reason.trim() ? { reason: reason.trim() } : {});
    say("The queue is paused.");
  });
}

export async function resumeQueue() {
  await attempt(async () => {
    await change("resume");
    say("The queue goes on.");
  });
}
