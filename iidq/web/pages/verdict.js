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

// What a conclusion's own sentences say.
const IN_CONCLUSION = ["content.hashMatchesManifest", "registry.registered", "registry.notRevoked", "registry.creator", "registry.manifestUri"].map((code) => LABELS[code]);
const ZERO_ADDRESS = `0x${"0".repeat(40)}`;
// A manifest URI that the form takes. It comes from a chain, where anybody can write one.
const USABLE_URI = /^(ipfs|https?):\/\/[\x21-\x7e]{1,2040}$/i;

/** The verify result's parts, whether the job was a verification or a proof; null if it is neither. */
function partsOf(result) {
  const told = result?.verification ?? result;
  if (!["OK", "WARN", "FAIL"].includes(told?.status) || typeof result.onchain !== "object" || result.onchain === null) return null;
  const { creator = "", manifestURI, timestamp } = result.onchain;
  const hashOk = (told.fileHashMatchesManifest ?? result.checks?.manifestHashOk) === true;
  const creatorOk = (told.creatorMatchesOnchain ?? result.checks?.creatorOk) === true;
  const uriOk = (told.manifestURIMatchesOnchain ?? result.checks?.manifestOk) === true;
  const registered = String(creator) !== ZERO_ADDRESS;
  return {
    status: told.status,
    // A status that does not follow from these comes from no service of ours.
    consistent: told.status === (hashOk && creatorOk ? (uriOk ? "OK" : "WARN") : "FAIL"),
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

/** The one case that the evidence makes, as iidq/provenance/conclusion.py has it. */
function conclude({ registered, revoked, hashOk, creatorOk, uriOk }) {
  if (!registered) return hashOk ? "notRegistered" : "unknownFile";
  if (revoked) return "revoked";
  if (!hashOk) return uriOk ? "manifestDiffers" : "otherManifest";
  if (!creatorOk) return "otherSigner";
  return uriOk ? "genuine" : "manifestUriDiffers";
}

/** The code of that case; null where the job has no result that tells. */
export const caseOf = (job) => (job.status === "completed" ? (partsOf(job.result)?.conclusion ?? null) : null);

/** The registered manifest's URI, where the job was about another one and the registered one may tell more; or null. */
export function registeredManifest(job) {
  const parts = job.status === "completed" ? partsOf(job.result) : null;
  const promising = ["otherManifest", "otherSigner", "manifestUriDiffers"].includes(parts?.conclusion);
  return promising && parts.manifestUri !== job.manifestUri && USABLE_URI.test(parts.manifestUri) ? parts.manifestUri : null;
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

const TONES = { OK: { tone: "good", sign: "OK" }, WARN: { tone: "warn", sign: "With a warning" }, FAIL: { tone: "bad", sign: "Failed" } };

function ofResult(job) {
  const parts = partsOf(job.result);
  if (parts === null) {
    return plain("Completed", "This result has a form that this page does not know", ["It came from another system or version."], "Read the raw JSON below.");
  }
  if (!parts.consistent) {
    return plain("Completed", "This result contradicts itself", ["Its status does not follow from its own checks."], "Verify the file again.");
  }
  const words = WORDS[parts.conclusion](parts, registeredManifest(job) !== null);
  const more = parts.checks.filter(({ outcome, label }) => outcome === "failed" && !IN_CONCLUSION.includes(label)).map((check) => check.message);
  return { ...TONES[parts.status], ...words, sentences: [...words.sentences, ...more] };
}

const registeredBy = ({ creator, timestamp }) => `registered by ${creator}${timestamp ? ` on ${day(timestamp)}` : ""}`;
const signedBy = ({ recovered }) => `The manifest that was given is signed by ${recovered ?? "no key that is known"}.`;
const TRY_REGISTERED = "Verify with the registered manifest.";

// Of each conclusion: what a person reads. `another` says whether the registered manifest can be tried instead.
const WORDS = {
  genuine: (parts) => ({
    title: "Genuine",
    detail: registeredBy(parts),
    sentences: ["The file is unchanged, and whoever registered it has signed its manifest."],
    next: "",
  }),
  manifestUriDiffers: (parts, another) => ({
    title: "Genuine, but not with this manifest",
    detail: registeredBy(parts),
    sentences: ["The file is unchanged and its creator signed this manifest, but the registry names another manifest."],
    next: another ? TRY_REGISTERED : "Ask the creator for the manifest that is registered, or whether this one has replaced it.",
  }),
  revoked: (parts) => ({
    title: "Revoked",
    detail: `${registeredBy(parts)}, and withdrawn since`,
    sentences: [
      "This very file was registered, and its creator has withdrawn the registration.",
      ...(parts.hashOk ? [] : ["The manifest that was given describes another file."]),
      ...(parts.hashOk && !parts.creatorOk ? [signedBy(parts)] : []),
    ],
    next: "Ask the creator why, before you rely on it.",
  }),
  otherManifest: (parts, another) => ({
    title: "Registered, but this manifest belongs to another file",
    detail: registeredBy(parts),
    sentences: ["This very file is registered. The manifest that was given describes another file, so it says nothing about this one."],
    next: another ? TRY_REGISTERED : "Ask the creator for the manifest that belongs to this file.",
  }),
  manifestDiffers: (parts) => ({
    title: "Registered, but its manifest describes another file",
    detail: registeredBy(parts),
    sentences: ["This very file is registered. The manifest at the registered address describes another file: it was replaced after the registration, or registered by mistake."],
    next: "Ask the creator for a manifest that belongs to this file.",
  }),
  otherSigner: (parts, another) => ({
    title: "Registered, but the manifest is signed by somebody else",
    detail: registeredBy(parts),
    sentences: ["This very file is registered, and the manifest that was given describes it.", signedBy(parts)],
    next: another ? TRY_REGISTERED : "Do not rely on this manifest. Ask whoever gave it to you where it comes from.",
  }),
  notRegistered: () => ({
    title: "Not registered",
    detail: "this registry knows nothing of the content",
    sentences: ["A signed manifest describes the file, but nobody has registered it."],
    next: "Check the registry and the chain. If they are right, the file is not registered, or not yet.",
  }),
  unknownFile: () => ({
    title: "Changed or unknown",
    detail: "this file is not registered, and the manifest describes another one",
    sentences: ["The file was changed, or it is another file than the one that the manifest describes."],
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
