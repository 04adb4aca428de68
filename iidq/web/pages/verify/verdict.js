// The words of a job for a visitor. Pure: no document, no network.
// provenance/verdict.py has the words of the report and cli/verification/verdict_words.py those of the command line:
// each audience needs its own sentences, and a test keeps the cases equal.

import { day, moment, sentence } from "../shared/words.js";
import { nextStep } from "./api.js";

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

// Checks that a conclusion's own sentences already mention.
const IN_CONCLUSION = [
  "content.hashMatchesManifest",
  "registry.registered",
  "registry.notRevoked",
  "registry.creator",
  "registry.manifestUri",
].map((code) => LABELS[code]);
const ZERO_ADDRESS = `0x${"0".repeat(40)}`;
// A manifest URI that the form accepts. It comes from a chain, so its text may be hostile.
const USABLE_URI = /^(ipfs|https?):\/\/[\x21-\x7e]{1,2040}$/i;

/** Return the parts of a verification's or proof's result; null for anything else. */
function partsOf(result) {
  const summary = result?.verification ?? result;
  if (
    !["OK", "WARN", "FAIL"].includes(summary?.status) ||
    typeof result.onchain !== "object" ||
    result.onchain === null
  )
    return null;
  const { creator = "", manifestURI, timestamp } = result.onchain;
  const hashOk = (summary.fileHashMatchesManifest ?? result.checks?.manifestHashOk) === true;
  const creatorOk = (summary.creatorMatchesOnchain ?? result.checks?.creatorOk) === true;
  const uriOk = (summary.manifestURIMatchesOnchain ?? result.checks?.manifestOk) === true;
  const registered = String(creator) !== ZERO_ADDRESS;
  return {
    status: summary.status,
    // False for a status that contradicts the checks: iidq never returns one.
    consistent: summary.status === (hashOk && creatorOk ? (uriOk ? "OK" : "WARN") : "FAIL"),
    conclusion: conclude({ registered, revoked: registered && manifestURI === "", hashOk, creatorOk, uriOk }),
    creator: String(creator),
    manifestUri: String(manifestURI ?? ""),
    timestamp: Number(timestamp) || 0,
    hashOk,
    creatorOk,
    recovered: result.recovered ?? result.signature?.recovered ?? null,
    checks: checksOf(result),
  };
}

/** Return the case of the evidence, as iidq/provenance/conclusion.py does. */
function conclude({ registered, revoked, hashOk, creatorOk, uriOk }) {
  if (!registered) return hashOk ? "notRegistered" : "unknownFile";
  if (revoked) return "revoked";
  if (!hashOk) return uriOk ? "manifestDiffers" : "otherManifest";
  if (!creatorOk) return "otherSigner";
  return uriOk ? "genuine" : "manifestUriDiffers";
}

/** Return the code of a job's case; null for a job without a usable result. */
export const caseOf = (job) => (job.status === "completed" ? (partsOf(job.result)?.conclusion ?? null) : null);

/** Return the registered manifest's URI if it differs from the job's and is worth a try, else null. */
export function registeredManifest(job) {
  const parts = job.status === "completed" ? partsOf(job.result) : null;
  const promising = ["otherManifest", "otherSigner", "manifestUriDiffers"].includes(parts?.conclusion);
  return promising && parts.manifestUri !== job.manifestUri && USABLE_URI.test(parts.manifestUri)
    ? parts.manifestUri
    : null;
}

/** Return the report's well-formed checks with their labels. */
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

// The report, which is also for machines, has times in Unix seconds.
const readable = (message) =>
  message.replace(/(\d{9,11}) \(Unix seconds\)/, (_, seconds) => moment(Number(seconds) * 1000));

/**
 * Return `{tone, sign, title, detail, sentences, next}`: `tone` is good, warn, bad or plain, `detail` continues the
 * title, `next` is the advice. Texts can be empty.
 */
export function verdictOf(job) {
  switch (job.status) {
    case "completed":
      return ofResult(job);
    case "failed":
      return ofFailure(job);
    case "cancelled":
      return plain(
        "Cancelled",
        "This verification was cancelled",
        [],
        "Verify the file again if you still want to know.",
      );
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
    sentences: [
      sentence(message || "The verification failed"),
      "This says nothing about the file: neither that it is genuine nor that it is not.",
    ],
    next: nextStep(code),
  };
}

const TONES = {
  OK: { tone: "good", sign: "OK" },
  WARN: { tone: "warn", sign: "With a warning" },
  FAIL: { tone: "bad", sign: "Failed" },
};

function ofResult(job) {
  const parts = partsOf(job.result);
  if (parts === null) {
    return plain(
      "Completed",
      "This result has a form that this page does not know",
      ["It came from another system or version."],
      "Read the raw JSON below.",
    );
  }
  if (!parts.consistent) {
    return plain(
      "Completed",
      "This result contradicts itself",
      ["Its status does not follow from its own checks."],
      "Verify the file again.",
    );
  }
  const words = WORDS[parts.conclusion](parts, registeredManifest(job) !== null);
  const more = parts.checks
    .filter(({ outcome, label }) => outcome === "failed" && !IN_CONCLUSION.includes(label))
    .map((check) => check.message);
  return { ...TONES[parts.status], ...words, sentences: [...words.sentences, ...more] };
}

const registeredBy = ({ creator, timestamp }) => `registered by ${creator}${timestamp ? ` on ${day(timestamp)}` : ""}`;
const signedBy = ({ recovered }) => `The given manifest is signed by ${recovered ?? "an unknown key"}.`;
const TRY_REGISTERED = "Verify with the registered manifest.";

// The words of each conclusion. `another` is whether the registered manifest can be tried instead.
const WORDS = {
  genuine: (parts) => ({
    title: "Genuine",
    detail: registeredBy(parts),
    sentences: ["The file is unchanged, and its manifest is signed by the account that registered it."],
    next: "",
  }),
  manifestUriDiffers: (parts, another) => ({
    title: "Genuine, but not with this manifest",
    detail: registeredBy(parts),
    sentences: ["The file is unchanged and its creator signed this manifest, but the registry names another manifest."],
    next: another
      ? TRY_REGISTERED
      : "Ask the creator for the registered manifest, or whether this one has replaced it.",
  }),
  revoked: (parts) => ({
    title: "Revoked",
    detail: `${registeredBy(parts)}, and withdrawn since`,
    sentences: [
      "This file was registered, and its creator has withdrawn the registration.",
      ...(parts.hashOk ? [] : ["The given manifest describes another file."]),
      ...(parts.hashOk && !parts.creatorOk ? [signedBy(parts)] : []),
    ],
    next: "Ask the creator why, before you rely on it.",
  }),
  otherManifest: (parts, another) => ({
    title: "Registered, but this manifest belongs to another file",
    detail: registeredBy(parts),
    sentences: [
      "This file is registered. The given manifest describes another file, so it proves nothing about this one.",
    ],
    next: another ? TRY_REGISTERED : "Ask the creator for the manifest that belongs to this file.",
  }),
  manifestDiffers: (parts) => ({
    title: "Registered, but its manifest describes another file",
    detail: registeredBy(parts),
    sentences: [
      "This file is registered. The manifest at the registered address describes another file: it was replaced after the registration, or registered by mistake.",
    ],
    next: "Ask the creator for a manifest that belongs to this file.",
  }),
  otherSigner: (parts, another) => ({
    title: "Registered, but the manifest has another signer",
    detail: registeredBy(parts),
    sentences: ["This file is registered, and the given manifest describes it.", signedBy(parts)],
    next: another ? TRY_REGISTERED : "Do not rely on this manifest. Ask its sender where it comes from.",
  }),
  notRegistered: () => ({
    title: "Not registered",
    detail: "the registry has no entry for this content",
    sentences: ["A signed manifest describes the file, but the file is not registered."],
    next: "Check the registry and the chain. If both are right, ask the creator to register the file.",
  }),
  unknownFile: () => ({
    title: "Changed or unknown",
    detail: "this file is not registered, and the manifest describes another file",
    sentences: ["The file was changed, or it is not the file that the manifest describes."],
    next: "Get the file again from its source, and check that the manifest, the registry and the chain belong to it.",
  }),
};

const STEPS = [
  { at: 0, now: "Waiting for a worker", done: "Taken by a worker" },
  { at: 10, now: "Reading the fingerprint", done: "Fingerprint known" },
  { at: 30, now: "Fetching the manifest", done: "Manifest fetched" },
  { at: 50, now: "Recovering the signer", done: "Signer recovered" },
  { at: 70, now: "Reading the registry", done: "Registry read" },
  { at: 85, now: "Searching the transaction", done: "Transaction searched", proofOnly: true },
  { at: 100, now: "Storing the result", done: "Result stored" },
];

/** Return the steps with their labels; `state` is done, now or later. */
export function stepsOf(job) {
  const steps = STEPS.filter((step) => job.type === "proof" || !step.proofOnly);
  const reached = job.status === "queued" ? -1 : job.progress;
  const now = steps.findIndex((step) => step.at > reached);
  return steps.map((step, place) => {
    const state = step.at <= reached ? "done" : place === now ? "now" : "later";
    return { state, label: state === "done" ? step.done : step.now };
  });
}

/** Return why a queued job waits for another attempt, or which attempt runs; empty for a first attempt. */
export function attemptWords(job) {
  const last = job.errors?.at(-1);
  if (job.status === "queued" && last) {
    return `Attempt ${last.attempt} did not succeed (${last.error}). The next of ${job.maxAttempts} attempts begins at ${moment(job.runAt)}.`;
  }
  return job.attempt > 1 ? `Attempt ${job.attempt} of ${job.maxAttempts}.` : "";
}
