-- transactional: false
ALTER TABLE "VerificationJob" ADD COLUMN IF NOT EXISTS "claimOrder" timestamp GENERATED ALWAYS AS (
  ("runAt" AT TIME ZONE 'UTC') + (CASE type WHEN 'proof' THEN 1 ELSE 0 END - priority) * interval '30 seconds'
) STORED;
COMMENT ON COLUMN "VerificationJob"."claimOrder" IS
  'place in line: "runAt", 30 s later for proofs, 30 s earlier per step of priority';
DROP INDEX CONCURRENTLY IF EXISTS "VerificationJob_claim";
CREATE INDEX CONCURRENTLY "VerificationJob_claim" ON "VerificationJob" ("claimOrder", id)
  WHERE ready AND status = 'queued';
CREATE OR REPLACE VIEW queue_health AS
SELECT
  CASE WHEN control."pausedAt" IS NOT NULL THEN 'paused'
       WHEN workers.live = 0 THEN CASE WHEN counts.waiting + counts.delayed + counts.active > 0 THEN 'no workers'
                                       ELSE 'idle, no workers' END
       WHEN counts.waiting + counts.active > 0 THEN 'running'
       ELSE 'idle' END AS state,
  control."pauseReason" AS pause_reason,
  counts.*,
  extract(epoch FROM now() - (
    SELECT "runAt" FROM "VerificationJob" WHERE ready AND status = 'queued'
    ORDER BY "claimOrder", id LIMIT 1
  ))::float8 AS oldest_waiting_seconds,
  (SELECT "runAt" FROM "VerificationJob" WHERE status = 'queued' AND NOT ready ORDER BY "runAt" LIMIT 1) AS next_due_at,
  (SELECT count(*) FROM "VerificationJob" WHERE "workerId" IS NOT NULL AND "leaseUntil" < now()) AS expired_leases,
  workers.live AS workers, workers.slots, workers.listening AS listening_workers,
  control."upkeepAt" AS upkeep_at,
  (SELECT coalesce(array_agg(DISTINCT fault), '{}') FROM queue_workers, unnest(faults) AS fault) AS faults
FROM queue_control AS control,
  (SELECT coalesce(sum(waiting), 0)::bigint AS waiting, coalesce(sum(delayed), 0)::bigint AS delayed,
          coalesce(sum(active), 0)::bigint AS active, coalesce(sum(completed), 0)::bigint AS completed,
          coalesce(sum(failed), 0)::bigint AS failed, coalesce(sum(cancelled), 0)::bigint AS cancelled
   FROM queue_count) AS counts,
  (SELECT count(*) AS live, coalesce(sum(concurrency), 0) AS slots, count(*) FILTER (WHERE listening) AS listening
   FROM queue_workers) AS workers;
DROP INDEX CONCURRENTLY IF EXISTS "VerificationJob_line";
DROP FUNCTION IF EXISTS claim_order(timestamptz, text, smallint);
