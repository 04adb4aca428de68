-- Every statement of the queue. Each says what it is for and which index serves it.
-- Loaded by name in queries.py; parameters are psycopg's %(name)s.
--
-- Statements that change a job's state also add their changes to queue_count, one row per batch, and set
-- iidq.writer for their transaction so that the triggers, which do both for everybody else, stay silent.

-- name: enqueue
-- Many jobs in one statement; "VerificationJob_pkey" makes a repeated insert (commit unknown) harmless.
-- One JSON document: psycopg takes 200 µs for eight arrays, however short, and 25 for this.
-- No NOTIFY in this transaction: it would take a database-wide lock at commit. We notify afterwards, coalesced.
WITH inserted AS (
  INSERT INTO "VerificationJob"
    (id, type, "contentHash", "manifestUri", "registryAddress", "rpcUrl", "chainId", "fileName", "maxAttempts")
  SELECT new.*, %(max_attempts)s
  FROM jsonb_to_recordset(%(jobs)s::jsonb) AS new(id uuid, type text, content_hash text, manifest_uri text,
         registry_address text, rpc_url text, chain_id bigint, file_name text)
  WHERE (SELECT set_config('iidq.writer', 'on', true)) IS NOT NULL
  ON CONFLICT (id) DO NOTHING
  RETURNING id
)
INSERT INTO queue_count (waiting, enqueued) SELECT count(*), count(*) FROM inserted;

-- name: announce
-- After the commit of our own inserts. Empty: the first of the live workers answers, the others stay asleep.
-- 'rest': that one had not enough free slots, everybody may come.
SELECT pg_notify('iidq_jobs', %(payload)s);

-- name: listen
-- Announcements of work.
LISTEN iidq_jobs;

-- name: listen_to_cancellations
-- Ids of running jobs that were cancelled; whoever runs one interrupts it.
LISTEN iidq_cancelled;

-- name: listen_to_echo
-- A channel of this listener's own, on which it hears itself: a pooler between transactions takes LISTEN and
-- delivers nothing.
LISTEN {channel};

-- name: echo
-- Heard on listen_to_echo's channel, or not.
SELECT pg_notify(%(channel)s, '');

-- name: claim
-- For all free slots at once, in the order of "VerificationJob_claim". The locked rows are updated by ctid:
-- a join on id turns into a hash join over the whole table once the batch is large against it.
-- Losing this commit in a crash only un-claims rows, so it need not be durable.
WITH next AS MATERIALIZED (
  SELECT ctid FROM "VerificationJob"
  WHERE ready AND status = 'queued' AND NOT EXISTS (SELECT FROM queue_control WHERE "pausedAt" IS NOT NULL)
  ORDER BY "claimOrder", id
  LIMIT %(slots)s
  FOR UPDATE SKIP LOCKED
), claimed AS (
  UPDATE "VerificationJob" AS job
  SET status = 'processing', ready = false, attempt = attempt + 1, progress = 0,
      "workerId" = %(worker_id)s, "leaseUntil" = now() + make_interval(secs => %(lease_seconds)s),
      "startedAt" = now(), "updatedAt" = now()
  WHERE job.ctid = ANY (ARRAY (SELECT ctid FROM next))
    AND (SELECT set_config('iidq.writer', 'on', true)) IS NOT NULL
    AND (SELECT set_config('synchronous_commit', 'off', true)) IS NOT NULL
  RETURNING job.id, job.attempt, job.type, job."contentHash", job."manifestUri", job."registryAddress",
    job."rpcUrl", job."chainId", job."fileName", job."retryCount", job."maxAttempts"
), counted AS (
  INSERT INTO queue_count (waiting, active) SELECT -count(*), count(*) FROM claimed HAVING count(*) > 0
)
SELECT * FROM claimed;

-- name: release_unknown
-- After a claim whose answer was lost with its connection: what this worker holds without knowing goes back to its
-- old place in line, uncharged. By "VerificationJob_running".
WITH unknown AS MATERIALIZED (
  SELECT ctid FROM "VerificationJob"
  WHERE "workerId" IS NOT NULL AND "workerId" = %(worker_id)s AND NOT id = ANY (%(ids)b::uuid[])
  FOR UPDATE
), released AS (
  UPDATE "VerificationJob" AS job
  SET status = 'queued', ready = true, "leaseUntil" = NULL, "workerId" = NULL, "updatedAt" = now()
  WHERE job.ctid = ANY (ARRAY (SELECT ctid FROM unknown)) AND (SELECT set_config('iidq.writer', 'on', true)) IS NOT NULL
  RETURNING job.id
)
INSERT INTO queue_count (waiting, active) SELECT count(*), -count(*) FROM released HAVING count(*) > 0;

-- name: renew
-- Leases of all running jobs of one worker, by "VerificationJob_running". A row that does not come back was lost.
-- Straight by id, as all writes of a worker to its own jobs: rows locked first and then updated by ctid would be
-- missed when another of these writes came between.
UPDATE "VerificationJob" AS job
SET "leaseUntil" = now() + make_interval(secs => %(lease_seconds)s), "updatedAt" = now()
WHERE job.id = ANY (%(ids)b::uuid[]) AND job.status = 'processing' AND job."workerId" = %(worker_id)s
  AND (SELECT set_config('synchronous_commit', 'off', true)) IS NOT NULL
RETURNING job.id, job.attempt;

-- name: report_progress
-- Coalesced progress of running jobs, by "VerificationJob_pkey"; it never goes backwards within an attempt.
-- About the shape, see store_outcomes.
WITH mine AS MATERIALIZED (
  SELECT *, 'processing' AS status, %(worker_id)s::text AS worker_id
  FROM jsonb_to_recordset(%(progress)s::jsonb) AS told(id uuid, attempt int, progress int)
)
UPDATE "VerificationJob" AS job
SET progress = greatest(job.progress, mine.progress), "updatedAt" = now()
FROM mine
WHERE job.id = ANY (%(ids)b::uuid[])
  AND job.id = mine.id AND job.attempt = mine.attempt
  AND job.status = mine.status AND job."workerId" = mine.worker_id
  AND (SELECT set_config('synchronous_commit', 'off', true)) IS NOT NULL
RETURNING job.id, job.attempt;

-- name: store_outcomes
-- Ends of attempts, all kinds in one statement: completed, failed, queued again (after a failure, with a delay),
-- or released (queued again, uncharged, at its old place in line). The fence: id, attempt, worker and 'processing'
-- must still hold, else the lease was lost and the outcome is dropped. The worker is part of it because a claim that
-- a crash undid can give the same attempt number out twice. By "VerificationJob_pkey", and by id as renew does: an
-- outcome that waits behind a renewal must still be stored.
-- Status and worker are compared as columns of the batch: as constants they make the planner expect one row, and it
-- then compares each row with each outcome (70 ms per 500 instead of 12).
WITH mine AS MATERIALIZED (
  SELECT *, 'processing' AS held_status, %(worker_id)s::text AS held_by
  FROM jsonb_to_recordset(%(outcomes)s::jsonb)
    AS told(id uuid, attempt int, status text, result jsonb, failure text, delay_seconds float8)
), stored AS (
  UPDATE "VerificationJob" AS job
  SET status = mine.status,
      ready = mine.status = 'queued' AND coalesce(mine.delay_seconds, 0) = 0,
      progress = CASE mine.status WHEN 'completed' THEN 100 WHEN 'queued' THEN 0 ELSE job.progress END,
      result = mine.result,
      error = CASE mine.status WHEN 'failed' THEN mine.failure END,
      errors = CASE WHEN mine.failure IS NULL THEN job.errors
        ELSE (CASE WHEN jsonb_array_length(job.errors) < 20 THEN job.errors ELSE job.errors - 0 END)
          || jsonb_build_object('attempt', job.attempt, 'at', now(), 'error', mine.failure) END,
      "retryCount" = job."retryCount" + CASE WHEN mine.status = 'queued' AND mine.failure IS NOT NULL THEN 1 ELSE 0 END,
      "runAt" = CASE WHEN mine.delay_seconds IS NULL THEN job."runAt"
        ELSE now() + make_interval(secs => mine.delay_seconds) END,
      "completedAt" = CASE WHEN mine.status <> 'queued' THEN now() END,
      "leaseUntil" = NULL, "workerId" = NULL, "updatedAt" = now()
  FROM mine
  WHERE job.id = ANY (%(ids)b::uuid[])
    AND job.id = mine.id AND job.attempt = mine.attempt
    AND job.status = mine.held_status AND job."workerId" = mine.held_by
    AND (SELECT set_config('iidq.writer', 'on', true)) IS NOT NULL
  RETURNING job.id, job.attempt, job.status, job.ready
), counted AS (
  INSERT INTO queue_count (waiting, delayed, active, completed, failed, succeeded, gave_up)
  SELECT count(*) FILTER (WHERE status = 'queued' AND ready), count(*) FILTER (WHERE status = 'queued' AND NOT ready),
         -count(*), count(*) FILTER (WHERE status = 'completed'), count(*) FILTER (WHERE status = 'failed'),
         count(*) FILTER (WHERE status = 'completed'), count(*) FILTER (WHERE status = 'failed')
  FROM stored HAVING count(*) > 0
)
-- The lost ones: hardly ever any, where the stored ones would be as many rows as went in.
SELECT mine.id FROM mine WHERE NOT EXISTS (SELECT FROM stored WHERE stored.id = mine.id);

-- name: sweep
-- What a worker does at every poll, in one statement; an idle worker's only one. It says that it lives, and looks
-- whether anything waits ("VerificationJob_claim") and in how many seconds time alone brings the next event.
-- Whoever gets the advisory lock also does the upkeep, in bounded batches that skip locked rows: leases that ran out
-- ("VerificationJob_running"), retries and future jobs that are due ("VerificationJob_delayed"), dead workers' rows,
-- expired keys ("idempotency_key_expiry"), and the folding of queue_count. A job lost for the first time runs again at
-- once; one lost again waits for a random while, lest a job that kills its worker takes the same neighbours along.
WITH turn AS MATERIALIZED (
  SELECT pg_try_advisory_xact_lock(hashtext('iidq.upkeep')) AS mine,
         set_config('iidq.writer', 'on', true), set_config('synchronous_commit', 'off', true)
), alive AS (
  INSERT INTO queue_worker ("workerId", host, pid, version, concurrency, running, listening, "aliveUntil")
  SELECT %(worker_id)s, %(host)s, %(pid)s, %(version)s, %(concurrency)s, %(running)s, %(listening)s,
         now() + make_interval(secs => %(alive_seconds)s)
  FROM turn
  ON CONFLICT ("workerId") DO UPDATE
  SET running = excluded.running, listening = excluded.listening, "seenAt" = now(), "aliveUntil" = excluded."aliveUntil"
), expired AS MATERIALIZED (
  SELECT ctid FROM "VerificationJob"
  WHERE "workerId" IS NOT NULL AND "leaseUntil" < now() AND (SELECT mine FROM turn)
  LIMIT %(batch)s FOR UPDATE SKIP LOCKED
), taken_back AS (
  UPDATE "VerificationJob" AS job
  SET status = CASE WHEN "retryCount" + 1 >= "maxAttempts" THEN 'failed' ELSE 'queued' END,
      error = CASE WHEN "retryCount" + 1 >= "maxAttempts" THEN %(lost)s END,
      "completedAt" = CASE WHEN "retryCount" + 1 >= "maxAttempts" THEN now() END,
      "retryCount" = CASE WHEN "retryCount" + 1 >= "maxAttempts" THEN "retryCount" ELSE "retryCount" + 1 END,
      ready = "retryCount" = 0 AND "maxAttempts" > 1,
      "runAt" = CASE WHEN "retryCount" = 0 OR "retryCount" + 1 >= "maxAttempts" THEN "runAt"
        ELSE now() + random() * make_interval(secs => least(300, 5 * 2.0 ^ "retryCount")) END,
      errors = (CASE WHEN jsonb_array_length(errors) < 20 THEN errors ELSE errors - 0 END)
        || jsonb_build_object('attempt', attempt, 'at', now(), 'error', %(lost)s::text),
      progress = 0, "leaseUntil" = NULL, "workerId" = NULL, "updatedAt" = now()
  FROM turn
  WHERE job.ctid = ANY (ARRAY (SELECT ctid FROM expired))
  RETURNING id, attempt, status, ready
), due AS MATERIALIZED (
  SELECT ctid FROM "VerificationJob"
  WHERE status = 'queued' AND NOT ready AND "runAt" <= now() AND (SELECT mine FROM turn)
  ORDER BY "runAt"
  LIMIT %(batch)s FOR UPDATE SKIP LOCKED
), promoted AS (
  UPDATE "VerificationJob" AS job SET ready = true, "updatedAt" = now()
  FROM turn
  WHERE job.ctid = ANY (ARRAY (SELECT ctid FROM due))
  RETURNING id
), gone_workers AS (
  DELETE FROM queue_worker
  WHERE "aliveUntil" < now() - interval '1 minute' AND "workerId" <> %(worker_id)s AND (SELECT mine FROM turn)
), expired_keys AS (
  DELETE FROM idempotency_key WHERE ctid = ANY (ARRAY (
    SELECT ctid FROM idempotency_key WHERE "expiresAt" < now() AND (SELECT mine FROM turn)
    LIMIT %(batch)s FOR UPDATE SKIP LOCKED))
), upkeep AS (
  UPDATE queue_control SET "upkeepAt" = now() WHERE (SELECT mine FROM turn)
), unfolded AS (
  DELETE FROM queue_count
  WHERE (SELECT mine FROM turn) AND (SELECT count(*) > 200 FROM (SELECT FROM queue_count LIMIT 201) AS first_rows)
  RETURNING *
), folded AS (
  INSERT INTO queue_count (at, waiting, delayed, active, completed, failed, cancelled, enqueued, succeeded, gave_up)
  SELECT minute, sum(waiting), sum(delayed), sum(active), sum(completed), sum(failed), sum(cancelled),
         sum(enqueued), sum(succeeded), sum(gave_up)
  FROM (
    SELECT CASE WHEN at < now() - interval '61 minutes' THEN '-infinity' ELSE date_trunc('minute', at) END AS minute, *
    FROM unfolded
    UNION ALL
    SELECT date_trunc('minute', now()), now(),
           count(*) FILTER (WHERE ready), count(*) FILTER (WHERE status = 'queued' AND NOT ready), -count(*), 0,
           count(*) FILTER (WHERE status = 'failed'), 0,
           0, 0, count(*) FILTER (WHERE status = 'failed')
    FROM taken_back HAVING count(*) > 0
    UNION ALL
    SELECT date_trunc('minute', now()), now(), count(*), -count(*), 0, 0, 0, 0, 0, 0, 0 FROM promoted HAVING count(*) > 0
  ) AS changes
  GROUP BY minute
)
SELECT
  (SELECT coalesce(jsonb_agg(to_jsonb(taken_back)), '[]') FROM taken_back) AS expired,
  (SELECT count(*) FROM promoted) AS promoted,
  EXISTS (SELECT FROM "VerificationJob" WHERE ready AND status = 'queued')
    AND NOT EXISTS (SELECT FROM queue_control WHERE "pausedAt" IS NOT NULL) AS waiting,
  least(
    (SELECT extract(epoch FROM min("runAt") - now()) FROM "VerificationJob"
      WHERE status = 'queued' AND NOT ready AND "runAt" > now()),
    (SELECT extract(epoch FROM min("leaseUntil") - now()) FROM "VerificationJob"
      WHERE "workerId" IS NOT NULL AND "leaseUntil" >= now())
  )::float8 AS next_event_seconds,
  %(worker_id)s <= ALL (SELECT "workerId" FROM queue_worker WHERE "aliveUntil" > now() AND listening) AS first_responder;

-- name: leave
-- A worker that stopped in order is no longer waited for.
DELETE FROM queue_worker WHERE "workerId" = %(worker_id)s;

-- name: purge
-- Retention by age, oldest first along "VerificationJob_newest"; failed jobs may be kept longer than the others.
-- A job ends after it is created, so the index on creation bounds the search. Each batch begins where the one before
-- ended, instead of walking over what that one has just deleted.
WITH old AS MATERIALIZED (
  SELECT ctid, "createdAt", status FROM "VerificationJob"
  WHERE "createdAt" >= %(from_time)s
    AND "createdAt" < now() - make_interval(secs => least(%(completed_seconds)s, %(failed_seconds)s)::float8)
    AND "completedAt" < now() - make_interval(secs =>
      (CASE status WHEN 'failed' THEN %(failed_seconds)s ELSE %(completed_seconds)s END)::float8)
  ORDER BY "createdAt", id
  LIMIT %(batch)s FOR UPDATE SKIP LOCKED
), removed AS (
  DELETE FROM "VerificationJob" AS job
  WHERE job.ctid = ANY (ARRAY (SELECT ctid FROM old))
    AND (SELECT set_config('iidq.writer', 'on', true)) IS NOT NULL
    AND (SELECT set_config('synchronous_commit', 'off', true)) IS NOT NULL
  RETURNING job.status, job."createdAt"
), counted AS (
  INSERT INTO queue_count (completed, failed, cancelled)
  SELECT -count(*) FILTER (WHERE status = 'completed'), -count(*) FILTER (WHERE status = 'failed'),
         -count(*) FILTER (WHERE status = 'cancelled')
  FROM removed HAVING count(*) > 0
)
SELECT count(*), max("createdAt") FROM removed;

-- name: purge_excess
-- Retention by count: of the completed and cancelled jobs only the newest are kept, along "VerificationJob_newest".
WITH excess AS MATERIALIZED (
  SELECT ctid FROM "VerificationJob"
  WHERE "createdAt" >= %(from_time)s AND status IN ('completed', 'cancelled')
  ORDER BY "createdAt", id
  LIMIT greatest(0, least(%(batch)s, (SELECT sum(completed) + sum(cancelled) - %(keep)s FROM queue_count)))
  FOR UPDATE SKIP LOCKED
), removed AS (
  DELETE FROM "VerificationJob" AS job
  WHERE job.ctid = ANY (ARRAY (SELECT ctid FROM excess))
    AND (SELECT set_config('iidq.writer', 'on', true)) IS NOT NULL
    AND (SELECT set_config('synchronous_commit', 'off', true)) IS NOT NULL
  RETURNING job.status, job."createdAt"
), counted AS (
  INSERT INTO queue_count (completed, cancelled)
  SELECT -count(*) FILTER (WHERE status = 'completed'), -count(*) FILTER (WHERE status = 'cancelled')
  FROM removed HAVING count(*) > 0
)
SELECT count(*), max("createdAt") FROM removed;

-- name: cancel
-- By "VerificationJob_pkey"; the same function that operators call.
SELECT cancel_job(%(id)s);

-- name: retry
-- By "VerificationJob_pkey"; the same function that operators call.
SELECT retry_job(%(id)s);

-- name: pause
-- The same function that operators call; one row of queue_control.
SELECT pause_queue(%(reason)s);

-- name: resume
-- The same function that operators call; it also wakes the workers.
SELECT resume_queue();

-- name: take_keys
-- Idempotency: of jobs asked for under a key, which are new. Keys in order, so that two batches cannot deadlock.
-- An expired key is taken over. By "idempotency_key_pkey".
INSERT INTO idempotency_key AS known (scope, key, fingerprint, "jobId", "expiresAt")
SELECT DISTINCT ON (scope, key) scope, key, fingerprint, job_id, now() + make_interval(secs => %(keep_seconds)s)
FROM unnest(%(scopes)b::text[], %(keys)b::text[], %(fingerprints)b::bytea[], %(job_ids)b::uuid[])
  AS asked(scope, key, fingerprint, job_id)
ORDER BY scope, key
ON CONFLICT (scope, key) DO UPDATE
SET fingerprint = excluded.fingerprint, "jobId" = excluded."jobId", "expiresAt" = excluded."expiresAt"
WHERE known."expiresAt" < now();

-- name: take_ended_keys
-- Shared requests whose job has ended begin anew. Their rows are locked: take_keys locks also those that it leaves as
-- they are. In a statement of its own, whose snapshot sees the jobs of those that take_keys waited for.
UPDATE idempotency_key AS known
SET fingerprint = asked.fingerprint, "jobId" = asked.job_id,
    "expiresAt" = now() + make_interval(secs => %(keep_seconds)s)
FROM (
  SELECT DISTINCT ON (scope, key) *
  FROM unnest(%(scopes)b::text[], %(keys)b::text[], %(fingerprints)b::bytea[], %(job_ids)b::uuid[])
    AS batch(scope, key, fingerprint, job_id)
  WHERE scope = 'shared' ORDER BY scope, key
) AS asked
WHERE known.scope = asked.scope AND known.key = asked.key AND known."jobId" <> ALL (%(job_ids)b::uuid[])
  AND NOT EXISTS (SELECT FROM "VerificationJob" AS job WHERE job.id = known."jobId" AND job."completedAt" IS NULL);

-- name: find_keys
-- What the keys stand for, after take_keys. By "idempotency_key_pkey".
SELECT known.scope, known.key, known.fingerprint, known."jobId"
FROM unnest(%(scopes)b::text[], %(keys)b::text[]) AS asked(scope, key)
JOIN idempotency_key AS known USING (scope, key);

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
-- Jobs by state from the kept counts, the age of the first in line by "VerificationJob_claim", and who is at work.
SELECT waiting, delayed, active, completed, failed, cancelled, workers, oldest_waiting_seconds,
  state, pause_reason, listening_workers, expired_leases
FROM queue_health;

-- name: probe
-- Fails where a migration of this version is missing; each names something that it made. Reads no row.
SELECT FROM "VerificationJob", queue_count, queue_control, queue_health, idempotency_key LIMIT 0;

-- name: applied_migrations
-- What yoyo has noted down.
SELECT migration_id FROM _yoyo_migration;
