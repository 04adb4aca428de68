// Prints as JSON how BullMQ reads the Redis at argv[2]. Run by test_bullmq.py.
const { Queue } = require("bullmq");
const Redis = require("ioredis");

const STATES = ["waiting", "active", "delayed", "completed", "failed"];

async function main() {
  const connection = new Redis(process.argv[2], { maxRetriesPerRequest: null });
  const queue = new Queue("verification", { connection });
  const seen = { counts: await queue.getJobCounts(), paused: await queue.isPaused(), states: {}, jobs: {} };
  for (const state of STATES) {
    const jobs = await queue.getJobs([state], 0, -1);
    seen.states[state] = jobs.map((job) => job.id);
    for (const job of jobs) {
      seen.jobs[job.id] = { ...job.toJSON(), state: await job.getState(), delay: job.delay };
    }
  }
  // The page as in Bull Board, and the metrics for Prometheus.
  seen.page = (await queue.getJobs(["waiting"], 0, 1)).map((job) => job.id);
  seen.metrics = await queue.exportPrometheusMetrics();
  await queue.close();
  await connection.quit();
  process.stdout.write(JSON.stringify(seen));
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
