// The states of a job.

import { element } from "./elements.js";

/** Names of the states, as operators see them: queued jobs are waiting or delayed, processing ones active. */
export const STATE_NAMES = {
  waiting: "Waiting",
  active: "Active",
  delayed: "Delayed",
  completed: "Completed",
  failed: "Failed",
  cancelled: "Cancelled",
};

export const badge = (state) => element("span", { class: `badge ${state}` }, STATE_NAMES[state] || state);

/** Whether a job has ended. */
export const isFinal = (job) => ["completed", "failed", "cancelled"].includes(job.status);
