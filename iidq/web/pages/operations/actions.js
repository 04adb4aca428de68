// The operators' changes. A change that cannot be undone needs a confirmation. Each reports its result and updates the
// view.

import { byId, setText } from "../shared/elements.js";
import { Fault } from "../shared/request.js";
import { count, sentence } from "../shared/words.js";
import { change } from "./session.js";

export const changed = new EventTarget();
const updateView = () => changed.dispatchEvent(new Event("change"));

export function say(text, isBad = false) {
  const said = byId("said");
  said.classList.toggle("fault", isBad);
  setText(said, text);
}

async function attempt(work) {
  try {
    await work();
  } catch (error) {
    if (!(error instanceof Fault)) throw error;
    if (error.status === 401) changed.dispatchEvent(new Event("signed-out"));
    const reason = sentence(error.message);
    say(error.status === 403 ? `Refused: ${reason} Reload the page and try again.` : `Not done: ${reason}`, true);
  }
  updateView();
}

// Return the text of the field, which may be empty; null if the operator cancels.
function confirmChange({ title, text, yes, label }) {
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
  const text = isActive ? "Its attempt is stopped and the result is dropped." : "It will not run.";
  if ((await confirmChange({ title: `Cancel job ${tail(id)}?`, text, yes: "Cancel the job" })) === null) return;
  await attempt(async () => {
    await change(`jobs/${id}/cancel`);
    say(`Job ${tail(id)} is cancelled.`);
  });
}

export async function retryJob(id, state) {
  if (state === "completed") {
    const text = "The job runs again. Its present result is deleted.";
    if ((await confirmChange({ title: `Run job ${tail(id)} again?`, text, yes: "Run it again" })) === null) return;
  }
  await attempt(async () => {
    await change(`jobs/${id}/retry`);
    say(`Job ${tail(id)} is back in line.`);
  });
}

export async function retryCause(cause) {
  const text =
    "All jobs that have failed for this cause go back in line with all their attempts. You can stop it at any time.";
  if ((await confirmChange({ title: `Retry all failures of “${cause}”?`, text, yes: "Retry them" })) === null) return;
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
    for (let more = true; more && !isStopped;) {
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
  const text = "No job is claimed until you resume. Running jobs go on.";
  const reason = await confirmChange({
    title: "Pause the queue?",
    text,
    yes: "Pause",
    label: "Reason, shown to other operators",
  });
  if (reason === null) return;
  await attempt(async () => {
    await change("pause", reason.trim() ? { reason: reason.trim() } : {});
    say("The queue is paused.");
  });
}

export async function resumeQueue() {
  await attempt(async () => {
    await change("resume");
    say("The queue is resumed.");
  });
}
