// The form: a file that is hashed as soon as it is chosen, and the fields that say what to hold it against.
import { submit, upload } from "./api.js";
import { $ } from "./elements.js";
import { hashFile } from "./hashing.js";
import { idempotencyKey } from "./idempotency.js";
import { sentence, size } from "./words.js";

const service = document.body.dataset;
const FIELDS = ["manifestURI", "registryAddress", "chainId"];
const NAMES = { file: "The file", manifestURI: "The manifest", registryAddress: "The registry", chainId: "The chain" };

const EXPECTED = {
  manifestURI: [/^(ipfs|https?):\/\/\S+$/i, "expected ipfs://…, https://… or http://…"],
  registryAddress: [/^0x[0-9a-fA-F]{40}$/, "expected 0x followed by 40 hex digits"],
  chainId: [/^[1-9][0-9]{0,15}$/, "expected the chain’s number, or nothing for the default chain"],
};

/** What the form holds besides its fields. */
const form = { file: null, hashing: null, hash: null, sending: false };

/** Fills in what the service and the link say, and listens; `onSend` is called to send. */
export function openForm(onSend) {
  prefill();
  $("file").addEventListener("change", () => choose($("file").files[0]));
  dropping();
  $("form").addEventListener("submit", (event) => {
    event.preventDefault();
    onSend();
  });
  $("upload").addEventListener("change", () => rehash());
  $("registryAddress").addEventListener("input", registryHint);
  for (const name of FIELDS) $(name).addEventListener("input", () => setFault(name, ""));
}

/**
 * Sends what was entered: `{reply, asked}`, or null where something has to be mended first, which is then marked.
 * Rejects with a Fault.
 */
export async function sendForm() {
  if (form.sending) return null;
  const fields = enteredFields();
  if (!markFaults(fields)) return null;
  sending(true, "");
  try {
    const reply = $("upload").checked ? await sendFile(fields) : await sendHash(fields);
    return reply && { reply, asked: { ...fields, contentHash: form.hash, fileName: form.file.name } };
  } finally {
    sending(false, "");
  }
}

/** Marks the service's faults of fields of this form; gives back those of others. */
export function markRefused(faults) {
  const [known, others] = [{}, {}];
  for (const [name, text] of Object.entries(faults)) (name in NAMES ? known : others)[name] = text;
  if (Object.keys(known).length) markFields(known);
  return others;
}

function prefill() {
  const link = new URLSearchParams(location.search);
  const asked = { manifestURI: link.get("manifestURI"), registryAddress: link.get("registry") ?? link.get("registryAddress"), chainId: link.get("chainId") };
  for (const [name, value] of Object.entries(asked)) {
    if (value !== null) $(name).value = value;
  }
  registryHint();
}

function registryHint() {
  const entered = $("registryAddress").value.trim().toLowerCase();
  const foreign = service.registry && entered && entered !== service.registry.toLowerCase();
  $("registryAddress-hint").textContent = foreign
    ? "Not the registry that this service fills in: its entries are worth as much as your trust in it."
    : "The contract that the content is registered in.";
}

function dropping() {
  const zone = $("drop");
  const over = (event) => {
    if (service.view !== "ask") return;
    event.preventDefault();
    zone.classList.toggle("over", event.type !== "dragleave" && event.type !== "drop");
  };
  for (const name of ["dragover", "dragleave", "drop"]) document.addEventListener(name, over);
  document.addEventListener("drop", (event) => {
    if (service.view !== "ask" || !event.dataTransfer?.files.length) return;
    const file = event.dataTransfer.files[0];
    // The field holds it as if it had been chosen there: for the browser, and for assistive technology.
    const held = new DataTransfer();
    held.items.add(file);
    $("file").files = held.files;
    choose(file);
  });
}

function choose(file) {
  if (!file) return;
  form.file = file;
  $("file-name").textContent = file.name;
  $("file-hint").textContent = size(file.size);
  setFault("file", "");
  rehash();
}

function rehash() {
  form.hashing?.cancel();
  form.hashing = null;
  form.hash = null;
  showHashing({ state: form.file ? "" : "No fingerprint yet" });
  $("hash-said").textContent = "";
  if (!form.file) return;
  if ($("upload").checked) {
    const limit = Number(service.maxUploadBytes);
    showHashing({ state: "The file is sent when you press Verify" });
    if (form.file.size > limit) setFault("file", `is larger than the ${size(limit)} that this service takes; untick “Upload the file instead”`);
    return;
  }
  const file = form.file;
  showHashing({ state: "Computing the fingerprint …" });
  const hashing = hashFile(file, (done, speed) => {
    if (form.hashing === hashing) {
      showHashing({ state: `Computing the fingerprint: ${size(done)} of ${size(file.size)}`, speed: `${size(speed)}/s`, percent: (100 * done) / file.size });
    }
  });
  form.hashing = hashing;
  hashing.result.then(
    (hash) => {
      if (form.hashing !== hashing) return;
      form.hash = hash;
      showHashing({ state: "Fingerprint computed", percent: 100, hash });
      $("hash-said").textContent = "Fingerprint computed";
    },
    (error) => {
      if (form.hashing !== hashing) return;
      showHashing({ state: "No fingerprint" });
      setFault("file", `${error.message} Choose it again, or another one.`);
    },
  );
}

function showHashing({ state, speed = "", percent = 0, hash = "" }) {
  $("hash-state").textContent = state;
  $("hash-speed").textContent = speed;
  $("hash-progress").value = percent;
  $("hash-text").textContent = hash;
}

function enteredFields() {
  const fields = {};
  for (const name of FIELDS) {
    const value = $(name).value.trim();
    if (value) fields[name] = value;
  }
  return fields;
}

async function sendHash(fields) {
  sending(true, "It is sent as soon as the fingerprint is known.");
  let contentHash = null;
  while (contentHash === null) {
    const hashing = form.hashing;
    try {
      contentHash = await hashing.result;
    } catch {
      // Another file was chosen meanwhile, or what is wrong stands beside the file.
      if (form.hashing && form.hashing !== hashing) continue;
      $("file").focus();
      return null;
    }
  }
  sending(true, "Sending …");
  const asked = { ...fields, contentHash, ...fileNameOf(form.file) };
  return submit("verify", asked, idempotencyKey("verify", asked));
}

async function sendFile(fields) {
  const { name, size: bytes, lastModified } = form.file;
  return upload("verify", fields, form.file, idempotencyKey("upload", { ...fields, name, bytes, lastModified }), (sent, all) => {
    const percent = all ? (100 * sent) / all : 0;
    showHashing({ state: sent < all ? `Sent: ${size(sent)} of ${size(all)}` : "Sent; the service is answering …", percent });
  });
}

/** The service refuses names with controls or of undue length; a hash needs none. */
function fileNameOf(file) {
  const fits = file.name && file.name.length <= 255 && !/[\u0000-\u001f\u007f/\\]/.test(file.name);
  return fits ? { fileName: file.name } : {};
}

/** Marks what is wrong before anything is sent; whether all is well. */
function markFaults(fields) {
  const faults = {};
  if (!form.file) faults.file = "is missing: choose the file that you want to verify";
  else if ($("file-fault").textContent) return focusFirst(["file"]);
  for (const [name, [pattern, expected]] of Object.entries(EXPECTED)) {
    if (!(name in fields)) {
      if (name !== "chainId") faults[name] = `is missing: ${expected}`;
    } else if (!pattern.test(fields[name])) faults[name] = expected;
  }
  return markFields(faults);
}

function markFields(faults) {
  for (const name of ["file", ...FIELDS]) setFault(name, faults[name] ?? "");
  return focusFirst(["file", ...FIELDS].filter((name) => faults[name]));
}

function focusFirst(names) {
  if (names.length) $(names[0]).focus();
  return names.length === 0;
}

function setFault(name, text) {
  // The service's own messages go on after a field's name, or say what was expected.
  const goesOn = /^(is|are|must|cannot|has|names|contains)\b/.test(text);
  $(`${name}-fault`).textContent = text ? sentence(goesOn ? `${NAMES[name]} ${text}` : text) : "";
  if (text) $(name).setAttribute("aria-invalid", "true");
  else $(name).removeAttribute("aria-invalid");
}

function sending(on, state) {
  form.sending = on;
  $("send").setAttribute("aria-disabled", String(on));
  $("send-state").textContent = state;
}
