// A proof of a verification: a job of its own, shown and downloaded on the same page.

import { byId, element } from "../shared/elements.js";
import { Fault } from "../shared/request.js";
import { nextStep, pagePath, submit } from "./api.js";
import { follow } from "./follow.js";
import { verdictOf } from "./verdict.js";

/** Make the link that saves a proof's JSON as a file. */
export function downloadLink(result, contentHash) {
  const text = `${JSON.stringify(result, null, 2)}\n`;
  const href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  const download = `proof-${String(contentHash).slice(2, 14)}.json`;
  return element("a", { class: "button", href, download }, "Download the proof");
}

/** Make a proof for `fields` and show its progress in the panel. Throw a Fault. */
export async function makeProof(fields, idempotencyKey, signal) {
  const panel = byId("proof");
  const state = element("p", { role: "status" }, "Sending …");
  const bar = element("progress", { max: 100, value: 0, "aria-label": "The proof’s progress" });
  panel.hidden = false;
  panel.replaceChildren(element("h2", {}, "Proof"), state, bar);
  const reply = await submit("proof", fields, idempotencyKey);
  if (reply.mode === "sync") {
    finished(panel, state, bar, reply.result, fields.contentHash, null);
    return;
  }
  state.textContent = "The proof is being made …";
  let last = null;
  await follow(reply.jobId, {
    signal,
    onConnection: () => {},
    onJob: (job) => {
      last = job;
      bar.value = job.progress;
    },
  });
  if (signal.aborted || last === null) return;
  if (last.status === "completed") finished(panel, state, bar, last.result, fields.contentHash, reply.jobId);
  else throw new Fault(verdictOf(last).sentences[0] ?? "The proof was not made.", verdictOf(last).next || nextStep());
}

function finished(panel, state, bar, result, contentHash, id) {
  state.textContent = "The proof is ready: a JSON document with all evidence of the verdict, to keep or to pass on.";
  bar.remove();
  const link = id ? [element("a", { href: pagePath(id) }, "Its own page")] : [];
  panel.append(element("div", { class: "row" }, downloadLink(result, contentHash), ...link));
}
