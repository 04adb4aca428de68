// SHA-256 of a file of any size, in a thread of its own and in constant memory.

import "../vendor/hash-wasm-sha256.umd.min.js";

const PIECE_BYTES = 1 << 20;
const REPORT_EVERY_MS = 100;

self.onmessage = async ({ data: file }) => {
  try {
    self.postMessage({ hash: await hashOf(file) });
  } catch (error) {
    self.postMessage({ error: error.name });
  }
};

async function hashOf(file) {
  const hasher = await openHasher();
  let done = 0;
  let reported = 0;
  for await (const piece of pieces(file)) {
    hasher.update(piece);
    done += piece.length;
    if (performance.now() - reported > REPORT_EVERY_MS) {
      reported = performance.now();
      self.postMessage({ done });
    }
  }
  if (done !== file.size) throw new DOMException("", "NotReadableError");
  return `0x${hasher.digest()}`;
}

/** Yield the file's bytes in pieces. A piece is valid until the next one. */
async function* pieces(file) {
  let reader;
  try {
    reader = file.stream().getReader({ mode: "byob" });
  } catch {
    // This browser cannot read files into given memory, so each piece is new memory.
    for (let from = 0; from < file.size; from += PIECE_BYTES) {
      yield new Uint8Array(await file.slice(from, from + PIECE_BYTES).arrayBuffer());
    }
    return;
  }
  // Two buffers alternate: one is filled while the other is hashed. New memory for each piece would reach hundreds of
  // megabytes before it is collected.
  let reading = reader.read(new Uint8Array(PIECE_BYTES));
  let spare = new ArrayBuffer(PIECE_BYTES);
  for (;;) {
    const { value, done } = await reading;
    if (done) return;
    reading = reader.read(new Uint8Array(spare));
    reading.catch(() => {});
    yield value;
    spare = value.buffer;
  }
}

async function openHasher() {
  try {
    const wasm = await self.hashwasm.createSHA256();
    wasm.init();
    return { update: (bytes) => wasm.update(bytes), digest: () => wasm.digest("hex") };
  } catch {
    // This browser, or the policy of its owner, has no WebAssembly.
    const { sha256 } = await import("../vendor/noble-hashes/sha2.js");
    const plain = sha256.create();
    return {
      update: (bytes) => plain.update(bytes),
      digest: () => Array.from(plain.digest(), (byte) => byte.toString(16).padStart(2, "0")).join(""),
    };
  }
}
