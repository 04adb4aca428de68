-- Views for operators: state, workers, failures, throughput. Safe for a read-only role.
-- depends: 0005_control

CREATE VIEW public.queue_workers AS
SELECT "workerId" AS worker_id, host, pid, version, concurrency, running, listening,
       "startedAt" AS started_at, "seenAt" AS seen_at, faults
FROM public.iidq_queue_worker WHERE "aliveUntil" > now();
COMMENT ON VIEW public.queue_workers IS 'One row per live worker process.';

CREATE VIEW public.queue_health AS
SELECT
  CASE WHEN control."pausedAt" IS NOT NULL THEN 'paused'
       WHEN workers.live = 0
         THEN CASE WHEN counts.waiting + counts.delayed + counts.active > 0 THEN 'no workers' ELSE 'idle, no workers' END
       WHEN counts.waiting + counts.active > 0 THEN 'running' ELSE 'idle' END AS state,
  control."pauseReason" AS pause_reason, counts.*, jobs.oldest_waiting_seconds, jobs.next_due_at, jobs.expired_leases,
  workers.live AS workers, workers.slots, workers.listening AS listening_workers,
  control."upkeepAt" AS upkeep_at,
  (SELECT coalesce(array_agg(DISTINCT fault), '{}') FROM public.queue_workers, unnest(faults) AS fault) AS faults
FROM
  -- First, so that the jobs are locked before the counts, as by TRUNCATE of the jobs.
  (SELECT extract(epoch FROM now() - (
       SELECT "runAt" FROM public."VerificationJob" WHERE ready AND status = 'queued'
       ORDER BY public.iidq_claim_order("runAt", type, priority), id LIMIT 1))::float8 AS oldest_waiting_seconds,
     (SELECT "runAt" FROM public."VerificationJob" WHERE status = 'queued' AND NOT ready ORDER BY "runAt" LIMIT 1) AS next_due_at,
     (SELECT count(*) FROM public."VerificationJob" WHERE "workerId" IS NOT NULL AND "leaseUntil" < now()) AS expired_leases
  ) AS jobs
  LEFT JOIN public.iidq_queue_control AS control ON true,
  (SELECT coalesce(sum(waiting), 0)::bigint AS waiting, coalesce(sum(delayed), 0)::bigint AS delayed,
          coalesce(sum(active), 0)::bigint AS active, coalesce(sum(completed), 0)::bigint AS completed,
          coalesce(sum(failed), 0)::bigint AS failed, coalesce(sum(cancelled), 0)::bigint AS cancelled
   FROM public.iidq_queue_count) AS counts,
  (SELECT count(*) AS live, coalesce(sum(concurrency), 0) AS slots, count(*) FILTER (WHERE listening) AS listening
   FROM public.queue_workers) AS workers;
COMMENT ON VIEW public.queue_health IS 'One row: state, counts, age of the first in line, workers, signs of listeners and upkeep.';

CREATE VIEW public.queue_errors AS
SELECT split_part(error, ':', 1) AS cause, count(*) AS jobs, max("completedAt") AS last_at,
       (array_agg(id ORDER BY "completedAt" DESC))[1] AS example_id,
       (array_agg(error ORDER BY "completedAt" DESC))[1] AS example_error
FROM public."VerificationJob"
WHERE status = 'failed' AND "completedAt" > now() - interval '1 day'
GROUP BY 1 ORDER BY jobs DESC, cause;
COMMENT ON VIEW public.queue_errors IS 'One row per cause of failure in the last day, most frequent first, with an example.';

CREATE VIEW public.queue_throughput AS
SELECT minute, coalesce(sum(enqueued), 0)::bigint AS enqueued, coalesce(sum(succeeded), 0)::bigint AS completed,
       coalesce(sum(gave_up), 0)::bigint AS failed
FROM generate_series(date_trunc('minute', now()) - interval '59 minutes', date_trunc('minute', now()),
                     interval '1 minute') AS minute
LEFT JOIN public.iidq_queue_count ON at >= minute AND at < minute + interval '1 minute'
GROUP BY minute ORDER BY minute DESC;
COMMENT ON VIEW public.queue_throughput IS 'One row per minute of the last hour: jobs asked for, completed, failed.';
