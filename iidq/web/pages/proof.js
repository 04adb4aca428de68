// From a verification to its proof: made as a job of its own, shown and downloaded in place.
import { Fault, nextStep, pagePath, submit } from "./api.js";
import { $, element } from "./elements.js";
import { follow } from "./follow.js";
import { verdictOf } from "./verdict.js";

/** The link that saves a proof's JSON as a file. */
export function downloadLink(result, contentHash) {
  const text = `${JSON.stringify(result, null, 2)}\n`;
  return element("a", {
    className: "button",
    href: URL.createObjectURL(new Blob([text], { type: "application/json" })),
    download: `proof-${String(contentHash).slice(2, 14)}.json`,
    textContent: "Download the proof",
  });
}

/** Has a proof made of what `fields` ask, and tells about it in the panel; rejects with a Fault. */
export async function makeProof(fields, idempotencyKey, signal) {
  const panel = $("proof");
  const state = element("p", { role: "status", textContent: "Sending …" });
  const bar = element("progress", { max: 100, value: 0, ariaLabel: "The proof’s progress" });
  panel.hidden = false;
  panel.replaceChildren(element("h2", { textContent: "Proof" }), state, bar);
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
  else throw new Fault(verdictOf(last).sentences[0] ?? "The proof was not made.", verdictOf(last).next || nextStep(), {});
}

function finished(panel, state, bar, result, contentHash, id) {
  state.textContent = "The proof is ready: a JSON document with everything that the verdict rests on, to keep or to hand on.";
  bar.remove();
  const link = id ? [element("a", { href: pagePath(id), textContent: "Its own page" })] : [];
  panel.append(element("div", { className: "row" }, downloadLink(result, contentHash), ...link));
}
