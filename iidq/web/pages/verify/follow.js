// Follow a job to its end by server-sent events, or by polling where a proxy holds events back.
// Not EventSource, which cannot send the API key, nor notice a silent proxy.

import { Fault } from "../shared/request.js";
import { isFinal } from "../shared/states.js";
import { eventsPath, faultOf, jobPath, send } from "./api.js";

const FIRST_EVENT_MS = 2_500; // the server sends the present state at once
const SILENCE_MS = 40_000; // the server sends a comment every 15 s
const POLL_MS = 1_000;
const LONGEST_WAIT_MS = 5_000;

/**
 * Call `onJob(job)` with each state until the last one, and `onConnection("live" | "polling" | "lost")` when that
 * changes. Throw a Fault for a job that cannot be read (400, 401, 404).
 */
export async function follow(id, { onJob, onConnection, signal }) {
  const state = { lastEventId: "", tag: "", job: null };
  const take = (job) => {
    state.job = job;
    onJob(job);
  };
  let streams = true;
  let failures = 0;
  while (!signal.aborted) {
    try {
      if (streams) streams = await stream(id, state, take, onConnection, signal);
      else await poll(id, state, take, onConnection, signal);
      failures = 0;
      if (state.job && isFinal(state.job)) return;
      await pause(streams ? 250 : POLL_MS, signal);
    } catch (error) {
      if (signal.aborted) return;
      if (!(error instanceof Fault) || [400, 401, 404].includes(error.status)) throw error;
      onConnection("lost");
      failures += 1;
      await pause(
        Math.max((error.retryAfterSeconds ?? 0) * 1000, Math.min(LONGEST_WAIT_MS, 250 * 2 ** failures)),
        signal,
      );
    }
  }
}

/** Read one stream to its end. Return false if events do not get through. */
async function stream(id, state, take, onConnection, signal) {
  const own = new AbortController();
  const abort = () => own.abort();
  signal.addEventListener("abort", abort);
  let heard = false;
  let timer = setTimeout(abort, FIRST_EVENT_MS);
  try {
    const response = await send(eventsPath(id), {
      headers: { Accept: "text/event-stream", ...(state.lastEventId && { "Last-Event-ID": state.lastEventId }) },
      signal: own.signal,
    });
    if (response.status === 503) return false;
    if (response.status === 204) {
      await poll(id, state, take, onConnection, signal);
      return true;
    }
    if (!response.ok) throw await faultOf(response);
    if (!(response.headers.get("Content-Type") ?? "").startsWith("text/event-stream")) return false;
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return true;
      text += value;
      const blocks = text.split("\n\n");
      text = blocks.pop();
      for (const event of blocks.map(parseEvent).filter(({ data }) => data)) {
        heard = true;
        state.lastEventId = event.id ?? state.lastEventId;
        onConnection("live");
        take(JSON.parse(event.data));
      }
      if (heard) {
        clearTimeout(timer);
        timer = setTimeout(abort, SILENCE_MS);
      }
    }
  } catch (error) {
    if (signal.aborted || error instanceof Fault) throw error;
    if (own.signal.aborted) return heard;
    // The connection broke: the server restarts, or the network changed.
    throw new Fault("The connection was lost.");
  } finally {
    clearTimeout(timer);
    signal.removeEventListener("abort", abort);
    own.abort();
  }
}

function parseEvent(block) {
  const event = {};
  for (const line of block.split("\n")) {
    const colon = line.indexOf(":");
    if (colon > 0) event[line.slice(0, colon)] = line.slice(colon + 1).replace(/^ /, "");
  }
  return event;
}

async function poll(id, state, take, onConnection, signal) {
  const response = await send(jobPath(id), { headers: state.tag ? { "If-None-Match": state.tag } : {}, signal });
  if (response.status !== 304 && !response.ok) throw await faultOf(response);
  onConnection("polling");
  if (response.status === 304) return;
  state.tag = response.headers.get("ETag") ?? "";
  take(await response.json());
}

function pause(ms, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener("abort", () => (clearTimeout(timer), resolve()), { once: true });
  });
}
