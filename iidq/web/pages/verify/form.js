// The form: a file, which is hashed as soon as it is chosen, and the fields manifest, registry and chain.

import { byId } from "../shared/elements.js";
import { sentence, size } from "../shared/words.js";
import { idempotencyKey, submit, upload } from "./api.js";
import { hashFile } from "./hashing.js";

const service = document.body.dataset;
const FIELDS = ["manifestURI", "registryAddress", "chainId"];
const NAMES = { file: "The file", manifestURI: "The manifest", registryAddress: "The registry", chainId: "The chain" };

const EXPECTED = {
  manifestURI: [/^(ipfs|https?):\/\/\S+$/i, "expected ipfs://…, https://… or http://…"],
  registryAddress: [/^0x[0-9a-fA-F]{40}$/, "expected 0x followed by 40 hex digits"],
  chainId: [/^[1-9][0-9]{0,15}$/, "expected the chain’s number; leave it empty for the default chain"],
};

/** The state of the form besides its fields. */
const form = { file: null, hashing: null, hash: null, sending: false };

/** Fill in the values of the link and listen. `onSend` is called on submit. */
export function openForm(onSend) {
  prefill();
  byId("file").addEventListener("change", () => choose(byId("file").files[0]));
  dropping();
  byId("form").addEventListener("submit", (event) => {
    event.preventDefault();
    onSend();
  });
  byId("upload").addEventListener("change", () => rehash());
  byId("registryAddress").addEventListener("input", registryHint);
  for (const name of FIELDS) byId(name).addEventListener("input", () => setFault(name, ""));
}

/**
 * Send the form and return `{reply, asked}`. Mark faulty entries and return null if there are any. Throw a Fault.
 */
export async function sendForm() {
  if (form.sending) return null;
  const fields = enteredFields();
  if (!markFaults(fields)) return null;
  sending(true, "");
  try {
    const reply = byId("upload").checked ? await sendFile(fields) : await sendHash(fields);
    return reply && { reply, asked: { ...fields, contentHash: form.hash, fileName: form.file.name } };
  } finally {
    sending(false, "");
  }
}

/** Mark the service's faults of fields of this form. Return the faults of other fields. */
export function markRefused(faults) {
  const [known, others] = [{}, {}];
  for (const [name, text] of Object.entries(faults)) (name in NAMES ? known : others)[name] = text;
  if (Object.keys(known).length) markFields(known);
  return others;
}

function prefill() {
  const link = new URLSearchParams(location.search);
  const asked = {
    manifestURI: link.get("manifestURI"),
    registryAddress: link.get("registry") ?? link.get("registryAddress"),
    chainId: link.get("chainId"),
  };
  for (const [name, value] of Object.entries(asked)) {
    if (value !== null) byId(name).value = value;
  }
  registryHint();
}

function registryHint() {
  const entered = byId("registryAddress").value.trim().toLowerCase();
  const foreign = service.registry && entered && entered !== service.registry.toLowerCase();
  byId("registryAddress-hint").textContent = foreign
    ? "This is not this service’s registry. Rely on its entries only if you trust it."
    : "The contract with the content’s registration.";
}

function dropping() {
  const zone = byId("drop");
  const over = (event) => {
    if (service.view !== "ask") return;
    event.preventDefault();
    zone.classList.toggle("over", event.type !== "dragleave" && event.type !== "drop");
  };
  for (const name of ["dragover", "dragleave", "drop"]) document.addEventListener(name, over);
  document.addEventListener("drop", (event) => {
    if (service.view !== "ask" || !event.dataTransfer?.files.length) return;
    const file = event.dataTransfer.files[0];
    // Put the file into the field, for the browser and for assistive technology.
    const held = new DataTransfer();
    held.items.add(file);
    byId("file").files = held.files;
    choose(file);
  });
}

function choose(file) {
  if (!file) return;
  form.file = file;
  byId("file-name").textContent = file.name;
  byId("file-hint").textContent = size(file.size);
  setFault("file", "");
  rehash();
}

function rehash() {
  form.hashing?.cancel();
  form.hashing = null;
  form.hash = null;
  showHashing({ state: form.file ? "" : "No fingerprint yet" });
  byId("hash-said").textContent = "";
  if (!form.file) return;
  if (byId("upload").checked) {
    const limit = Number(service.maxUploadBytes);
    showHashing({ state: "The file will be sent when you press Verify" });
    if (form.file.size > limit)
      setFault("file", `is larger than ${size(limit)}, the limit of this service; untick “Upload the file instead”`);
    return;
  }
  const file = form.file;
  showHashing({ state: "Computing the fingerprint …" });
  const hashing = hashFile(file, (done, speed) => {
    if (form.hashing === hashing) {
      showHashing({
        state: `Computing the fingerprint: ${size(done)} of ${size(file.size)}`,
        speed: `${size(speed)}/s`,
        percent: (100 * done) / file.size,
      });
    }
  });
  form.hashing = hashing;
  hashing.result.then(
    (hash) => {
      if (form.hashing !== hashing) return;
      form.hash = hash;
      showHashing({ state: "Fingerprint computed", percent: 100, hash });
      byId("hash-said").textContent = "Fingerprint computed";
    },
    (error) => {
      if (form.hashing !== hashing) return;
      showHashing({ state: "No fingerprint" });
      setFault("file", `${error.message} Choose the file again, or another one.`);
    },
  );
}

function showHashing({ state, speed = "", percent = 0, hash = "" }) {
  byId("hash-state").textContent = state;
  byId("hash-speed").textContent = speed;
  byId("hash-progress").value = percent;
  byId("hash-text").textContent = hash;
}

function enteredFields() {
  const fields = {};
  for (const name of FIELDS) {
    const value = byId(name).value.trim();
    if (value) fields[name] = value;
  }
  return fields;
}

async function sendHash(fields) {
  sending(true, "Sending starts once the fingerprint is computed.");
  let contentHash = null;
  while (contentHash === null) {
    const hashing = form.hashing;
    try {
      contentHash = await hashing.result;
    } catch {
      // Another file was chosen meanwhile, or the fault is shown at the file.
      if (form.hashing && form.hashing !== hashing) continue;
      byId("file").focus();
      return null;
    }
  }
  sending(true, "Sending …");
  const asked = { ...fields, contentHash, ...fileNameOf(form.file) };
  return submit("verify", asked, idempotencyKey("verify", asked));
}

async function sendFile(fields) {
  const { name, size: bytes, lastModified } = form.file;
  return upload(
    "verify",
    fields,
    form.file,
    idempotencyKey("upload", { ...fields, name, bytes, lastModified }),
    (sent, all) => {
      const percent = all ? (100 * sent) / all : 0;
      showHashing({
        state: sent < all ? `Sent: ${size(sent)} of ${size(all)}` : "Sent; waiting for the reply …",
        percent,
      });
    },
  );
}

/** Return the field fileName; no field for a name that the service refuses. */
function fileNameOf(file) {
  const fits = file.name && file.name.length <= 255 && !/[\u0000-\u001f\u007f/\\]/.test(file.name);
  return fits ? { fileName: file.name } : {};
}

/** Mark faulty entries. Return whether there are none. */
function markFaults(fields) {
  const faults = {};
  if (!form.file) faults.file = "is missing: choose the file that you want to verify";
  else if (byId("file-fault").textContent) return focusFirst(["file"]);
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
  if (names.length) byId(names[0]).focus();
  return names.length === 0;
}

function setFault(name, text) {
  // The service's messages continue after a field's name, or begin with the expected form.
  const goesOn = /^(is|are|must|cannot|has|names|contains)\b/.test(text);
  byId(`${name}-fault`).textContent = text ? sentence(goesOn ? `${NAMES[name]} ${text}` : text) : "";
  if (text) byId(name).setAttribute("aria-invalid", "true");
  else byId(name).removeAttribute("aria-invalid");
}

function sending(on, state) {
  form.sending = on;
  byId("send").setAttribute("aria-disabled", String(on));
  byId("send-state").textContent = state;
}
