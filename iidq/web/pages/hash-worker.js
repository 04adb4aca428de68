// SHA-256 of a file of any size, beside the page, in flat memory.
import "./vendor/hash-wasm-sha256.umd.min.js";

const PIECE_BYTES = 1 << 20;
const REPORT_EVERY_MS = 100;

self.onmessage = async ({ data: file }) => {
  try {
    self.postMessage({ hash: await sha256(file) });
  } catch (error) {
    self.postMessage({ error: error.name });
  }
};

async function sha256(file) {
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

/** The file's bytes; a piece is only good until the next one is asked for. */
async function* pieces(file) {
  let reader;
  try {
    reader = file.stream().getReader({ mode: "byob" });
  } catch {
    // A browser whose files do not read into given memory: the garbage collector has more to do.
    for (let from = 0; from < file.size; from += PIECE_BYTES) {
      yield new Uint8Array(await file.slice(from, from + PIECE_BYTES).arrayBuffer());
    }
    return;
  }
  // Two buffers take turns: one is read into while the other is hashed. New ones for each piece would pile up to
  // hundreds of megabytes before they are collected.
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
    // A browser or a policy of its owner without WebAssembly.
    const { sha256 } = await import("./vendor/noble-hashes/sha2.js");
    const plain = sha256.create();
    return {
      update: (bytes) => plain.update(bytes),
      digest: () => Array.from(plain.digest(), (byte) => byte.toString(16).padStart(2, "0")).join(""),
    };
  }
}
