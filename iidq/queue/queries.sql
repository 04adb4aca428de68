-- Every statement of the queue. Each says what it is for and which index serves it.
-- Loaded by name in queries.py; parameters are psycopg's %(name)s.

-- name: enqueue
-- Many jobs in one statement; "VerificationJob_pkey" makes a repeated insert (commit unknown) harmless.
-- The subselect silences the trigger's NOTIFY for this transaction: we notify after the commit, coalesced.
INSERT INTO "VerificationJob"
  (id, type, "contentHash", "manifestUri", "registryAddress", "rpcUrl", "chainId", "fileName", "maxAttempts")
SELECT new.*, %(max_attempts)s
FROM unnest(%(ids)b::uuid[], %(types)b::text[], %(content_hashes)b::text[], %(manifest_uris)b::text[],
            %(registry_addresses)b::text[], %(rpc_urls)b::text[], %(chain_ids)b::bigint[], %(file_names)b::text[]) AS new,
     (SELECT set_config('iidq.announce', 'off', true)) AS quiet
ON CONFLICT (id) DO NOTHING;

-- name: announce
-- After the commit of our own inserts; the payload is always empty, so that Postgres folds repeats.
SELECT pg_notify('iidq_jobs', '');

-- name: listen
LISTEN iidq_jobs;

-- name: claim
-- For all free slots at once, in the order of "VerificationJob_claim". The locked rows are updated by ctid:
-- a join on id turns into a hash join over the whole table once the batch is large against it.
-- Losing this commit in a crash only un-claims rows, so it need not be durable.
WITH next AS MATERIALIZED (
  SELECT ctid FROM "VerificationJob"
  WHERE ready AND status = 'queued'
  ORDER BY "claimOrder", id
  LIMIT %(slots)s
  FOR UPDATE SKIP LOCKED
)
UPDATE "VerificationJob" AS job
SET status = 'processing', ready = false, attempt = attempt + 1, progress = 0,
    "workerId" = %(worker_id)s, "leaseUntil" = now() + make_interval(secs => %(lease_seconds)s),
    "startedAt" = now(), "updatedAt" = now()
FROM (SELECT set_config('synchronous_commit', 'off', true)) AS quick
WHERE job.ctid = ANY (ARRAY (SELECT ctid FROM next))
RETURNING job.id, job.attempt, job.type, job."contentHash", job."manifestUri", job."registryAddress",
  job."rpcUrl", job."chainId", job."fileName", job."retryCount", job."maxAttempts";

-- name: renew
-- Leases of all running jobs of one worker, by "VerificationJob_pkey". A row that does not come back was lost.
WITH held AS MATERIALIZED (
  SELECT ctid FROM "VerificationJob" WHERE id = ANY (%(ids)b::uuid[]) ORDER BY id FOR UPDATE
)
UPDATE "VerificationJob" AS job
SET "leaseUntil" = now() + make_interval(secs => %(lease_seconds)s), "updatedAt" = now()
FROM unnest(%(ids)b::uuid[], %(attempts)b::int[]) AS mine(id, attempt),
     (SELECT set_config('synchronous_commit', 'off', true)) AS quick
WHERE job.ctid = ANY (ARRAY (SELECT ctid FROM held))
  AND job.id = mine.id AND job.attempt = mine.attempt AND job.status = 'processing'
RETURNING job.id, job.attempt;

-- name: report_progress
-- Coalesced progress of running jobs, by "VerificationJob_pkey"; it never goes backwards within an attempt.
WITH held AS MATERIALIZED (
  SELECT ctid FROM "VerificationJob" WHERE id = ANY (%(ids)b::uuid[]) ORDER BY id FOR UPDATE
)
UPDATE "VerificationJob" AS job
SET progress = greatest(job.progress, mine.progress), "updatedAt" = now()
FROM unnest(%(ids)b::uuid[], %(attempts)b::int[], %(progresses)b::int[]) AS mine(id, attempt, progress),
     (SELECT set_config('synchronous_commit', 'off', true)) AS quick
WHERE job.ctid = ANY (ARRAY (SELECT ctid FROM held))
  AND job.id = mine.id AND job.attempt = mine.attempt AND job.status = 'processing'
RETURNING job.id, job.attempt;

-- name: store_outcomes
-- Ends of attempts, all kinds in one statement: completed, failed, queued again (after a failure, with a delay),
-- or released (queued again, uncharged, at its old place in line). The fence: id, attempt and 'processing' must
-- still hold, else the lease was lost and the outcome is dropped. By "VerificationJob_pkey", rows locked in id order.
WITH held AS MATERIALIZED (
  SELECT ctid FROM "VerificationJob" WHERE id = ANY (%(ids)b::uuid[]) ORDER BY id FOR UPDATE
)
UPDATE "VerificationJob" AS job
SET status = mine.status,
    ready = mine.status = 'queued' AND coalesce(mine.delay_seconds, 0) = 0,
    progress = CASE mine.status WHEN 'completed' THEN 100 WHEN 'queued' THEN 0 ELSE job.progress END,
    result = mine.result::jsonb,
    error = CASE mine.status WHEN 'failed' THEN mine.failure END,
    errors = CASE WHEN mine.failure IS NULL THEN job.errors
      ELSE (CASE WHEN jsonb_array_length(job.errors) < 20 THEN job.errors ELSE job.errors - 0 END)
        || jsonb_build_object('attempt', job.attempt, 'at', now(), 'error', mine.failure) END,
    "retryCount" = job."retryCount" + CASE WHEN mine.status = 'queued' AND mine.failure IS NOT NULL THEN 1 ELSE 0 END,
    "runAt" = CASE WHEN mine.delay_seconds IS NULL THEN job."runAt"
      ELSE now() + make_interval(secs => mine.delay_seconds) END,
    "completedAt" = CASE WHEN mine.status <> 'queued' THEN now() END,
    "leaseUntil" = NULL, "workerId" = NULL, "updatedAt" = now()
FROM unnest(%(ids)b::uuid[], %(attempts)b::int[], %(statuses)b::text[], %(results)b::text[], %(failures)b::text[],
            %(delays_seconds)b::float8[]) AS mine(id, attempt, status, result, failure, delay_seconds)
WHERE job.ctid = ANY (ARRAY (SELECT ctid FROM held))
  AND job.id = mine.id AND job.attempt = mine.attempt AND job.status = 'processing'
RETURNING job.id, job.attempt;

-- name: sweep
-- What time alone brings about, in bounded batches: leases that ran out ("VerificationJob_running"), and retries
-- and future jobs that are due ("VerificationJob_delayed"). Tells how many, whether anything is ready
-- ("VerificationJob_claim"), and in how many seconds the next such event comes. An idle worker's only statement.
WITH expired AS MATERIALIZED (
  SELECT ctid FROM "VerificationJob"
  WHERE "workerId" IS NOT NULL AND "leaseUntil" < now()
  LIMIT %(batch)s FOR UPDATE SKIP LOCKED
), taken_back AS (
  UPDATE "VerificationJob" AS job
  SET status = CASE WHEN "retryCount" + 1 >= "maxAttempts" THEN 'failed' ELSE 'queued' END,
      error = CASE WHEN "retryCount" + 1 >= "maxAttempts" THEN %(lost)s END,
      "completedAt" = CASE WHEN "retryCount" + 1 >= "maxAttempts" THEN now() END,
      "retryCount" = CASE WHEN "retryCount" + 1 >= "maxAttempts" THEN "retryCount" ELSE "retryCount" + 1 END,
      ready = "retryCount" + 1 < "maxAttempts",
      errors = (CASE WHEN jsonb_array_length(errors) < 20 THEN errors ELSE errors - 0 END)
        || jsonb_build_object('attempt', attempt, 'at', now(), 'error', %(lost)s::text),
      progress = 0, "leaseUntil" = NULL, "workerId" = NULL, "updatedAt" = now()
  WHERE ctid = ANY (ARRAY (SELECT ctid FROM expired))
  RETURNING id, attempt, status
), due AS MATERIALIZED (
  SELECT ctid FROM "VerificationJob"
  WHERE status = 'queued' AND NOT ready AND "runAt" <= now()
  ORDER BY "runAt"
  LIMIT %(batch)s FOR UPDATE SKIP LOCKED
), promoted AS (
  UPDATE "VerificationJob" SET ready = true, "updatedAt" = now()
  WHERE ctid = ANY (ARRAY (SELECT ctid FROM due))
  RETURNING id
)
SELECT
  (SELECT coalesce(jsonb_agg(to_jsonb(taken_back)), '[]') FROM taken_back) AS expired,
  (SELECT count(*) FROM promoted) AS promoted,
  EXISTS (SELECT FROM "VerificationJob" WHERE ready AND status = 'queued') AS waiting,
  least(
    (SELECT extract(epoch FROM min("runAt") - now()) FROM "VerificationJob"
      WHERE status = 'queued' AND NOT ready AND "runAt" > now()),
    (SELECT extract(epoch FROM min("leaseUntil") - now()) FROM "VerificationJob"
      WHERE "workerId" IS NOT NULL AND "leaseUntil" >= now())
  )::float8 AS next_event_seconds;

-- name: purge
-- Retention, oldest first along "VerificationJob_newest"; failed jobs may be kept longer than the others.
-- A job ends after it is created, so the index on creation bounds the search.
WITH old AS MATERIALIZED (
  SELECT ctid FROM "VerificationJob"
  WHERE "createdAt" < now() - make_interval(secs => least(%(completed_seconds)s, %(failed_seconds)s)::float8)
    AND "completedAt" < now() - make_interval(secs =>
      (CASE status WHEN 'failed' THEN %(failed_seconds)s ELSE %(completed_seconds)s END)::float8)
  ORDER BY "createdAt", id
  LIMIT %(batch)s FOR UPDATE SKIP LOCKED
)
DELETE FROM "VerificationJob" WHERE ctid = ANY (ARRAY (SELECT ctid FROM old));

-- name: find
-- One job, by "VerificationJob_pkey".
SELECT id, type, status, progress, "contentHash", "manifestUri", "registryAddress", "rpcUrl", "chainId", "fileName",
  result, error, errors, "retryCount", attempt, "maxAttempts", priority, "runAt", "startedAt", "completedAt",
  "createdAt", "updatedAt"
FROM "VerificationJob" WHERE id = %(id)s;

-- name: list_newest
-- Newest first, by "VerificationJob_newest"; a status of failed or cancelled has an index of its own.
SELECT id, type, status, progress, "contentHash", "manifestUri", "registryAddress", "rpcUrl", "chainId", "fileName",
  result, error, errors, "retryCount", attempt, "maxAttempts", priority, "runAt", "startedAt", "completedAt",
  "createdAt", "updatedAt"
FROM "VerificationJob"
WHERE true
  AND (%(status)s::text IS NULL OR status = %(status)s)
  AND (%(type)s::text IS NULL OR type = %(type)s)
  AND (%(after_time)s::timestamptz IS NULL OR ("createdAt", id) < (%(after_time)s, %(after_id)s))
ORDER BY "createdAt" DESC, id DESC
LIMIT %(limit)s OFFSET %(offset)s;

-- name: list_unfinished
-- Newest first among the jobs that have not ended, through the three small indexes instead of the history.
SELECT id, type, status, progress, "contentHash", "manifestUri", "registryAddress", "rpcUrl", "chainId", "fileName",
  result, error, errors, "retryCount", attempt, "maxAttempts", priority, "runAt", "startedAt", "completedAt",
  "createdAt", "updatedAt"
FROM "VerificationJob"
WHERE (ready AND status = 'queued' OR status = 'queued' AND NOT ready OR "workerId" IS NOT NULL)
  AND (%(status)s::text IS NULL OR status = %(status)s)
  AND (%(type)s::text IS NULL OR type = %(type)s)
  AND (%(after_time)s::timestamptz IS NULL OR ("createdAt", id) < (%(after_time)s, %(after_id)s))
ORDER BY "createdAt" DESC, id DESC
LIMIT %(limit)s OFFSET %(offset)s;

-- name: list_content
-- Newest first among the jobs of one content hash: "VerificationJob_finished_content", and the three small indexes.
SELECT id, type, status, progress, "contentHash", "manifestUri", "registryAddress", "rpcUrl", "chainId", "fileName",
  result, error, errors, "retryCount", attempt, "maxAttempts", priority, "runAt", "startedAt", "completedAt",
  "createdAt", "updatedAt"
FROM "VerificationJob"
WHERE ("contentHash" = %(content_hash)s AND "completedAt" IS NOT NULL
       OR ready AND status = 'queued' OR status = 'queued' AND NOT ready OR "workerId" IS NOT NULL)
  AND "contentHash" = %(content_hash)s
  AND (%(status)s::text IS NULL OR status = %(status)s)
  AND (%(type)s::text IS NULL OR type = %(type)s)
  AND (%(after_time)s::timestamptz IS NULL OR ("createdAt", id) < (%(after_time)s, %(after_id)s))
ORDER BY "createdAt" DESC, id DESC
LIMIT %(limit)s OFFSET %(offset)s;

-- name: count
-- Jobs by state. Unfinished ones through their small indexes; finished ones are counted.
SELECT
  count(*) FILTER (WHERE status = 'queued' AND ready) AS waiting,
  count(*) FILTER (WHERE status = 'queued' AND NOT ready) AS delayed,
  count(*) FILTER (WHERE status = 'processing') AS active,
  count(*) FILTER (WHERE status = 'completed') AS completed,
  count(*) FILTER (WHERE status = 'failed') AS failed,
  count(*) FILTER (WHERE status = 'cancelled') AS cancelled,
  count(DISTINCT "workerId") AS workers,
  extract(epoch FROM now() - min("runAt") FILTER (WHERE status = 'queued' AND ready))::float8 AS oldest_waiting_seconds
FROM "VerificationJob";
