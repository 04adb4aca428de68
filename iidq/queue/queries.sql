-- Every statement of the queue. Each says what it is for and which index serves it.
-- Loaded by name in queries.py; parameters are psycopg's %(name)s.
--
-- Statements that change a job's state also add their changes to iidq_queue_count, one row per batch, and set
-- iidq.writer for their transaction so that the triggers, which count and wake a worker for everybody else, stay
-- silent.

-- name: enqueue
-- Many jobs, all or none, durably; see migrations/0004_enqueue.sql.
CALL public.iidq_enqueue(jobs => %(jobs)s::json, max_attempts => %(max_attempts)s::integer, again => %(again)s::boolean,
  expected => %(expected)s::integer);

-- name: expect_callbacks
-- In the transaction of enqueue, for those of its jobs that name a callback; repeated, it changes nothing.
INSERT INTO public.iidq_webhook_delivery ("jobId", url)
SELECT * FROM jsonb_to_recordset(%(callbacks)s::jsonb) AS new(job_id uuid, url text)
ON CONFLICT ("jobId") DO NOTHING;

-- name: announce
-- After the commit of our own inserts: sent along with them, as a transaction of its own, or later by itself. Asked for
-- after the reply, it came 0.4 ms later. Empty: the first of the live workers answers, the others stay asleep.
-- 'rest': that one had not enough free slots, everybody may come.
-- Not durable: a NOTIFY writes a commit record too, and would hold the database-wide lock through its flush.
SELECT set_config('synchronous_commit', 'off', true), pg_notify('iidq_jobs', %(payload)s);

-- name: listen
-- One channel: iidq_jobs (work), iidq_cancelled (ids of running jobs that were cancelled), iidq_watching (somebody
-- watches jobs), iidq_changed (ids of jobs that changed), or a listener's own, on which it hears itself: a pooler
-- between transactions takes LISTEN and delivers nothing.
LISTEN {channel};

-- name: echo
-- Heard on the listener's own channel, or not.
SELECT set_config('synchronous_commit', 'off', true), pg_notify(%(channel)s, '');

-- name: announce_watching
-- From API processes whose clients watch jobs: for a minute, workers tell of what they change.
SELECT set_config('synchronous_commit', 'off', true), pg_notify('iidq_watching', '');

-- name: announce_changes
-- After the commit of the changes themselves, and only while somebody watches: ids of jobs, some per payload.
SELECT set_config('synchronous_commit', 'off', true), pg_notify('iidq_changed', payload)
FROM jsonb_array_elements_text(%(payloads)s::jsonb) AS payload;

-- name: claim
-- For all free slots at once, and for the next ones, in the order of "VerificationJob_line". The locked rows are
-- updated by ctid: a join on id turns into a hash join over the whole table once the batch is large against it. Losing
-- this commit in a crash only un-claims rows, so it need not be durable. "reached": nothing stands before it that this
-- claim did not see, but for rows that come in out of turn: an insert gives the time at which it began, and hardly any
-- takes 100 ms to its commit. With 5 s the next claims of a drain walked over all that it had claimed, and beside a
-- held snapshot took 12 ms instead of 4. See claim_span.py. "only": null, or the only jobs that may be taken.
WITH next AS MATERIALIZED (
  SELECT ctid FROM public."VerificationJob"
  WHERE ready AND status = 'queued' AND NOT EXISTS (SELECT FROM public.iidq_queue_control WHERE "pausedAt" IS NOT NULL)
    AND public.iidq_claim_order("runAt", type, priority) >= to_timestamp(%(from_order)s) AT TIME ZONE 'UTC'
    AND (%(only)b::uuid[] IS NULL OR id = ANY (%(only)b::uuid[]))
  ORDER BY public.iidq_claim_order("runAt", type, priority), id
  LIMIT %(slots)s
  FOR UPDATE SKIP LOCKED
), claimed AS (
  UPDATE public."VerificationJob" AS job
  SET status = 'processing', ready = false, attempt = least(attempt, 999999999) + 1, progress = 0,
      "workerId" = %(worker_id)s, "leaseUntil" = now() + make_interval(secs => %(lease_seconds)s),
      "startedAt" = now(), "updatedAt" = now()
  WHERE job.ctid = ANY (ARRAY (SELECT ctid FROM next))
    AND (SELECT set_config('iidq.writer', 'on', true)) IS NOT NULL
    AND (SELECT set_config('synchronous_commit', 'off', true)) IS NOT NULL
  RETURNING job.id, job.attempt, job.type, job."contentHash", job."manifestUri", job."registryAddress",
    job."rpcUrl", job."chainId", job."fileName", job."retryCount", job."maxAttempts",
    job."traceContext", job."hasCallback", job."rpcEndpointId",
    public.iidq_claim_order(job."runAt", job.type, job.priority) AS place
), counted AS (
  INSERT INTO public.iidq_queue_count (waiting, active) SELECT -count(*), count(*) FROM claimed HAVING count(*) > 0
)
SELECT id, attempt, type, "contentHash", "manifestUri", "registryAddress", "rpcUrl", "chainId", "fileName",
  "retryCount", "maxAttempts", "traceContext", "hasCallback", "rpcEndpointId",
  (SELECT extract(epoch FROM least(max(place), (now() - interval '100 ms') AT TIME ZONE 'UTC'))::float8
   FROM claimed) AS reached
FROM claimed
ORDER BY place, id;

-- name: first_in_line
-- The jobs that a claim would take, by "VerificationJob_line".
SELECT id FROM public."VerificationJob"
WHERE ready AND status = 'queued'
ORDER BY public.iidq_claim_order("runAt", type, priority), id
LIMIT %(limit)s;

-- name: refuse
-- End a job as failed where no other change of its row goes through. Jobs that another worker holds are left alone.
-- The triggers count it. By "VerificationJob_pkey".
UPDATE public."VerificationJob"
SET status = 'failed', ready = false, error = %(error)s, "completedAt" = now(), "updatedAt" = now(),
    "leaseUntil" = NULL, "workerId" = NULL
WHERE id = %(id)s
  AND (status = 'queued' OR status = 'processing' AND ("leaseUntil" < now() OR "workerId" = %(worker_id)s))
  AND (%(attempt)s::integer IS NULL OR attempt = %(attempt)s)
  AND (SELECT set_config('lock_timeout', '1s', true)) IS NOT NULL;

-- name: release_unknown
-- After a claim whose answer was lost with its connection: what this worker holds without knowing goes back to its
-- old place in line, uncharged. By "VerificationJob_running".
WITH unknown AS MATERIALIZED (
  SELECT ctid FROM public."VerificationJob"
  WHERE "workerId" IS NOT NULL AND "workerId" = %(worker_id)s AND NOT id = ANY (%(ids)b::uuid[])
  FOR UPDATE
), released AS (
  UPDATE public."VerificationJob" AS job
  SET status = 'queued', ready = "runAt" <= now(), "leaseUntil" = NULL, "workerId" = NULL, "updatedAt" = now()
  WHERE job.ctid = ANY (ARRAY (SELECT ctid FROM unknown)) AND (SELECT set_config('iidq.writer', 'on', true)) IS NOT NULL
  RETURNING job.ready
)
INSERT INTO public.iidq_queue_count (waiting, delayed, active)
SELECT count(*) FILTER (WHERE ready), count(*) FILTER (WHERE NOT ready), -count(*) FROM released HAVING count(*) > 0;

-- name: renew
-- Leases of all running jobs of one worker, by "VerificationJob_pkey". A row that does not come back was lost.
-- Rows that somebody else has locked are passed over, and count as held if they are: one that is forgotten in an open
-- transaction must not cost the worker's other jobs their leases. Expiry passes over them, too.
-- Updated by id: rows locked first and then updated by ctid would be missed when another write came between.
WITH held AS MATERIALIZED (
  SELECT id, attempt FROM public."VerificationJob"
  WHERE id = ANY (%(ids)b::uuid[]) AND status = 'processing' AND "workerId" = %(worker_id)s
), free AS MATERIALIZED (
  SELECT id FROM public."VerificationJob"
  WHERE id = ANY (%(ids)b::uuid[]) AND status = 'processing' AND "workerId" = %(worker_id)s
  FOR NO KEY UPDATE SKIP LOCKED
), renewed AS (
  UPDATE public."VerificationJob" AS job
  SET "leaseUntil" = now() + make_interval(secs => %(lease_seconds)s), "updatedAt" = now()
  WHERE job.id = ANY (ARRAY (SELECT id FROM free)) AND job.status = 'processing' AND job."workerId" = %(worker_id)s
    AND (SELECT set_config('iidq.writer', 'on', true)) IS NOT NULL
    AND (SELECT set_config('synchronous_commit', 'off', true)) IS NOT NULL
)
SELECT id, attempt FROM held;

-- name: report_progress
-- Coalesced progress of running jobs, by "VerificationJob_pkey"; it never goes backwards within an attempt.
-- Rows that somebody else has locked are passed over, as in renew. About the shape, see store_outcomes.
WITH mine AS MATERIALIZED (
  SELECT *, 'processing' AS status, %(worker_id)s::text AS worker_id
  FROM jsonb_to_recordset(%(progress)s::jsonb) AS told(id uuid, attempt int, progress int)
), free AS MATERIALIZED (
  SELECT id FROM public."VerificationJob"
  WHERE id = ANY (%(ids)b::uuid[]) AND status = 'processing' AND "workerId" = %(worker_id)s
  FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE public."VerificationJob" AS job
SET progress = greatest(job.progress, mine.progress), "updatedAt" = now()
FROM mine
WHERE job.id = ANY (ARRAY (SELECT id FROM free))
  AND job.id = mine.id AND job.attempt = mine.attempt
  AND job.status = mine.status AND job."workerId" = mine.worker_id
  AND (SELECT set_config('iidq.writer', 'on', true)) IS NOT NULL
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
-- A row that somebody else keeps locked spoils the batch after a second; the writer then does without it.
WITH mine AS MATERIALIZED (
  SELECT *, 'processing' AS held_status, %(worker_id)s::text AS held_by
  FROM jsonb_to_recordset(%(outcomes)s::jsonb)
    AS told(id uuid, attempt int, status text, result jsonb, failure text, delay_seconds float8)
), stored AS (
  UPDATE public."VerificationJob" AS job
  SET status = mine.status,
      ready = mine.status = 'queued'
        AND CASE WHEN mine.delay_seconds IS NULL THEN job."runAt" <= now() ELSE mine.delay_seconds = 0 END,
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
  WHERE job.id = ANY (%(ids)s::uuid[])
    AND job.id = mine.id AND job.attempt = mine.attempt
    AND job.status = mine.held_status AND job."workerId" = mine.held_by
    AND (SELECT set_config('iidq.writer', 'on', true)) IS NOT NULL
    AND (SELECT set_config('lock_timeout', '1s', true)) IS NOT NULL
  RETURNING job.id, job.attempt, job.status, job.ready
), counted AS (
  INSERT INTO public.iidq_queue_count (waiting, delayed, active, completed, failed, succeeded, gave_up)
  SELECT count(*) FILTER (WHERE status = 'queued' AND ready), count(*) FILTER (WHERE status = 'queued' AND NOT ready),
         -count(*), count(*) FILTER (WHERE status = 'completed'), count(*) FILTER (WHERE status = 'failed'),
         count(*) FILTER (WHERE status = 'completed'), count(*) FILTER (WHERE status = 'failed')
  FROM stored HAVING count(*) > 0
)
-- The lost ones: hardly ever any, where the stored ones would be as many rows as went in.
SELECT mine.id FROM mine WHERE NOT EXISTS (SELECT FROM stored WHERE stored.id = mine.id);

-- name: find_ended
-- Of outcomes that store_outcomes dropped, those that an earlier try had stored: an attempt that has left 'processing'
-- for the status that was told. By "VerificationJob_pkey".
SELECT job.id
FROM jsonb_to_recordset(%(outcomes)s::jsonb) AS told(id uuid, attempt int, status text)
JOIN public."VerificationJob" AS job ON job.id = told.id AND job.attempt = told.attempt AND job.status = told.status
WHERE job.id = ANY (%(ids)s::uuid[]) AND job.status <> 'processing';

-- name: find_held
-- Of outcomes that store_outcomes did not store, those whose attempt still holds its row: a trigger dropped the change.
-- By "VerificationJob_pkey".
SELECT job.id
FROM jsonb_to_recordset(%(outcomes)s::jsonb) AS told(id uuid, attempt int)
JOIN public."VerificationJob" AS job ON job.id = told.id AND job.attempt = told.attempt
WHERE job.id = ANY (%(ids)s::uuid[]) AND job.status = 'processing' AND job."workerId" = %(worker_id)s;

-- name: sweep
-- What a worker does at every poll, in one statement; an idle worker's only one. It says that it lives, and looks
-- whether anything waits ("VerificationJob_line") and in how many seconds time alone brings the next event.
-- Whoever gets the advisory lock also does the upkeep, in bounded batches that skip locked rows: leases that ran out
-- ("VerificationJob_running"), retries and future jobs that are due ("VerificationJob_delayed"), dead workers' rows,
-- expired keys ("iidq_idempotency_key_expiry"), and the folding of iidq_queue_count. A job lost for the first time runs
-- again at once; one lost again waits for a random while, lest a job that kills its worker takes the same neighbours
-- along. "only": null, or the only jobs that may be changed.
WITH turn AS MATERIALIZED (
  SELECT pg_try_advisory_xact_lock(hashtext('iidq.upkeep public')) AS mine,
         set_config('iidq.writer', 'on', true), set_config('synchronous_commit', 'off', true)
), alive AS (
  INSERT INTO public.iidq_queue_worker ("workerId", host, pid, version, concurrency, running, listening, "aliveUntil",
    faults)
  SELECT %(worker_id)s, %(host)s, %(pid)s, %(version)s, %(concurrency)s, %(running)s, %(listening)s,
         now() + make_interval(secs => %(alive_seconds)s), %(faults)s::text[]
  FROM turn
  ON CONFLICT ("workerId") DO UPDATE
  SET running = excluded.running, listening = excluded.listening, "seenAt" = now(),
      "aliveUntil" = excluded."aliveUntil", faults = excluded.faults
), expired AS MATERIALIZED (
  SELECT ctid FROM public."VerificationJob"
  WHERE "workerId" IS NOT NULL AND "leaseUntil" < now() AND (SELECT mine FROM turn)
    AND (%(only)b::uuid[] IS NULL OR id = ANY (%(only)b::uuid[]))
  LIMIT %(batch)s FOR UPDATE SKIP LOCKED
), taken_back AS (
  UPDATE public."VerificationJob" AS job
  SET status = CASE WHEN "retryCount" + 1 >= "maxAttempts" THEN 'failed' ELSE 'queued' END,
      error = CASE WHEN "retryCount" + 1 >= "maxAttempts" THEN %(lost)s END,
      "completedAt" = CASE WHEN "retryCount" + 1 >= "maxAttempts" THEN now() END,
      "retryCount" = CASE WHEN "retryCount" + 1 >= "maxAttempts" THEN "retryCount" ELSE "retryCount" + 1 END,
      ready = "retryCount" = 0 AND "maxAttempts" > 1 AND "runAt" <= now(),
      "runAt" = CASE WHEN "retryCount" = 0 OR "retryCount" + 1 >= "maxAttempts" THEN "runAt"
        ELSE now() + random() * make_interval(secs => least(300, 5 * 2.0 ^ "retryCount")) END,
      errors = (CASE WHEN jsonb_array_length(errors) < 20 THEN errors ELSE errors - 0 END)
        || jsonb_build_object('attempt', attempt, 'at', now(), 'error', %(lost)s::text),
      progress = 0, "leaseUntil" = NULL, "workerId" = NULL, "updatedAt" = now()
  FROM turn
  WHERE job.ctid = ANY (ARRAY (SELECT ctid FROM expired))
  RETURNING id, attempt, status, ready
), due AS MATERIALIZED (
  SELECT ctid FROM public."VerificationJob"
  WHERE status = 'queued' AND NOT ready AND "runAt" <= now() AND (SELECT mine FROM turn)
    AND (%(only)b::uuid[] IS NULL OR id = ANY (%(only)b::uuid[]))
  ORDER BY "runAt"
  LIMIT %(batch)s FOR UPDATE SKIP LOCKED
), promoted AS (
  UPDATE public."VerificationJob" AS job SET ready = true, "updatedAt" = now()
  FROM turn
  WHERE job.ctid = ANY (ARRAY (SELECT ctid FROM due))
  RETURNING id
), gone_workers AS (
  DELETE FROM public.iidq_queue_worker
  WHERE "aliveUntil" < now() - interval '1 minute' AND "workerId" <> %(worker_id)s AND (SELECT mine FROM turn)
), expired_keys AS (
  DELETE FROM public.iidq_idempotency_key WHERE ctid = ANY (ARRAY (
    SELECT ctid FROM public.iidq_idempotency_key WHERE "expiresAt" < now() AND (SELECT mine FROM turn)
    LIMIT %(batch)s FOR UPDATE SKIP LOCKED))
), first_upkeep AS (
  -- Its trigger leaves "countedAt" null.
  INSERT INTO public.iidq_queue_control ("upkeepAt")
  SELECT now() FROM turn WHERE mine AND NOT EXISTS (SELECT FROM public.iidq_queue_control)
  ON CONFLICT DO NOTHING
), upkeep AS (
  -- Somebody may have paused the queue in a transaction that is still open.
  UPDATE public.iidq_queue_control SET "upkeepAt" = now() WHERE only_row = ANY (ARRAY (
    SELECT only_row FROM public.iidq_queue_control WHERE (SELECT mine FROM turn) FOR UPDATE SKIP LOCKED))
), unfolded AS (
  -- Bounded: a change of millions of rows in psql leaves as many behind. They are only deleted under this lock, or
  -- where the table of jobs is locked against us.
  DELETE FROM public.iidq_queue_count WHERE ctid = ANY (ARRAY (
    SELECT ctid FROM public.iidq_queue_count
    WHERE (SELECT mine FROM turn) AND (SELECT count(*) > 200 FROM (SELECT FROM public.iidq_queue_count LIMIT 201)
      AS first_rows)
    LIMIT 20 * %(batch)s))
  RETURNING *
), folded AS (
  INSERT INTO public.iidq_queue_count (at, waiting, delayed, active, completed, failed, cancelled, enqueued,
    succeeded, gave_up)
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
    SELECT date_trunc('minute', now()), now(), count(*), -count(*), 0, 0, 0, 0, 0, 0, 0
      FROM promoted HAVING count(*) > 0
  ) AS changes
  GROUP BY minute
)
SELECT
  (SELECT coalesce(jsonb_agg(to_jsonb(taken_back)), '[]') FROM taken_back) AS expired,
  (SELECT count(*) FROM promoted) AS promoted,
  EXISTS (SELECT FROM public."VerificationJob" WHERE ready AND status = 'queued')
    AND NOT EXISTS (SELECT FROM public.iidq_queue_control WHERE "pausedAt" IS NOT NULL) AS waiting,
  least(
    (SELECT extract(epoch FROM min("runAt") - now()) FROM public."VerificationJob"
      WHERE status = 'queued' AND NOT ready AND "runAt" > now()),
    (SELECT extract(epoch FROM min("leaseUntil") - now()) FROM public."VerificationJob"
      WHERE "workerId" IS NOT NULL AND "leaseUntil" >= now())
  )::float8 AS next_event_seconds,
  %(worker_id)s <= ALL (SELECT "workerId" FROM public.iidq_queue_worker WHERE "aliveUntil" > now() AND listening)
    AS first_responder,
  (SELECT mine FROM turn) AND NOT EXISTS (SELECT FROM public.iidq_queue_control WHERE "countedAt" IS NOT NULL)
    AS uncounted;

-- name: recount
-- All jobs, where the kept counts can be another database's; see iidq_take_control. Unless another worker counts.
SELECT public.iidq_recount_queue()
WHERE NOT EXISTS (SELECT FROM public.iidq_queue_control WHERE "countedAt" IS NOT NULL)
  AND pg_try_advisory_xact_lock(hashtext('iidq.recount public'));

-- name: recount_if_due
-- As upkeep does. A database without jobs needs no counts.
SELECT public.iidq_recount_queue()
WHERE EXISTS (SELECT FROM public."VerificationJob")
  AND NOT EXISTS (SELECT FROM public.iidq_queue_control WHERE "countedAt" IS NOT NULL);

-- name: miscounts
-- States whose kept count is not the number of rows: state, kept, real. Each number by an index alone; completed jobs
-- are what is left of all.
WITH real AS (
  SELECT
    (SELECT count(*) FROM public."VerificationJob") AS jobs,
    (SELECT count(*) FROM public."VerificationJob" WHERE ready AND status = 'queued') AS waiting,
    (SELECT count(*) FROM public."VerificationJob" WHERE status = 'queued' AND NOT ready) AS delayed,
    (SELECT count(*) FROM public."VerificationJob" WHERE "workerId" IS NOT NULL) AS active,
    (SELECT count(*) FROM public."VerificationJob" WHERE status = 'failed') AS failed,
    (SELECT count(*) FROM public."VerificationJob" WHERE status = 'cancelled') AS cancelled
)
SELECT each_one.*
FROM real, public.queue_health AS health, LATERAL (VALUES
  ('waiting', health.waiting, real.waiting), ('delayed', health.delayed, real.delayed),
  ('active', health.active, real.active), ('failed', health.failed, real.failed),
  ('cancelled', health.cancelled, real.cancelled),
  ('completed', health.completed,
   real.jobs - real.waiting - real.delayed - real.active - real.failed - real.cancelled)
) AS each_one(state, kept, counted)
WHERE kept <> counted;

-- name: overdue
-- The jobs that a sweep would change, by "VerificationJob_running" and "VerificationJob_delayed".
(SELECT id FROM public."VerificationJob" WHERE "workerId" IS NOT NULL AND "leaseUntil" < now() LIMIT %(batch)s)
UNION ALL
(SELECT id FROM public."VerificationJob" WHERE status = 'queued' AND NOT ready AND "runAt" <= now()
 ORDER BY "runAt" LIMIT %(batch)s);

-- name: say_alive
-- As sweep says it, after a sweep that Postgres refused: the worker may still claim, and its faults are to be seen.
INSERT INTO public.iidq_queue_worker ("workerId", host, pid, version, concurrency, running, listening, "aliveUntil",
  faults)
VALUES (%(worker_id)s, %(host)s, %(pid)s, %(version)s, %(concurrency)s, %(running)s, %(listening)s,
        now() + make_interval(secs => %(alive_seconds)s), %(faults)s::text[])
ON CONFLICT ("workerId") DO UPDATE
SET running = excluded.running, listening = excluded.listening, "seenAt" = now(),
    "aliveUntil" = excluded."aliveUntil", faults = excluded.faults;

-- name: leave
-- A worker that stopped in order is no longer waited for.
DELETE FROM public.iidq_queue_worker WHERE "workerId" = %(worker_id)s;

-- name: take_retention_turn
-- One worker at a time removes old jobs, until the transaction ends. A statement of its own: only the next one's
-- snapshot is sure to see what the holder before has removed, and two would each remove the same excess.
SELECT pg_try_advisory_xact_lock(hashtext('iidq.retention public'));

-- name: check_deferred_rules
-- Deferred rules would refuse a row only at the commit, and with it all rows of the transaction.
SET CONSTRAINTS ALL IMMEDIATE;

-- name: purge
-- Retention by age, oldest first along "VerificationJob_newest"; failed jobs may be kept longer than the others.
-- A job ends after it is created, so the index on creation bounds the search. Each batch begins where the one before
-- ended, instead of walking over what that one has just deleted. "only": null, or
-- the only jobs that may be removed. "without": those that are left out, as a rule of the operator's keeps them.
WITH old AS MATERIALIZED (
  SELECT ctid, "createdAt", status FROM public."VerificationJob"
  WHERE "createdAt" >= %(from_time)s
    AND "createdAt" < now() - make_interval(secs => least(%(completed_seconds)s, %(failed_seconds)s)::float8)
    AND "completedAt" < now() - make_interval(secs =>
      (CASE status WHEN 'failed' THEN %(failed_seconds)s ELSE %(completed_seconds)s END)::float8)
    AND (%(only)b::uuid[] IS NULL OR id = ANY (%(only)b::uuid[])) AND NOT id = ANY (%(without)b::uuid[])
  ORDER BY "createdAt", id
  LIMIT %(batch)s FOR UPDATE SKIP LOCKED
), removed AS (
  DELETE FROM public."VerificationJob" AS job
  WHERE job.ctid = ANY (ARRAY (SELECT ctid FROM old))
    AND (SELECT set_config('iidq.writer', 'on', true)) IS NOT NULL
    AND (SELECT set_config('synchronous_commit', 'off', true)) IS NOT NULL
  RETURNING job.status, job."createdAt"
), counted AS (
  INSERT INTO public.iidq_queue_count (completed, failed, cancelled)
  SELECT -count(*) FILTER (WHERE status = 'completed'), -count(*) FILTER (WHERE status = 'failed'),
         -count(*) FILTER (WHERE status = 'cancelled')
  FROM removed HAVING count(*) > 0
)
SELECT count(*), max("createdAt") FROM removed;

-- name: purge_excess
-- Retention by count: of the completed and cancelled jobs only the newest are kept, along "VerificationJob_newest".
WITH excess AS MATERIALIZED (
  SELECT ctid FROM public."VerificationJob"
  WHERE "createdAt" >= %(from_time)s AND status IN ('completed', 'cancelled')
    AND (%(only)b::uuid[] IS NULL OR id = ANY (%(only)b::uuid[])) AND NOT id = ANY (%(without)b::uuid[])
  ORDER BY "createdAt", id
  LIMIT greatest(0, least(%(batch)s, (SELECT sum(completed) + sum(cancelled) - %(keep)s FROM public.iidq_queue_count)
    - (SELECT count(*) FROM public."VerificationJob"
       WHERE id = ANY (%(without)b::uuid[]) AND status IN ('completed', 'cancelled'))))
  FOR UPDATE SKIP LOCKED
), removed AS (
  DELETE FROM public."VerificationJob" AS job
  WHERE job.ctid = ANY (ARRAY (SELECT ctid FROM excess))
    AND (SELECT set_config('iidq.writer', 'on', true)) IS NOT NULL
    AND (SELECT set_config('synchronous_commit', 'off', true)) IS NOT NULL
  RETURNING job.status, job."createdAt"
), counted AS (
  INSERT INTO public.iidq_queue_count (completed, cancelled)
  SELECT -count(*) FILTER (WHERE status = 'completed'), -count(*) FILTER (WHERE status = 'cancelled')
  FROM removed HAVING count(*) > 0
)
SELECT count(*), max("createdAt") FROM removed;

-- name: oldest_ended
-- The jobs among which retention looks first, along "VerificationJob_newest".
SELECT id, "createdAt" FROM public."VerificationJob"
WHERE "createdAt" >= %(from_time)s AND "completedAt" IS NOT NULL AND NOT id = ANY (%(without)b::uuid[])
ORDER BY "createdAt", id
LIMIT %(batch)s;

-- name: cancel
-- By "VerificationJob_pkey"; the same function that operators call.
SELECT public.cancel_job(%(id)s);

-- name: retry
-- By "VerificationJob_pkey"; the same function that operators call.
SELECT public.retry_job(%(id)s);

-- name: pause
-- The same function that operators call; one row of iidq_queue_control.
SELECT public.pause_queue(%(reason)s);

-- name: resume
-- The same function that operators call; it also wakes the workers.
SELECT public.resume_queue();

-- name: take_keys
-- Idempotency: of jobs asked for under a key, which are new. Keys in order, so that two batches cannot deadlock.
-- An expired key is taken over. By "iidq_idempotency_key_pkey".
INSERT INTO public.iidq_idempotency_key AS known (scope, key, fingerprint, "jobId", "expiresAt")
SELECT DISTINCT ON (scope, key) scope, key, fingerprint, job_id, now() + make_interval(secs => %(keep_seconds)s)
FROM unnest(%(scopes)b::text[], %(keys)b::text[], %(fingerprints)b::bytea[], %(job_ids)b::uuid[])
  AS asked(scope, key, fingerprint, job_id)
ORDER BY scope, key
ON CONFLICT (scope, key) DO UPDATE
SET fingerprint = excluded.fingerprint, "jobId" = excluded."jobId", "expiresAt" = excluded."expiresAt"
WHERE known."expiresAt" < now();

-- name: take_ended_keys
-- Keys whose job has been removed begin anew, and shared requests whose job has ended. Their rows are locked: take_keys
-- locks also those that it leaves as they are. In a statement of its own, whose snapshot sees the jobs of those that
-- take_keys waited for.
UPDATE public.iidq_idempotency_key AS known
SET fingerprint = asked.fingerprint, "jobId" = asked.job_id,
    "expiresAt" = now() + make_interval(secs => %(keep_seconds)s)
FROM (
  SELECT DISTINCT ON (scope, key) *
  FROM unnest(%(scopes)b::text[], %(keys)b::text[], %(fingerprints)b::bytea[], %(job_ids)b::uuid[])
    AS batch(scope, key, fingerprint, job_id)
  ORDER BY scope, key
) AS asked
WHERE known.scope = asked.scope AND known.key = asked.key AND known."jobId" <> ALL (%(job_ids)b::uuid[])
  AND NOT EXISTS (SELECT FROM public."VerificationJob" AS job
    WHERE job.id = known."jobId" AND (asked.scope <> 'shared' OR job."completedAt" IS NULL));

-- name: find_keys
-- What the keys stand for, after take_keys. By "iidq_idempotency_key_pkey".
SELECT known.scope, known.key, known.fingerprint, known."jobId"
FROM unnest(%(scopes)b::text[], %(keys)b::text[]) AS asked(scope, key)
JOIN public.iidq_idempotency_key AS known USING (scope, key);

-- name: find
-- One job, by "VerificationJob_pkey".
SELECT id, type, status, progress, "contentHash", "manifestUri", "registryAddress", "rpcUrl", "chainId", "fileName",
  result, error, errors, "retryCount", attempt, "maxAttempts", priority, "runAt", "startedAt", "completedAt",
  "createdAt", "updatedAt", CASE WHEN "hasCallback" THEN public.iidq_callback_state(id) END AS callback
FROM public."VerificationJob" WHERE id = %(id)s;

-- name: find_changed
-- Of watched jobs, those whose row is another version than the one that was seen last, or gone (no version): an object
-- of id → version. A row's version is the transaction that wrote it, so that plain SQL writes count as well. One
-- search of "VerificationJob_pkey" per job.
SELECT seen.key AS watched, job.xmin::text AS version,
  job.id, job.type, job.status, job.progress, job."contentHash", job."manifestUri", job."registryAddress",
  job."rpcUrl", job."chainId", job."fileName", job.result, job.error, job.errors, job."retryCount", job.attempt,
  job."maxAttempts", job.priority, job."runAt", job."startedAt", job."completedAt", job."createdAt", job."updatedAt",
  CASE WHEN job."hasCallback" THEN public.iidq_callback_state(job.id) END AS callback
FROM jsonb_each_text(%(seen)s::jsonb) AS seen
LEFT JOIN public."VerificationJob" AS job ON job.id = seen.key::uuid
WHERE job.xmin::text IS DISTINCT FROM seen.value;

-- name: outline
-- For bullmq/mirror.py: which jobs stand where, ids and versions as text that Python splits at once; bounded,
-- and in one snapshot. In line by "VerificationJob_line", running by "VerificationJob_running", for later by
-- "VerificationJob_delayed". Of those that ended: the newest along "VerificationJob_newest", and without "since" the
-- newest failed ones along "VerificationJob_failed". Each inner LIMIT keeps its search from walking through the
-- history.
SELECT now() AS at,
  EXISTS (SELECT FROM public.iidq_queue_control WHERE "pausedAt" IS NOT NULL) AS paused,
  (SELECT string_agg(id::text, ',') FROM (
    SELECT id FROM public."VerificationJob" WHERE ready AND status = 'queued'
    ORDER BY public.iidq_claim_order("runAt", type, priority), id LIMIT %(most)s) AS line) AS waiting,
  (SELECT string_agg(id || ' ' || version, ',') FROM (
    (SELECT id, xmin AS version FROM public."VerificationJob" WHERE ready AND status = 'queued'
     ORDER BY public.iidq_claim_order("runAt", type, priority), id LIMIT %(most_whole)s)
    UNION ALL
    (SELECT id, xmin FROM public."VerificationJob" WHERE ready AND status = 'queued'
     ORDER BY public.iidq_claim_order("runAt", type, priority) DESC, id DESC LIMIT %(most_whole)s)) AS both_ends)
       AS line_ends,
  (SELECT string_agg(id || ' ' || version, ',') FROM (
    SELECT id, xmin AS version FROM public."VerificationJob" WHERE "workerId" IS NOT NULL
    ORDER BY "startedAt", id LIMIT %(most)s) AS running) AS active,
  (SELECT string_agg(id || ' ' || version || ' ' || due_ms, ',') FROM (
    SELECT id, xmin AS version, round(extract(epoch FROM "runAt") * 1000)::bigint AS due_ms
    FROM public."VerificationJob" WHERE status = 'queued' AND NOT ready
    ORDER BY "runAt" LIMIT %(most)s) AS later) AS delayed,
  (SELECT string_agg(id || ' ' || version || ' ' || status || ' ' || at_ms, ',') FROM (
    SELECT id, version, status, round(extract(epoch FROM "completedAt") * 1000)::bigint AS at_ms FROM (
      SELECT id, xmin AS version, status, "completedAt" FROM public."VerificationJob"
      ORDER BY "createdAt" DESC, id DESC LIMIT %(newest)s) AS newest
    WHERE status IN ('completed', 'failed')
      AND "completedAt" >= coalesce(%(since)s::timestamptz - make_interval(secs => %(overlap_seconds)s), '-infinity')
    UNION
    SELECT id, version, status, round(extract(epoch FROM "completedAt") * 1000)::bigint FROM (
      SELECT id, xmin AS version, status, "completedAt" FROM public."VerificationJob" WHERE status = 'failed'
      ORDER BY "createdAt" DESC, id DESC
      LIMIT CASE WHEN %(since)s::timestamptz IS NULL THEN %(most_failed)s ELSE 0 END) AS failed
  ) AS ended) AS ended;

-- name: list_jobs
-- One page of jobs for HTTP clients. {places} is one of places_…; the rows come by "VerificationJob_pkey".
-- One statement, so that a row is shown in the state in which it was found.
WITH place AS MATERIALIZED (
{places}
)
SELECT place.id, place.place, place.wanted, place.found, place.cut, job.type, job.status, job.progress,
  job."contentHash", job."manifestUri", job."registryAddress",
  job."rpcUrl", job."chainId", job."fileName", job.result, job.error, job.errors, job."retryCount", job.attempt,
  job."maxAttempts", job.priority, job."runAt", job."startedAt", job."completedAt", job."createdAt", job."updatedAt",
  CASE WHEN job."hasCallback" THEN public.iidq_callback_state(job.id) END AS callback
FROM place LEFT JOIN public."VerificationJob" AS job ON job.id = place.id
ORDER BY place.place DESC NULLS FIRST, place.id DESC;

-- name: places_newest
-- Newest first, those that match among the next %(reach)s rows of "VerificationJob_newest" or, for failed and cancelled
-- jobs, of their own index. Each places_… gives up to %(limit)s rows: the places of wanted jobs, how many matches were
-- found up to there, and a row with "cut" where the search ended before the list did.
SELECT id, place, matches AND found > %(skip)s AS wanted, found, visited = %(reach)s AS cut
FROM (
  SELECT id, place, matches, count(*) FILTER (WHERE matches) OVER seen AS found, row_number() OVER seen AS visited
  FROM (
    SELECT id, "createdAt" AS place,
      (%(status)s::text IS NULL OR status = %(status)s)
      AND (%(ready)s::boolean IS NULL OR ready = %(ready)s)
      AND (%(type)s::text IS NULL OR type = %(type)s)
      AND (%(content_hash)s::text IS NULL OR "contentHash" = %(content_hash)s)
      AND (%(manifest)s::text IS NULL OR strpos("manifestUri", %(manifest)s) > 0)
      AND (%(registry)s::text IS NULL OR lower("registryAddress") = %(registry)s) AS matches
    FROM public."VerificationJob"
    WHERE (%(ended)s::text IS NULL OR status = %(ended)s)
      AND (%(after_time)s::timestamptz IS NULL OR ("createdAt", id) < (%(after_time)s, %(after_id)s))
    ORDER BY "createdAt" DESC, id DESC
    LIMIT %(reach)s
  ) AS near
  WINDOW seen AS (ORDER BY place DESC, id DESC ROWS UNBOUNDED PRECEDING)
) AS counted
WHERE matches AND found > %(skip)s OR visited = %(reach)s
-- The order of the window, so that nothing is sorted and the LIMIT ends the walk.
ORDER BY place DESC, id DESC
LIMIT %(limit)s;

-- name: places_unfinished
-- Newest first among those that wait, by "VerificationJob_line" and "VerificationJob_delayed", or that run, by
-- "VerificationJob_running": past any history. Where they are %(reach)s or more, only a row without a place.
WITH near AS MATERIALIZED (
  (SELECT id, "createdAt" AS place, type FROM public."VerificationJob"
   WHERE %(status)s::text = 'queued' AND ready AND status = 'queued')
  UNION ALL
  (SELECT id, "createdAt", type FROM public."VerificationJob"
   WHERE %(status)s::text = 'queued' AND status = 'queued' AND NOT ready)
  UNION ALL
  (SELECT id, "createdAt", type FROM public."VerificationJob" WHERE %(status)s::text = 'processing'
    AND "workerId" IS NOT NULL)
  LIMIT %(reach)s
)
SELECT NULL::uuid AS id, NULL::timestamptz AS place, false AS wanted, 0 AS found, true AS cut
WHERE (SELECT count(*) FROM near) >= %(reach)s
UNION ALL
(SELECT id, place, true, row_number() OVER (ORDER BY place DESC, id DESC), false
 FROM near
 WHERE (%(type)s::text IS NULL OR type = %(type)s)
   AND (%(after_time)s::timestamptz IS NULL OR (place, id) < (%(after_time)s, %(after_id)s))
   AND (SELECT count(*) FROM near) < %(reach)s
 ORDER BY place DESC, id DESC
 OFFSET %(skip)s LIMIT %(limit)s);

-- name: places_content
-- Newest first among the jobs of one content. Those that ended come span by span ("VerificationJob_content"), up to
-- %(reach)s rows and %(spans)s spans; a span that is read in part is left to the next page. Those that wait or run come
-- by their small indexes: of their contents there is none, it would cost each insert a seventh. Only a row without a
-- place where %(reach)s or more wait and run, or came in one span.
WITH RECURSIVE span AS (
  (SELECT public.iidq_content_span("createdAt") AS began, 1 AS number FROM public."VerificationJob"
   WHERE "completedAt" IS NOT NULL
     AND public.iidq_content_span("createdAt") <= public.iidq_content_span(coalesce(%(after_time)s::timestamptz,
       'infinity'))
     AND coalesce(%(status)s::text, '') NOT IN ('queued', 'processing')
   ORDER BY public.iidq_content_span("createdAt") DESC LIMIT 1)
  UNION ALL
  SELECT (
    SELECT public.iidq_content_span("createdAt") FROM public."VerificationJob"
    WHERE "completedAt" IS NOT NULL AND public.iidq_content_span("createdAt") < span.began
    ORDER BY public.iidq_content_span("createdAt") DESC LIMIT 1
  ), number + 1 FROM span WHERE span.began IS NOT NULL AND number < %(spans)s
), ended AS MATERIALIZED (
  -- A row for a span without matches, too: it tells how far the search came.
  SELECT span.began, span.number, job.*
  FROM span LEFT JOIN LATERAL (
    SELECT id, "createdAt" AS place, status, ready, type FROM public."VerificationJob"
    WHERE "completedAt" IS NOT NULL AND public.iidq_content_span("createdAt") = span.began
      AND CASE WHEN "completedAt" IS NOT NULL THEN substr("contentHash", 3, 15) END COLLATE "C"
        = substr(%(content_hash)s, 3, 15)
      AND "contentHash" = %(content_hash)s
  ) AS job ON true
  WHERE span.began IS NOT NULL
  LIMIT %(reach)s
), edge AS MATERIALIZED (
  -- The last span may have been read in part.
  SELECT min(began) AS began FROM ended HAVING count(*) >= %(reach)s OR max(number) >= %(spans)s
), kept AS MATERIALIZED (
  SELECT min(ended.began) AS began FROM ended, edge WHERE ended.began > edge.began
), unfinished AS MATERIALIZED (
  (SELECT id, "createdAt" AS place, status, ready, type, "contentHash" FROM public."VerificationJob"
   WHERE coalesce(%(status)s::text, 'queued') = 'queued' AND ready AND status = 'queued')
  UNION ALL
  (SELECT id, "createdAt", status, ready, type, "contentHash" FROM public."VerificationJob"
   WHERE coalesce(%(status)s::text, 'queued') = 'queued' AND status = 'queued' AND NOT ready)
  UNION ALL
  (SELECT id, "createdAt", status, ready, type, "contentHash" FROM public."VerificationJob"
   WHERE coalesce(%(status)s::text, 'processing') = 'processing' AND "workerId" IS NOT NULL)
  LIMIT %(reach)s
), beyond AS MATERIALIZED (
  SELECT (SELECT count(*) FROM unfinished) >= %(reach)s
    OR EXISTS (SELECT FROM edge WHERE began IS NOT NULL) AND (SELECT began FROM kept) IS NULL AS reach
), matching AS MATERIALIZED (
  SELECT id, place, row_number() OVER (ORDER BY place DESC, id DESC) AS found
  FROM (SELECT id, place, status, ready, type FROM ended WHERE id IS NOT NULL UNION ALL
    SELECT id, place, status, ready, type FROM unfinished WHERE "contentHash" = %(content_hash)s) AS near
  WHERE (%(status)s::text IS NULL OR status = %(status)s)
    AND (%(ready)s::boolean IS NULL OR ready = %(ready)s)
    AND (%(type)s::text IS NULL OR type = %(type)s)
    AND (%(after_time)s::timestamptz IS NULL OR (place, id) < (%(after_time)s, %(after_id)s))
    AND ((SELECT began FROM kept) IS NULL OR place >= (SELECT began FROM kept))
    AND NOT (SELECT reach FROM beyond)
)
SELECT id, place, wanted, found, cut
FROM (
  SELECT NULL::uuid AS id, NULL::timestamptz AS place, false AS wanted, 0 AS found, true AS cut
  FROM beyond WHERE reach
  UNION ALL
  SELECT id, place, true, found, false FROM matching WHERE found > %(skip)s
  UNION ALL
  -- The last moment before the spans that were read.
  SELECT 'ffffffff-ffff-ffff-ffff-ffffffffffff', began - interval '1 microsecond', false,
    (SELECT count(*) FROM matching), true
  FROM kept, beyond WHERE began IS NOT NULL AND NOT reach
) AS told
ORDER BY place DESC NULLS FIRST, id DESC
LIMIT %(limit)s;

-- name: browse_line
-- Operators' list of what waits, first in line first, by "VerificationJob_line". Each browse_… gives ids and places;
-- browse_rows shows them.
SELECT id, public.iidq_claim_order("runAt", type, priority) AT TIME ZONE 'UTC' AS place
FROM public."VerificationJob"
WHERE ready AND status = 'queued'
  AND (%(after_place)s::timestamptz IS NULL
    OR (public.iidq_claim_order("runAt", type, priority), id) > (%(after_place)s::timestamptz AT TIME ZONE 'UTC',
      %(after_id)s))
ORDER BY public.iidq_claim_order("runAt", type, priority), id
LIMIT %(limit)s;

-- name: browse_delayed
-- What waits for its time, soonest first, by "VerificationJob_delayed".
SELECT id, "runAt" AS place
FROM public."VerificationJob"
WHERE status = 'queued' AND NOT ready
  AND (%(after_place)s::timestamptz IS NULL OR "runAt" >= %(after_place)s)
  AND (%(after_place)s::timestamptz IS NULL OR ("runAt", id) > (%(after_place)s, %(after_id)s))
ORDER BY "runAt", id
LIMIT %(limit)s;

-- name: browse_active
-- What runs, longest first: hardly more rows than workers have slots, by "VerificationJob_running".
SELECT id, coalesce("startedAt", "createdAt") AS place
FROM public."VerificationJob"
WHERE "workerId" IS NOT NULL
  AND (%(after_place)s::timestamptz IS NULL
    OR (coalesce("startedAt", "createdAt"), id) > (%(after_place)s, %(after_id)s))
ORDER BY coalesce("startedAt", "createdAt"), id
LIMIT %(limit)s;

-- name: prefer_indexes
-- Before a search through a pooler, in its transaction; other connections have it for good. Where many rows match, the
-- planner expects to meet enough of them on a walk through the whole table, and meets them at its end.
-- Not compiled: a scan that is done all the same costs so much by its price alone that it would be, until Postgres 18.
SELECT set_config('enable_seqscan', 'off', true), set_config('jit', 'off', true);

-- name: browse_cause
-- The failures of one cause, latest first, by "VerificationJob_failed_cause".
SELECT id, "completedAt" AS place
FROM public."VerificationJob"
WHERE status = 'failed' AND left(split_part(error, ':', 1), 100) = %(cause)s
  AND (%(after_place)s::timestamptz IS NULL OR ("completedAt", id) < (%(after_place)s, %(after_id)s))
ORDER BY "completedAt" DESC, id DESC
LIMIT %(limit)s;

-- name: browse_rows
-- One page of jobs as a list shows them, without results and long texts, by "VerificationJob_pkey".
SELECT id, type, public.iidq_queue_state(status, ready) AS state, progress, "contentHash" AS content_hash,
  "manifestUri" AS manifest_uri, "registryAddress" AS registry_address, "fileName" AS file_name,
  left(error, 300) AS error, coalesce(result ->> 'status', result -> 'verification' ->> 'status') AS verdict, attempt,
    "retryCount" AS retry_count,
  "maxAttempts" AS max_attempts, "workerId" AS worker_id, "runAt" AS run_at, "createdAt" AS created_at,
  "startedAt" AS started_at, "completedAt" AS completed_at
FROM public."VerificationJob" WHERE id = ANY (%(ids)b::uuid[]);

-- name: find_holder
-- Beside find: who runs the job and until when, and the request's trace. By "VerificationJob_pkey".
SELECT "workerId" AS worker_id, "leaseUntil" AS lease_until, split_part("traceContext", '-', 2) AS trace_id, now() AS at
FROM public."VerificationJob" WHERE id = %(id)s;

-- name: retry_failures
-- Put the earliest failures of one cause back in line, those that failed by %(before)s: what fails again meanwhile is
-- not taken again. By "VerificationJob_failed_cause"; the same function that operators call, so every rule of it holds.
WITH before AS MATERIALIZED (
  SELECT coalesce(%(before)s::timestamptz, now()) AS moment
), chosen AS MATERIALIZED (
  SELECT id FROM public."VerificationJob"
  WHERE status = 'failed' AND left(split_part(error, ':', 1), 100) = %(cause)s
    AND "completedAt" <= (SELECT moment FROM before)
  ORDER BY "completedAt", id
  LIMIT %(batch)s FOR UPDATE SKIP LOCKED
)
SELECT (SELECT moment FROM before) AS moment,
  coalesce((SELECT array_agg(id) FROM chosen WHERE public.retry_job(id)), '{}') AS ids;

-- name: overview
-- The head of the operations page, once a second however many watch: the view, two more ages, and the pause.
-- A worker holds more jobs than it runs: some are claimed ahead of a free slot, some have ended and are being stored.
SELECT now() AS at, state, pause_reason, (SELECT "pausedAt" FROM public.iidq_queue_control) AS paused_at,
  waiting, delayed, active, completed, failed, cancelled, oldest_waiting_seconds, next_due_at,
  (SELECT extract(epoch FROM now() - min("startedAt")) FROM public."VerificationJob"
    WHERE "workerId" IS NOT NULL)::float8
    AS oldest_active_seconds,
  expired_leases, workers, slots, (
    SELECT coalesce(sum(least(held.jobs, worker.concurrency)), 0)::bigint
    FROM public.queue_workers AS worker JOIN (
      SELECT "workerId", count(*) AS jobs FROM public."VerificationJob" WHERE "workerId" IS NOT NULL GROUP BY "workerId"
    ) AS held ON held."workerId" = worker.worker_id
  ) AS running,
  listening_workers, extract(epoch FROM now() - upkeep_at)::float8 AS upkeep_age_seconds
FROM public.queue_health;

-- name: overview_workers
-- Who is at work, who fell silent lately, and whose leases are still held: iidq_queue_worker is small, the leases come
-- by "VerificationJob_running".
SELECT coalesce(worker."workerId", held."workerId") AS worker_id, worker.host, worker.pid, worker.version,
  worker.concurrency, worker.listening, worker."startedAt" AS started_at,
  coalesce(worker."aliveUntil" > now(), false) AS alive,
  extract(epoch FROM now() - worker."seenAt")::float8 AS seen_seconds,
  coalesce(held.jobs, 0) AS leases,
  CASE WHEN worker."workerId" IS NOT NULL THEN least(coalesce(held.jobs, 0), worker.concurrency) END AS running,
  held.least_seconds AS lease_seconds
FROM public.iidq_queue_worker AS worker
FULL JOIN (
  SELECT "workerId", count(*) AS jobs, extract(epoch FROM min("leaseUntil") - now())::float8 AS least_seconds
  FROM public."VerificationJob" WHERE "workerId" IS NOT NULL GROUP BY "workerId"
) AS held ON held."workerId" = worker."workerId"
ORDER BY alive, worker_id
LIMIT %(most)s;

-- name: overview_throughput
-- Per minute of the last hour: asked for, completed, failed.
SELECT minute, enqueued, completed, failed FROM public.queue_throughput ORDER BY minute;

-- name: overview_durations
-- Per minute of the last hour: how long jobs waited in line, and then for their end, of the last %(sample)s asked for
-- in each, by "VerificationJob_newest". A wait is told of first attempts alone: later ones wait for their backoff.
SELECT minute,
  percentile_cont(ARRAY[0.5, 0.95]) WITHIN GROUP (ORDER BY waited) AS waited,
  percentile_cont(ARRAY[0.5, 0.95]) WITHIN GROUP (ORDER BY ran) AS ran
FROM generate_series(date_trunc('minute', now()) - interval '59 minutes', date_trunc('minute', now()),
                     interval '1 minute') AS minute
CROSS JOIN LATERAL (
  SELECT CASE WHEN attempt = 1
    THEN greatest(0, extract(epoch FROM "startedAt" - greatest("createdAt", "runAt")))::float8 END AS waited,
    CASE WHEN status IN ('completed', 'failed') THEN extract(epoch FROM "completedAt" - "startedAt")::float8 END AS ran
  FROM (
    SELECT attempt, status, "createdAt", "runAt", "startedAt", "completedAt" FROM public."VerificationJob"
    WHERE "createdAt" >= minute AND "createdAt" < minute + interval '1 minute'
    ORDER BY "createdAt" DESC, id DESC
    LIMIT %(sample)s
  ) AS asked
  WHERE "startedAt" IS NOT NULL
) AS sampled
GROUP BY minute ORDER BY minute;

-- name: overview_causes
-- Failures by cause, of all that are kept: how many (up to %(most)s), how many within the hour, and the latest. Each
-- cause is found from the one before it, by "VerificationJob_failed_cause", so the failures are not walked through.
WITH RECURSIVE cause AS (
  (SELECT left(split_part(error, ':', 1), 100) AS name FROM public."VerificationJob" WHERE status = 'failed'
    ORDER BY 1 LIMIT 1)
  UNION ALL
  SELECT (
    SELECT left(split_part(error, ':', 1), 100) FROM public."VerificationJob"
    WHERE status = 'failed' AND left(split_part(error, ':', 1), 100) > cause.name
    ORDER BY 1 LIMIT 1
  ) FROM cause WHERE cause.name IS NOT NULL
)
SELECT named.name AS cause, kept.jobs, kept.lately, latest.id AS latest_id, latest."completedAt" AS latest_at,
  left(latest.error, 500) AS latest_error
FROM (SELECT name FROM cause WHERE name IS NOT NULL LIMIT %(causes)s) AS named
CROSS JOIN LATERAL (
  SELECT count(*) AS jobs, count(*) FILTER (WHERE "completedAt" > now() - interval '1 hour') AS lately
  FROM (
    -- In the index's order, or the planner gathers them all before it takes the first.
    SELECT "completedAt" FROM public."VerificationJob"
    WHERE status = 'failed' AND left(split_part(error, ':', 1), 100) = named.name
    ORDER BY "completedAt" DESC, id DESC LIMIT %(most)s
  ) AS counted
) AS kept
CROSS JOIN LATERAL (
  SELECT id, "completedAt", error FROM public."VerificationJob"
  WHERE status = 'failed' AND left(split_part(error, ':', 1), 100) = named.name
  ORDER BY "completedAt" DESC, id DESC LIMIT 1
) AS latest
ORDER BY kept.lately DESC, kept.jobs DESC, cause;

-- name: look_for_deliveries
-- In how many seconds the next delivery falls due (zero or less: now), by "iidq_webhook_delivery_due"; and whether a
-- job with a callback is still to end, by "iidq_webhook_delivery_waiting".
SELECT (SELECT extract(epoch FROM min("nextAt") - now())::float8 FROM public.iidq_webhook_delivery
  WHERE state = 'pending'),
  EXISTS (SELECT FROM public.iidq_webhook_delivery WHERE state = 'waiting');

-- name: claim_deliveries
-- Due deliveries, hosts with the oldest first, and of each host as many as may still run beside those that do: a host
-- that hangs cannot take all slots. By "iidq_webhook_delivery_due_by_host". Until the time in "nextAt" nobody else
-- tries: a crash of the worker only delays. "only": null, or the only jobs whose deliveries may be taken.
WITH hosts AS MATERIALIZED (
  SELECT host, %(per_host)s - coalesce((%(running)s::jsonb ->> host)::int, 0) AS room
  FROM public.iidq_webhook_delivery
  WHERE state = 'pending' AND "nextAt" <= now()
    AND (%(only)b::uuid[] IS NULL OR "jobId" = ANY (%(only)b::uuid[]))
  GROUP BY host
  HAVING coalesce((%(running)s::jsonb ->> host)::int, 0) < %(per_host)s
  ORDER BY min("nextAt")
  LIMIT %(slots)s
), due AS MATERIALIZED (
  SELECT of_host."jobId"
  FROM hosts CROSS JOIN LATERAL (
    SELECT "jobId" FROM public.iidq_webhook_delivery AS delivery
    WHERE delivery.state = 'pending' AND delivery.host = hosts.host AND delivery."nextAt" <= now()
      AND (%(only)b::uuid[] IS NULL OR delivery."jobId" = ANY (%(only)b::uuid[]))
    ORDER BY delivery."nextAt"
    LIMIT hosts.room FOR UPDATE SKIP LOCKED
  ) AS of_host
  LIMIT %(slots)s
)
UPDATE public.iidq_webhook_delivery AS delivery
SET attempts = least(attempts, 999999999) + 1, "nextAt" = now() + make_interval(secs => %(lease_seconds)s)
FROM due
WHERE delivery."jobId" = due."jobId"
RETURNING delivery."jobId", delivery."eventId", delivery.attempts, delivery.url, delivery.host;

-- name: due_deliveries
-- The deliveries that a claim would take, by "iidq_webhook_delivery_due".
SELECT "jobId" FROM public.iidq_webhook_delivery WHERE state = 'pending' AND "nextAt" <= now()
  ORDER BY "nextAt" LIMIT %(limit)s;

-- name: refuse_delivery
-- Give up a delivery that no claim can take, by "iidq_webhook_delivery_pkey".
UPDATE public.iidq_webhook_delivery SET state = 'gave_up', "nextAt" = NULL, "lastError" = %(error)s
WHERE "jobId" = %(job_id)s AND state = 'pending';

-- name: settle_delivery
-- What became of an attempt, by "iidq_webhook_delivery_pkey". The fence: it is still the same event's latest attempt. A
-- repeated write of the same end writes again, and so waits for what the first one waited for.
UPDATE public.iidq_webhook_delivery
SET state = %(state)s,
    "nextAt" = CASE WHEN %(state)s = 'pending' THEN now() + make_interval(secs => %(delay_seconds)s::float8) END,
    "deliveredAt" = CASE WHEN %(state)s = 'delivered' THEN now() END,
    "lastStatus" = %(status)s::int, "lastError" = %(error)s
WHERE "jobId" = %(job_id)s AND "eventId" = %(event_id)s AND attempts = %(attempt)s
  AND state IN ('pending', %(state)s);

-- name: release_deliveries
-- Attempts that a stopping worker broke off: due again at once, uncharged. By "iidq_webhook_delivery_pkey".
UPDATE public.iidq_webhook_delivery AS delivery
SET "nextAt" = now(), attempts = delivery.attempts - 1
FROM jsonb_to_recordset(%(broken_off)s::jsonb) AS mine(job_id uuid, event_id uuid, attempt int)
WHERE delivery."jobId" = mine.job_id AND delivery."eventId" = mine.event_id AND delivery.attempts = mine.attempt
  AND delivery.state = 'pending';

-- name: count
-- Jobs by state from the kept counts, the age of the first in line by "VerificationJob_line", and who is at work.
SELECT waiting, delayed, active, completed, failed, cancelled, workers, oldest_waiting_seconds,
  state, pause_reason, listening_workers, expired_leases, faults
FROM public.queue_health;

-- name: queue_depth
-- For metrics and probes: counts, ages and workers, no more than the view and one walk over the running jobs, by
-- "VerificationJob_running".
SELECT waiting, delayed, active, completed, failed, cancelled, state = 'paused' AS paused,
  oldest_waiting_seconds,
  greatest(0, extract(epoch FROM now() - next_due_at))::float8 AS overdue_seconds,
  (SELECT extract(epoch FROM now() - min("startedAt")) FROM public."VerificationJob"
    WHERE "workerId" IS NOT NULL)::float8
    AS oldest_active_seconds,
  expired_leases, workers, slots, listening_workers,
  extract(epoch FROM now() - upkeep_at)::float8 AS upkeep_age_seconds, faults
FROM public.queue_health;

-- name: share_rates
-- Rate limits: add what one API process admitted, and read what all of them did, for these clients. Both by
-- "iidq_rate_count_pkey"; keys in order, so that two processes cannot deadlock. The table is unlogged: nothing is
-- awaited. A count that was added to comes twice, as it was and as it is.
WITH counted AS (
  INSERT INTO public.iidq_rate_count AS known (key, step, requests)
  SELECT key, step, requests
  FROM unnest(%(keys)b::bytea[], %(steps)b::int[], %(requests)b::int[]) AS told(key, step, requests)
  ORDER BY key, step
  ON CONFLICT (key, step) DO UPDATE SET requests = known.requests + excluded.requests
  RETURNING key, step, requests
)
SELECT key, step, requests, extract(epoch FROM clock_timestamp())::float8 AS now FROM counted
UNION ALL
SELECT key, step, requests, NULL FROM public.iidq_rate_count WHERE key = ANY (%(keys)b::bytea[])
  AND step > %(since_step)s;

-- name: purge_rates
-- Counts of minutes gone by, in bounded batches, by "iidq_rate_count_step".
DELETE FROM public.iidq_rate_count WHERE ctid = ANY (ARRAY (
  SELECT ctid FROM public.iidq_rate_count WHERE step < %(before_step)s LIMIT %(batch)s FOR UPDATE SKIP LOCKED));

-- name: probe
-- Fails where a migration is missing that this version cannot do without, each by something that it made. Reads no row.
SELECT job."jobId", 'public."VerificationJob_line"'::regclass,
  'public.iidq_enqueue(json, integer, boolean, integer)'::regprocedure
FROM public."VerificationJob" AS job, public.iidq_queue_count, public.iidq_queue_control, public.queue_health,
  public.iidq_idempotency_key, public.iidq_webhook_delivery, public.iidq_rate_count,
  public.iidq_ended_jobs_of('') AS ended,
  public.iidq_new_jobs('[]') AS new LIMIT 0;

-- name: obstacles
-- What keeps the present role from iidq's work: objects that are missing, rights that it lacks, row-level security
-- without a policy for it or with policies that can hide rows, columns that no insert of iidq's fills, and tables whose
-- changes a publication takes although no column tells their rows apart. The owners of the functions that work with
-- their owner's rights need rights and policies, too. The catalogs alone are read. An object is found by its name also
-- where the role may not use its schema.
WITH needed(kind, name, privileges) AS (VALUES
  ('table', 'VerificationJob', 'SELECT,INSERT,UPDATE,DELETE'), ('table', 'iidq_queue_count', 'SELECT,INSERT,DELETE'),
  ('table', 'iidq_queue_control', 'SELECT,INSERT,UPDATE'),
  ('table', 'iidq_queue_worker', 'SELECT,INSERT,UPDATE,DELETE'),
  ('table', 'iidq_idempotency_key', 'SELECT,INSERT,UPDATE,DELETE'),
  ('table', 'iidq_webhook_delivery', 'SELECT,INSERT,UPDATE,DELETE'),
  ('table', 'iidq_rate_count', 'SELECT,INSERT,UPDATE,DELETE'),
  ('table', 'iidq_accelerator_key', 'SELECT,INSERT'), ('view', 'queue_health', 'SELECT'),
  ('view', 'queue_workers', 'SELECT'),
  ('procedure', 'iidq_enqueue', 'EXECUTE'), ('function', 'iidq_new_jobs', 'EXECUTE'),
  ('function', 'iidq_new_job_id', 'EXECUTE'), ('function', 'iidq_claim_order', 'EXECUTE'),
  ('function', 'iidq_queue_state', 'EXECUTE'), ('function', 'iidq_callback_state', 'EXECUTE'),
  ('function', 'iidq_ended_jobs_of', 'EXECUTE'), ('function', 'iidq_content_span', 'EXECUTE'),
  ('view', 'queue_throughput', 'SELECT'), ('function', 'cancel_job', 'EXECUTE'),
  ('function', 'retry_job', 'EXECUTE'), ('function', 'pause_queue', 'EXECUTE'),
  ('function', 'resume_queue', 'EXECUTE'), ('index', 'VerificationJob_line', '')
), found AS MATERIALIZED (
  SELECT needed.*, relation.oid AS relation, routine.oid AS routine, space.oid AS space, space.nspname
  FROM needed
  LEFT JOIN LATERAL (
    SELECT oid, relnamespace FROM pg_class
    WHERE relname = name AND relkind IN ('r', 'p', 'v', 'i') AND relnamespace = to_regnamespace('public')
  ) AS relation ON kind IN ('table', 'view', 'index')
  LEFT JOIN LATERAL (
    SELECT oid, pronamespace FROM pg_proc WHERE proname = name AND pronamespace = to_regnamespace('public')
    LIMIT 1) AS routine ON kind IN ('function', 'procedure')
  LEFT JOIN pg_namespace AS space ON space.oid IN (relation.relnamespace, routine.pronamespace)
), used AS MATERIALIZED (
  SELECT kind, name, relation, privilege, place, pg_roles.oid AS role, rolname, rolsuper OR rolbypassrls AS sees_all
  FROM found CROSS JOIN string_to_table(privileges, ',') WITH ORDINALITY AS each_one(privilege, place)
  JOIN pg_roles ON rolname = current_user
  WHERE relation IS NOT NULL
  UNION
  SELECT 'table', relname, pg_class.oid, privilege, place, pg_roles.oid, rolname, rolsuper OR rolbypassrls
  FROM (VALUES ('iidq_note_change', 'VerificationJob', 'SELECT,UPDATE'),
      ('iidq_note_change', 'iidq_queue_count', 'INSERT'),
      ('iidq_follow_callback', 'iidq_webhook_delivery', 'SELECT,UPDATE,DELETE'),
      ('queue_health', 'VerificationJob', 'SELECT'), ('queue_health', 'iidq_queue_count', 'SELECT'),
      ('queue_health', 'iidq_queue_control', 'SELECT'), ('queue_workers', 'iidq_queue_worker', 'SELECT')
    ) AS by_owner(code, relname, privileges)
  CROSS JOIN string_to_table(privileges, ',') WITH ORDINALITY AS each_one(privilege, place)
  JOIN (SELECT proname, pronamespace, proowner FROM pg_proc WHERE prosecdef
    UNION ALL SELECT relname, relnamespace, relowner FROM pg_class WHERE relkind = 'v') AS owned(code, space, owner)
    USING (code)
  JOIN pg_class USING (relname) JOIN pg_roles ON pg_roles.oid = owner
  WHERE space = to_regnamespace('public') AND relnamespace = space
), guarded AS MATERIALIZED (
  -- "lets_in": the tables' permissive policies for the role and what it does there, each with its condition.
  SELECT used.*, policies.* FROM used JOIN pg_class AS guarded_table ON guarded_table.oid = relation
  CROSS JOIN LATERAL (
    SELECT count(*) FILTER (WHERE polpermissive) AS lets_in,
      bool_or(polpermissive AND polqual IS NOT NULL AND pg_get_expr(polqual, polrelid) = 'true')
        AND coalesce(bool_and(pg_get_expr(polqual, polrelid) = 'true')
          FILTER (WHERE NOT polpermissive AND polqual IS NOT NULL), true) AS shows_all,
      string_agg(polname::text, ', ' ORDER BY polname) AS names
    FROM pg_policy
    WHERE polrelid = relation AND polcmd IN ('*', CASE privilege WHEN 'SELECT' THEN 'r' WHEN 'INSERT' THEN 'a'
        WHEN 'UPDATE' THEN 'w' ELSE 'd' END)
      AND EXISTS (SELECT FROM unnest(polroles) AS allowed(oid)
        WHERE CASE allowed.oid WHEN 0 THEN true ELSE pg_has_role(role, allowed.oid, 'USAGE') END)
  ) AS policies
  WHERE kind = 'table' AND relrowsecurity AND NOT sees_all
    AND (relforcerowsecurity OR NOT pg_has_role(role, relowner, 'USAGE'))
)
SELECT 'missing' AS problem, kind, name, '' AS detail, current_user::text AS role FROM found WHERE space IS NULL
UNION ALL
-- Columns that databases of earlier, unreleased versions lack.
SELECT 'missing', 'column', name || '.' || column_name, '', current_user::text
FROM found JOIN (VALUES ('VerificationJob', 'jobId')) AS newest(name, column_name)
  USING (name)
WHERE relation IS NOT NULL AND NOT EXISTS (SELECT FROM pg_attribute WHERE attrelid = relation AND attname = column_name)
UNION ALL
SELECT DISTINCT 'right', 'schema', nspname::text, 'USAGE', current_user::text
FROM found WHERE space IS NOT NULL AND NOT has_schema_privilege(space, 'USAGE')
UNION ALL
SELECT 'right', kind, name, string_agg(privilege, ', ' ORDER BY place), rolname::text
FROM used WHERE NOT has_table_privilege(role, relation, privilege)
GROUP BY kind, name, rolname
UNION ALL
SELECT 'right', kind, name, privileges, current_user::text
FROM found WHERE routine IS NOT NULL AND NOT has_function_privilege(routine, privileges)
UNION ALL
SELECT 'policy', kind, name, string_agg(privilege, ', ' ORDER BY place), rolname::text
FROM guarded WHERE lets_in = 0
GROUP BY kind, name, rolname
UNION ALL
SELECT 'hidden', kind, name, min(names), rolname::text
FROM guarded WHERE lets_in > 0 AND NOT coalesce(shows_all, false) AND privilege <> 'INSERT'
GROUP BY kind, name, rolname
UNION ALL
-- A trigger before the insert may fill it.
SELECT 'default', kind, name, attname::text, current_user::text
FROM found JOIN pg_attribute ON attrelid = relation
WHERE name = 'VerificationJob' AND attnum > 0 AND attnotnull AND NOT atthasdef AND attidentity = '' AND NOT attisdropped
  AND attname NOT IN ('type', 'contentHash', 'manifestUri', 'registryAddress', 'rpcUrl', 'chainId', 'fileName',
    'traceContext', 'hasCallback', 'rpcEndpointId')
  AND NOT EXISTS (SELECT FROM pg_trigger WHERE tgrelid = relation AND tgtype & 7 = 7 AND tgenabled <> 'D')
UNION ALL
SELECT 'identity', kind, name, string_agg(DISTINCT pubname::text, ', '), current_user::text
FROM found
JOIN pg_class AS relation ON relation.oid = found.relation
JOIN pg_publication_tables AS published ON schemaname = nspname AND tablename = name
JOIN pg_publication USING (pubname)
WHERE kind = 'table' AND (pubupdate OR pubdelete)
  AND (relreplident = 'n'
    OR relreplident = 'd' AND NOT EXISTS (SELECT FROM pg_index WHERE indrelid = relation.oid AND indisprimary)
    OR relreplident = 'i' AND NOT EXISTS (SELECT FROM pg_index WHERE indrelid = relation.oid AND indisreplident))
GROUP BY kind, name;

-- name: prefer_lz4
-- Where it is built in. Results are some 1.5 kB of hex that hardly compresses fast: lz4 costs a third of pglz. Of the
-- session, not of the column: a table that names it cannot be restored on a server without it.
SELECT set_config('default_toast_compression', 'lz4', false) FROM pg_settings
WHERE name = 'default_toast_compression' AND 'lz4' = ANY (enumvals);

-- name: is_read_only
-- The cheapest question that tells a server that answers, and takes writes, from one that does not. Reads no table.
SELECT current_setting('transaction_read_only')::boolean;

-- name: confirm
-- The smallest durable write, without a table. Its commit is confirmed after every commit before it, by the disk and by
-- synchronous standbys.
SELECT pg_logical_emit_message(true, 'iidq', '');

-- name: lock_migrations
-- One name for all hosts: whoever holds it migrates, the others ask again and then find nothing to do. A statement that
-- waits for it would keep a snapshot open, and CREATE INDEX CONCURRENTLY waits for the end of every older snapshot.
SELECT pg_try_advisory_lock(hashtext('iidq.database.migrate public'));

-- name: applied_migrations
-- What yoyo has noted down.
SELECT migration_id FROM public._yoyo_migration;

-- name: migration_site
-- What migrations find here, for first_run.py: the role's rights, and tables of earlier comers. The catalogs alone are
-- read, where an object is found also without a right to its schema.
SELECT current_user::text AS role, space.oid IS NOT NULL AS has_schema,
  has_database_privilege(current_database(), 'CREATE') AS may_create_schema,
  space.oid IS NOT NULL AND has_schema_privilege(space.oid, 'USAGE') AS may_use,
  space.oid IS NOT NULL AND has_schema_privilege(space.oid, 'CREATE') AS may_create,
  jobs.oid IS NOT NULL AS has_jobs, pg_get_userbyid(coalesce(history.relowner, jobs.relowner))::text AS owner,
  history.oid IS NOT NULL AS has_history,
  (SELECT count(*) = 2 FROM pg_attribute
   WHERE attrelid = history.oid AND attname IN ('migration_id', 'migration_hash')) AS has_known_history,
  history.oid IS NOT NULL AND has_table_privilege(history.oid, 'SELECT') AS may_read_history
FROM (SELECT to_regnamespace('public') AS oid) AS space
LEFT JOIN pg_class AS jobs ON jobs.relnamespace = space.oid AND jobs.relname = 'VerificationJob'
LEFT JOIN pg_class AS history ON history.relnamespace = space.oid AND history.relname = '_yoyo_migration';

-- name: create_schema
-- Where migration_site found none. With IF NOT EXISTS also a role that need not create it would have to have the right.
CREATE SCHEMA public;

-- name: limit_lock_waits
-- Until the end of the transaction: a statement that waits for a lock keeps all later ones waiting behind it.
SELECT set_config('lock_timeout', %(milliseconds)s, true);

-- name: lock_holders
-- Whose transactions have held a lock in our schema for so long: the process, what it calls itself, and since when.
-- Times of other roles are not shown to a role without pg_read_all_stats. A prepared transaction has no process.
SELECT DISTINCT ON (since, lock.pid, gid) lock.pid, gid,
  coalesce(nullif(application_name, ''), backend_type, '') AS application,
  to_char(since AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') AS since
FROM pg_locks AS lock
JOIN pg_class AS relation ON relation.oid = lock.relation AND relation.relnamespace = to_regnamespace('public')
LEFT JOIN pg_stat_activity AS activity ON activity.pid = lock.pid
LEFT JOIN pg_prepared_xacts ON lock.pid IS NULL AND lock.virtualtransaction = '-1/' || transaction
CROSS JOIN LATERAL (SELECT coalesce(xact_start, prepared) AS since) AS began
WHERE lock.granted AND lock.database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND coalesce(since, '-infinity') < now() - make_interval(secs => %(seconds)s)
ORDER BY since, lock.pid, gid
LIMIT 3;

-- name: accelerator_key
-- The one row of iidq_accelerator_key by its primary key, made where there is none. gen_random_uuid() takes 122 bits
-- from the system's generator for secrets; three of them fill the 256 of the hash.
WITH made AS (
  INSERT INTO public.iidq_accelerator_key (key)
  VALUES (sha256(convert_to(concat(gen_random_uuid(), gen_random_uuid(), gen_random_uuid()), 'UTF8')))
  ON CONFLICT (only_one) DO NOTHING
  RETURNING key
)
SELECT key FROM made UNION ALL SELECT key FROM public.iidq_accelerator_key LIMIT 1;
