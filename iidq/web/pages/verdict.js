// From a job to what a person should read. Pure: no document, no network.
import { nextStep } from "./api.js";
import { day, moment, sentence } from "./words.js";

const LABELS = {
  "content.hashMatchesManifest": "The content is the one that the manifest describes",
  "manifest.cidVerified": "The manifest is the one that its IPFS address names",
  "manifest.creatorDid": "The manifest’s creator is its signer",
  "signature.recovered": "The manifest is signed",
  "signature.eip1271": "The contract wallet accepts the signature",
  "registry.registered": "The content is registered",
  "registry.notRevoked": "The registration stands",
  "registry.creator": "The signer is the registered creator",
  "registry.manifestUri": "The manifest is the registered one",
  "registry.transaction": "The transaction of the registration is known",
};
export const OUTCOMES = { passed: "Passed", failed: "Failed", notChecked: "Not checked" };

// A warning's own sentence says what these checks found.
const TOLD_BY_WARN = [LABELS["registry.manifestUri"], LABELS["registry.notRevoked"]];

/** The verify result's parts, whether the job was a verification or a proof; null if it is neither. */
function partsOf(result) {
  const told = result?.verification ?? result;
  if (!["OK", "WARN", "FAIL"].includes(told?.status) || typeof result.onchain !== "object" || result.onchain === null) return null;
  return {
    status: told.status,
    creator: String(result.onchain.creator ?? ""),
    timestamp: Number(result.onchain.timestamp) || 0,
    hashOk: (told.fileHashMatchesManifest ?? result.checks?.manifestHashOk) === true,
    creatorOk: (told.creatorMatchesOnchain ?? result.checks?.creatorOk) === true,
    recovered: result.recovered ?? result.signature?.recovered ?? null,
    checks: checksOf(result),
  };
}

/** The report's checks, each with a label; only well-formed ones. */
export function checksOf(result) {
  const checks = result?.report?.checks;
  if (!Array.isArray(checks)) return [];
  return checks
    .filter((check) => typeof check?.code === "string" && check.outcome in OUTCOMES)
    .map(({ code, outcome, message }) => ({
      outcome,
      label: LABELS[code] ?? code,
      message: sentence(readable(String(message ?? ""))),
    }));
}

// The report is also for machines, and tells times as they stand on chain.
const readable = (message) => message.replace(/(\d{9,11}) \(Unix seconds\)/, (_, seconds) => moment(Number(seconds) * 1000));

/**
 * `{tone, sign, title, detail, sentences, next}`: tone is good, warn, bad or plain; `detail` goes on after the title;
 * `next` says what to do. Texts can be empty.
 */
export function verdictOf(job) {
  switch (job.status) {
    case "completed":
      return ofResult(job);
    case "failed":
      return ofFailure(job);
    case "cancelled":
      return plain("Cancelled", "This verification was cancelled", [], "Verify the file again if you still want to know.");
    case "queued":
      return plain("In the queue", "Waiting for its turn …", [], "");
    default:
      return plain("At work", "Verifying …", [], "");
  }
}

const plain = (sign, title, sentences, next) => ({ tone: "plain", sign, title, detail: "", sentences, next });

function ofFailure(job) {
  const [, code = "", message = job.error ?? ""] = /^([\w.]+): (.*)$/s.exec(job.error ?? "") ?? [];
  return {
    tone: "warn",
    sign: "No verdict",
    title: "It could not be found out",
    detail: "",
    sentences: [sentence(message || "The verification failed"), "This says nothing about the file: neither that it is genuine nor that it is not."],
    next: nextStep(code),
  };
}

function ofResult(job) {
  const parts = partsOf(job.result);
  if (parts === null) {
    return plain("Completed", "This result has a form that this page does not know", ["It came from another system or version."], "Read the raw JSON below.");
  }
  const when = parts.timestamp ? ` on ${day(parts.timestamp)}` : "";
  const by = `registered by ${parts.creator}${when}`;
  if (parts.status === "OK") {
    return {
      tone: "good", sign: "OK", title: "Genuine", detail: by,
      sentences: ["The file is unchanged, and whoever registered it has signed its manifest."], next: "",
    };
  }
  const failed = parts.checks.filter((check) => check.outcome === "failed");
  const reasons = failed.map((check) => check.message);
  if (parts.status === "WARN") {
    const revoked = failed.some((check) => check.label === LABELS["registry.notRevoked"]);
    return {
      tone: "warn", sign: "With a warning",
      title: revoked ? "Revoked" : "Genuine, but not with this manifest",
      detail: revoked ? `${by}, and withdrawn since` : by,
      sentences: [
        revoked
          ? "The file is unchanged and its creator signed the manifest, but the creator has withdrawn the registration."
          : "The file is unchanged and its creator signed this manifest, but the registry names another manifest.",
        ...failed.filter((check) => !TOLD_BY_WARN.includes(check.label)).map((check) => check.message),
      ],
      next: revoked
        ? "Ask the creator why, before you rely on it."
        : "Ask the creator for the manifest that is registered, or whether this one has replaced it.",
    };
  }
  return { tone: "bad", sign: "Failed", ...ofFail(parts, reasons) };
}

function ofFail(parts, reasons) {
  if (!parts.hashOk) {
    return {
      title: "Not genuine",
      detail: "this is not the content that the manifest describes",
      sentences: ["The file was changed, or the manifest belongs to another file.", ...reasons],
      next: "Get the file again from its source, and check that the manifest belongs to it.",
    };
  }
  if (!parts.timestamp) {
    return {
      title: "Not registered",
      detail: "this registry knows nothing of the content",
      sentences: ["A signed manifest describes the file, but nobody has registered it.", ...reasons],
      next: "Check the registry and the chain. If they are right, the file is not registered, or not yet.",
    };
  }
  return {
    title: "Not genuine",
      detail: "somebody other than the registered creator signed",
    sentences: [`The content was registered by ${parts.creator}; the manifest is signed by ${parts.recovered ?? "no key that is known"}.`, ...reasons],
    next: "Do not rely on this manifest. Ask whoever gave it to you where it comes from.",
  };
}

const STEPS = [
  { at: 0, now: "Waiting for a worker", done: "Taken by a worker" },
  { at: 10, now: "Reading the fingerprint", done: "Fingerprint known" },
  { at: 30, now: "Fetching the manifest", done: "Manifest fetched" },
  { at: 50, now: "Recovering the signer", done: "Signer recovered" },
  { at: 70, now: "Reading the registry", done: "Registry read" },
  { at: 85, now: "Searching the transaction", done: "Transaction searched", proofOnly: true },
  { at: 100, now: "Storing the result", done: "Result stored" },
];

/** The named steps, each with `state` done, now or later. */
export function stepsOf(job) {
  const steps = STEPS.filter((step) => job.type === "proof" || !step.proofOnly);
  const reached = job.status === "queued" ? -1 : job.progress;
  const now = steps.findIndex((step) => step.at > reached);
  return steps.map((step, place) => {
    const state = step.at <= reached ? "done" : place === now ? "now" : "later";
    return { state, label: state === "done" ? step.done : step.now };
  });
}

/** Why a queued job waits, if there is more to say than that others are before it. */
export function attemptWords(job) {
  const last = job.errors?.at(-1);
  if (job.status === "queued" && last) {
    return `Attempt ${last.attempt} did not succeed (${last.error}). The next of ${job.maxAttempts} begins at ${moment(job.runAt)}.`;
  }
  return job.attempt > 1 ? `Attempt ${job.attempt} of ${job.maxAttempts}.` : "";
}
