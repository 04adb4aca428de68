// What is sent twice is asked once: one key per question, until it has been answered.

const keys = new Map();

export function idempotencyKey(kind, fields) {
  const question = JSON.stringify([kind, fields]);
  if (!keys.has(question)) {
    // randomUUID is not to be had without TLS.
    keys.set(question, Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join(""));
  }
  return keys.get(question);
}

/** After an answer the same question is a new one. */
export const answered = () => keys.clear();
