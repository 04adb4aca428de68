// Hash files with hash-worker.js.

/** Start to hash `file`. `result` resolves to "0x…" and rejects after `cancel()`. */
export function hashFile(file, onProgress) {
  const worker = new Worker(new URL("./hash-worker.js", import.meta.url), { type: "module" });
  const started = performance.now();
  let cancel;
  const result = new Promise((resolve, reject) => {
    cancel = () => reject(new Error("The fingerprint was cancelled."));
    worker.onerror = (event) => {
      event.preventDefault();
      reject(new Error("The fingerprint cannot be computed in this browser."));
    };
    worker.onmessage = ({ data }) => {
      if ("hash" in data) resolve(data.hash);
      else if ("error" in data)
        reject(new Error("The file cannot be read: it was changed or moved, or it is a folder."));
      else onProgress(data.done, data.done / ((performance.now() - started) / 1000));
    };
    worker.postMessage(file);
  }).finally(() => worker.terminate());
  return { result, cancel };
}
