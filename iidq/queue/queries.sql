-- The queue's statements. Each comment gives the purpose and the index.
-- Loaded by name in database/queries.py; parameters are psycopg's %(name)s.
--
-- A statement that changes the state of jobs also adds the changes to iidq_queue_count, one row per batch. It sets
-- iidq.writer for its transaction, so that the triggers, which count and notify for all other writers, do nothing.

-- name: enqueue
-- Insert many jobs, all or none, durably; see migrations/0004_enqueue.sql.
CALL public.iidq_enqueue(jobs => %(jobs)s::json, max_attempts => %(max_attempts)s::integer, again => %(again)s::boolean,
  expected => %(expected)s::integer);

-- name: expect_callbacks
-- In the transaction of enqueue, for its jobs with a callback; a repetition changes nothing.
INSERT INTO public.iidq_webhook_delivery ("jobId", url)
SELECT * FROM jsonb_to_recordset(%(callbacks)s::jsonb) AS new(job_id uuid, url text)
ON CONFLICT ("jobId") DO NOTHING;

-- name: announce
-- After the commit of inserts: sent with the insert as a transaction of its own, or alone. Payload '': the first of the
-- live workers answers, the others stay asleep. Payload 'rest': the first has too few free slots, so all answer.
-- Not durable, because NOTIFY writes a commit record too, and would hold the database-wide lock through its flush.
SELECT set_config('synchronous_commit', 'off', true), pg_notify('iidq_jobs', %(payload)s);

-- name: listen
-- One channel: iidq_jobs (work), iidq_cancelled (ids of cancelled running jobs), iidq_watching (clients watch jobs),
-- iidq_changed (ids of changed jobs), or a listener's own for its echo, since a pooler between transactions accepts
-- LISTEN and delivers nothing.
LISTEN {channel};

-- name: echo
-- To a listener's own channel, to check that notifications arrive.
SELECT set_config('synchronous_commit', 'off', true), pg_notify(%(channel)s, '');

-- name: announce_watching
-- From API processes with watching clients: for a minute, workers send the ids of changed jobs.
SELECT set_config('synchronous_commit', 'off', true), pg_notify('iidq_watching', '');

-- name: announce_changes
-- After the commit of the changes, and only while clients watch: ids of jobs, some per payload.
SELECT set_config('synchronous_commit', 'off', true), pg_notify('iidq_changed', payload)
FROM jsonb_array_elements_text(%(payloads)s::jsonb) AS payload;

-- name: claim
-- For all free slots at once, in the order of "VerificationJob_line". The locked rows are updated by ctid, because a
-- join on id becomes a hash join over the whole table once the batch is large. Not durable: a crash only un-claims
-- rows. "reached": the claim order up to which this claim has seen every row, minus 100 ms for inserts that commit
-- late. With a larger margin the next claims of a drain walk over rows already claimed. See claiming.py. "only":
-- null, or the jobs to which the claim is restricted.
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
    job."rpcUrl", job."rpcEndpointId", job."chainId", job."fileName", job."retryCount", job."maxAttempts",
    job."traceContext", job."hasCallback",
    public.iidq_claim_order(job."runAt", job.type, job.priority) AS place
), counted AS (
  INSERT INTO public.iidq_queue_count (waiting, active) SELECT -count(*), count(*) FROM claimed HAVING count(*) > 0
)
SELECT id, attempt, type, "contentHash", "manifestUri", "registryAddress", "rpcUrl", "rpcEndpointId", "chainId",
  "fileName", "retryCount", "maxAttempts", "traceContext", "hasCallback",
  (SELECT extract(epoch FROM least(max(place), (now() - interval '100 ms') AT TIME ZONE 'UTC'))::float8
   FROM claimed) AS reached
FROM claimed
ORDER BY place, id;

-- name: first_in_line
-- The jobs of the next claim, by "VerificationJob_line".
SELECT id FROM public."VerificationJob"
WHERE ready AND status = 'queued'
ORDER BY public.iidq_claim_order("runAt", type, priority), id
LIMIT %(limit)s;

-- name: refuse
-- End a job as failed when its row allows no other change. Jobs that another worker holds stay as they are. The
-- triggers count the change. By "VerificationJob_pkey".
UPDATE public."VerificationJob"
SET status = 'failed', ready = false, error = %(error)s, "completedAt" = now(), "updatedAt" = now(),
    "leaseUntil" = NULL, "workerId" = NULL
WHERE id = %(id)s
  AND (status = 'queued' OR status = 'processing' AND ("leaseUntil" < now() OR "workerId" = %(worker_id)s))
  AND (%(attempt)s::integer IS NULL OR attempt = %(attempt)s)
  AND (SELECT set_config('lock_timeout', '1s', true)) IS NOT NULL;

-- name: release_unknown
-- After a claim that lost its answer with the connection: the claimed jobs, unknown to their worker, go back to their
-- old place in line, uncounted. By "VerificationJob_running".
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
-- The leases of all running jobs of one worker, by "VerificationJob_pkey". A row missing in the answer was lost. Rows
-- locked by another transaction are skipped but returned as held: one forgotten open transaction must not cost the
-- worker's other jobs their leases. Expiry skips them too. Updated by id, because an update by ctid would miss a row
-- that changes between the lock and the update.
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
-- Coalesced progress of running jobs, by "VerificationJob_pkey"; never goes back within an attempt. Skips locked rows
-- as renew does. For the shape see store_outcomes.
WITH mine AS MATERIALIZED (
  SELECT *, 'processing' AS status, %(worker_id)s::text AS worker_id
  FROM jsonb_to_recordset(%(progress)s::jsonb) AS given(id uuid, attempt int, progress int)
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
-- Ends of attempts, all kinds in one statement: completed, failed, retried (queued after a failure, with a delay), or
-- released (queued uncounted, at the old place in line). By "VerificationJob_pkey", and by id as renew does. The fence:
-- id, attempt, worker and 'processing' must still hold, otherwise the lease was lost and the outcome is dropped. The
-- worker belongs to the fence because a claim undone by a crash can give the same attempt number again. Status and
-- worker are compared as columns of the batch: as constants they make the planner expect one row, and compare each row
-- with each outcome. A locked row fails the batch after a second; the writer then leaves that row out.
WITH mine AS MATERIALIZED (
  SELECT *, 'processing' AS held_status, %(worker_id)s::text AS held_by
  FROM jsonb_to_recordset(%(outcomes)s::jsonb)
    AS given(id uuid, attempt int, status text, result jsonb, failure text, delay_seconds float8)
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
-- Only the lost ones are returned: hardly ever a row, instead of one per outcome.
SELECT mine.id FROM mine WHERE NOT EXISTS (SELECT FROM stored WHERE stored.id = mine.id);

-- name: find_ended
-- Of the outcomes dropped by store_outcomes, those stored by an earlier try: the attempt has left 'processing' for the
-- same status. By "VerificationJob_pkey".
SELECT job.id
FROM jsonb_to_recordset(%(outcomes)s::jsonb) AS given(id uuid, attempt int, status text)
JOIN public."VerificationJob" AS job ON job.id = given.id AND job.attempt = given.attempt AND job.status = given.status
WHERE job.id = ANY (%(ids)s::uuid[]) AND job.status <> 'processing';

-- name: find_held
-- Of the outcomes dropped by store_outcomes, those with an attempt that still holds its row: a trigger dropped the
-- change. By "VerificationJob_pkey".
SELECT job.id
FROM jsonb_to_recordset(%(outcomes)s::jsonb) AS given(id uuid, attempt int)
JOIN public."VerificationJob" AS job ON job.id = given.id AND job.attempt = given.attempt
WHERE job.id = ANY (%(ids)s::uuid[]) AND job.status = 'processing' AND job."workerId" = %(worker_id)s;

-- name: sweep
-- One poll of a worker, in one statement: a sign of life, upkeep if it is this worker's turn, and a look at the queue.
-- An idle worker sends nothing else. The parts follow. "only": null, or the only jobs that may be changed.
WITH turn AS MATERIALIZED (
  SELECT pg_try_advisory_xact_lock(hashtext('iidq.upkeep public')) AS mine,
         set_config('iidq.writer', 'on', true), set_config('synchronous_commit', 'off', true)
), alive AS (
-- include say_alive
),
-- include take_back_expired
,
-- include promote_due
,
-- include remove_expired
,
-- include note_upkeep
,
-- include fold_counts
SELECT
  (SELECT coalesce(jsonb_agg(to_jsonb(taken_back)), '[]') FROM taken_back) AS expired,
  (SELECT count(*) FROM promoted) AS promoted,
-- include foresee
;

-- fragment: take_back_expired
-- Upkeep: jobs with an expired lease go back in line, or fail at their last attempt. By "VerificationJob_running", at
-- most "batch", skipping locked rows. The first loss runs again at once. Later losses wait for a random time, because a
-- job that kills its worker must not take the same other jobs along each time.
expired AS MATERIALIZED (
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
)

-- fragment: promote_due
-- Upkeep: retries and future jobs that fell due become ready. By "VerificationJob_delayed", at most "batch", skipping
-- locked rows.
due AS MATERIALIZED (
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
)

-- fragment: remove_expired
-- Upkeep: rows of workers silent for a minute, and idempotency keys past their time ("iidq_idempotency_key_expiry").
gone_workers AS (
  DELETE FROM public.iidq_queue_worker
  WHERE "aliveUntil" < now() - interval '1 minute' AND "workerId" <> %(worker_id)s AND (SELECT mine FROM turn)
), expired_keys AS (
  DELETE FROM public.iidq_idempotency_key WHERE ctid = ANY (ARRAY (
    SELECT ctid FROM public.iidq_idempotency_key WHERE "expiresAt" < now() AND (SELECT mine FROM turn)
    LIMIT %(batch)s FOR UPDATE SKIP LOCKED))
)

-- fragment: note_upkeep
-- Upkeep: the time of the last upkeep, in the one row of iidq_queue_control. The trigger of that table leaves
-- "countedAt" of a new row null. A row that an open transaction has locked, such as a pause, is skipped.
first_upkeep AS (
  INSERT INTO public.iidq_queue_control ("upkeepAt")
  SELECT now() FROM turn WHERE mine AND NOT EXISTS (SELECT FROM public.iidq_queue_control)
  ON CONFLICT DO NOTHING
), upkeep AS (
  UPDATE public.iidq_queue_control SET "upkeepAt" = now() WHERE only_row = ANY (ARRAY (
    SELECT only_row FROM public.iidq_queue_control WHERE (SELECT mine FROM turn) FOR UPDATE SKIP LOCKED))
)

-- fragment: fold_counts
-- Upkeep: more than 200 rows of iidq_queue_count are folded into one per minute, and into one for all minutes older
-- than an hour. The changes of this sweep are added. Bounded, because a change of millions of rows in psql leaves as
-- many. Count rows are deleted under this lock alone, or while the table of jobs is locked.
unfolded AS (
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

-- fragment: foresee
-- Whether a claim would find something ("VerificationJob_line"), the seconds until time alone brings the next event
-- ("VerificationJob_delayed", "VerificationJob_running"), whether this worker answers announcements first, and whether
-- the kept counts can be another database's.
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
    AS uncounted

-- name: say_alive
-- The worker's sign of life and its faults; a part of sweep, and sent alone after a sweep that Postgres refused, since
-- the worker may still claim. By "iidq_queue_worker_pkey".
INSERT INTO public.iidq_queue_worker ("workerId", host, pid, version, concurrency, running, listening, "aliveUntil",
  faults)
VALUES (%(worker_id)s, %(host)s, %(pid)s, %(version)s, %(concurrency)s, %(running)s, %(listening)s,
  now() + make_interval(secs => %(alive_seconds)s), %(faults)s::text[])
ON CONFLICT ("workerId") DO UPDATE
SET running = excluded.running, listening = excluded.listening, "seenAt" = now(),
    "aliveUntil" = excluded."aliveUntil", faults = excluded.faults;

-- name: recount
-- Count all jobs, when the kept counts may belong to another database; see iidq_take_control. Unless another worker
-- counts.
SELECT public.iidq_recount_queue()
WHERE NOT EXISTS (SELECT FROM public.iidq_queue_control WHERE "countedAt" IS NOT NULL)
  AND pg_try_advisory_xact_lock(hashtext('iidq.recount public'));

-- name: miscounts
-- States with a kept count that differs from the number of rows: state, kept, real. Each number by an index alone;
-- completed jobs are all others.
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

-- name: leave
-- Remove the sign of life of a worker that stopped in order.
DELETE FROM public.iidq_queue_worker WHERE "workerId" = %(worker_id)s;

-- name: lock_retention
-- One worker at a time removes old jobs, until the transaction ends. A separate statement, because only the next one's
-- snapshot surely contains the removals of the previous holder; otherwise two workers would remove the same excess.
SELECT pg_try_advisory_xact_lock(hashtext('iidq.retention public'));

-- name: check_deferred_rules
-- Deferred rules would refuse a row only at the commit, and with it all rows of the transaction.
SET CONSTRAINTS ALL IMMEDIATE;

-- name: purge
-- Retention by age, oldest first along "VerificationJob_newest"; failed jobs may be kept longer than the others. A job
-- ends after its creation, so the index on creation bounds the search. Each batch begins at the end of the one before,
-- past the rows just deleted. "only": null, or the jobs to which the deletion is restricted. "without": jobs left out
-- because a rule of the operator keeps them.
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
-- Retention by count: the newest completed and cancelled jobs are kept, along "VerificationJob_newest".
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
-- The first jobs for retention, along "VerificationJob_newest".
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
-- Idempotency: insert the new ones among these keys, in order, so that two batches cannot deadlock. An expired key is
-- taken over. By "iidq_idempotency_key_pkey".
INSERT INTO public.iidq_idempotency_key AS known (scope, key, fingerprint, "jobId", "expiresAt")
SELECT DISTINCT ON (scope, key) scope, key, fingerprint, job_id, now() + make_interval(secs => %(keep_seconds)s)
FROM unnest(%(scopes)b::text[], %(keys)b::text[], %(fingerprints)b::bytea[], %(job_ids)b::uuid[])
  AS asked(scope, key, fingerprint, job_id)
ORDER BY scope, key
ON CONFLICT (scope, key) DO UPDATE
SET fingerprint = excluded.fingerprint, "jobId" = excluded."jobId", "expiresAt" = excluded."expiresAt"
WHERE known."expiresAt" < now();

-- name: take_ended_keys
-- Take over keys of removed jobs, and shared keys of ended jobs. take_keys has locked the rows, also the unchanged
-- ones. A separate statement, so that its snapshot contains the jobs of transactions that take_keys waited for.
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
-- The job and fingerprint of each key, after take_keys. By "iidq_idempotency_key_pkey".
SELECT known.scope, known.key, known.fingerprint, known."jobId"
FROM unnest(%(scopes)b::text[], %(keys)b::text[]) AS asked(scope, key)
JOIN public.iidq_idempotency_key AS known USING (scope, key);

-- fragment: job_columns
-- The columns of a job that readers show, from "VerificationJob" AS job.
  job.id, job.type, job.status, job.progress, job."contentHash", job."manifestUri", job."registryAddress",
  job."rpcUrl", job."rpcEndpointId", job."chainId", job."fileName", job.result, job.error, job.errors,
  job."retryCount", job.attempt, job."maxAttempts", job.priority, job."runAt", job."startedAt", job."completedAt",
  job."createdAt", job."updatedAt",
  CASE WHEN job."hasCallback" THEN public.iidq_callback_state(job.id) END AS callback

-- name: find
-- One job, by "VerificationJob_pkey".
SELECT
-- include job_columns
FROM public."VerificationJob" AS job WHERE job.id = %(id)s;

-- name: find_changed
-- Watched jobs with another version of the row than the one seen last, or without a row (no version); "seen" is an
-- object of id → version. The version is the transaction that wrote the row, so plain SQL writes count as well. One
-- search of "VerificationJob_pkey" per job.
SELECT seen.key AS watched, job.xmin::text AS version,
-- include job_columns
FROM jsonb_each_text(%(seen)s::jsonb) AS seen
LEFT JOIN public."VerificationJob" AS job ON job.id = seen.key::uuid
WHERE job.xmin::text IS DISTINCT FROM seen.value;

-- name: list_jobs
-- One page of jobs for HTTP clients. {places} is one of places_…; the rows come by "VerificationJob_pkey".
-- One statement, so that each row is shown in the state in which the search found it. Two columns are named id; readers
-- by name take the last, which a row without a job has too.
WITH place AS MATERIALIZED (
{places}
)
SELECT
-- include job_columns
, place.id, place.place, place.wanted, place.found, place.cut
FROM place LEFT JOIN public."VerificationJob" AS job ON job.id = place.id
ORDER BY place.place DESC NULLS FIRST, place.id DESC;

-- name: places_newest
-- Newest first, the matches among the next %(reach)s rows of "VerificationJob_newest" or, for failed and cancelled
-- jobs, of their own index. Each places_… returns up to %(limit)s rows: the places of wanted jobs, the number of
-- matches up to there, and a row with "cut" if the search ended before the list.
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
-- Newest first among waiting jobs, by "VerificationJob_line" and "VerificationJob_delayed", or running jobs, by
-- "VerificationJob_running", at any size of the history. With %(reach)s or more of them, only a row without a place.
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
-- Newest first among the jobs of one content. Ended jobs come span by span ("VerificationJob_content"), up to %(reach)s
-- rows and %(spans)s spans; a span that was read in part is left to the next page. Unfinished jobs come by their small
-- indexes, because an index of their contents would cost each insert a seventh. Only a row without a place if %(reach)s
-- or more jobs are unfinished, or belong to one span.
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
  -- A row for a span without matches too, which marks how far the search came.
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
) AS given
ORDER BY place DESC NULLS FIRST, id DESC
LIMIT %(limit)s;

-- name: browse_line
-- Operators' list of waiting jobs, first in line first, by "VerificationJob_line". Each browse_… returns ids and
-- places; browse_rows shows them.
SELECT id, public.iidq_claim_order("runAt", type, priority) AT TIME ZONE 'UTC' AS place
FROM public."VerificationJob"
WHERE ready AND status = 'queued'
  AND (%(after_place)s::timestamptz IS NULL
    OR (public.iidq_claim_order("runAt", type, priority), id) > (%(after_place)s::timestamptz AT TIME ZONE 'UTC',
      %(after_id)s))
ORDER BY public.iidq_claim_order("runAt", type, priority), id
LIMIT %(limit)s;

-- name: browse_delayed
-- Delayed jobs, soonest first, by "VerificationJob_delayed".
SELECT id, "runAt" AS place
FROM public."VerificationJob"
WHERE status = 'queued' AND NOT ready
  AND (%(after_place)s::timestamptz IS NULL OR "runAt" >= %(after_place)s)
  AND (%(after_place)s::timestamptz IS NULL OR ("runAt", id) > (%(after_place)s, %(after_id)s))
ORDER BY "runAt", id
LIMIT %(limit)s;

-- name: browse_active
-- Running jobs, longest first, hardly more rows than workers have slots, by "VerificationJob_running".
SELECT id, coalesce("startedAt", "createdAt") AS place
FROM public."VerificationJob"
WHERE "workerId" IS NOT NULL
  AND (%(after_place)s::timestamptz IS NULL
    OR (coalesce("startedAt", "createdAt"), id) > (%(after_place)s, %(after_id)s))
ORDER BY coalesce("startedAt", "createdAt"), id
LIMIT %(limit)s;

-- name: prefer_indexes
-- Before a search through a pooler, in its transaction; other connections set it for good. With many matching rows, the
-- planner expects to meet enough of them early on a walk through the whole table, and meets them at its end.
-- JIT is off because before Postgres 18, enable_seqscan=off adds so much to the cost of an unavoidable scan that the
-- statement is compiled.
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

-- name: find_lease
-- In addition to find: the lease of the job, and the trace of its request. By "VerificationJob_pkey".
SELECT "workerId" AS worker_id, "leaseUntil" AS lease_until, split_part("traceContext", '-', 2) AS trace_id, now() AS at
FROM public."VerificationJob" WHERE id = %(id)s;

-- name: retry_failures
-- Put the earliest failures of one cause back in line, up to the time %(before)s, so that new failures are not retried
-- again. By "VerificationJob_failed_cause"; calls the same function as operators, with all its rules.
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

-- name: queue_health
-- For metrics, probes and the operations page: the view, two more ages, the pause, and the slots in use. The same cost
-- at any size of the history; running jobs by "VerificationJob_running".
-- A worker holds more jobs than it runs: an ended job keeps its lease until its outcome is stored.
SELECT now() AS at, state, pause_reason, (SELECT "pausedAt" FROM public.iidq_queue_control) AS paused_at,
  waiting, delayed, active, completed, failed, cancelled, oldest_waiting_seconds, next_due_at,
  (SELECT extract(epoch FROM now() - min("startedAt")) FROM public."VerificationJob"
    WHERE "workerId" IS NOT NULL)::float8 AS oldest_active_seconds,
  expired_leases, workers, slots, (
    SELECT coalesce(sum(least(held.jobs, worker.concurrency)), 0)::bigint
    FROM public.queue_workers AS worker JOIN (
      SELECT "workerId", count(*) AS jobs FROM public."VerificationJob" WHERE "workerId" IS NOT NULL GROUP BY "workerId"
    ) AS held ON held."workerId" = worker.worker_id
  ) AS running,
  listening_workers, extract(epoch FROM now() - upkeep_at)::float8 AS upkeep_age_seconds, faults
FROM public.queue_health;

-- name: overview_workers
-- Live workers, recently silent ones, and holders of leases: iidq_queue_worker is small, the leases come by
-- "VerificationJob_running".
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
-- Per minute of the last hour: inserted, completed, failed.
SELECT minute, enqueued, completed, failed FROM public.queue_throughput ORDER BY minute;

-- name: overview_durations
-- Per minute of the last hour: time in line, and time from start to end, of the last %(sample)s jobs inserted in each,
-- by "VerificationJob_newest". Time in line is of first attempts alone, because later ones wait for their backoff.
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
-- Kept failures by cause: how many (up to %(most)s), how many within the hour, and the latest. Each cause is found from
-- the one before, by "VerificationJob_failed_cause", without a walk through the failures.
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

-- name: probe
-- Fails if a migration is missing that this version needs, each by an object that it made. Reads no row.
SELECT job."jobId", 'public."VerificationJob_line"'::regclass,
  'public.iidq_enqueue(json, integer, boolean, integer)'::regprocedure
FROM public."VerificationJob" AS job, public.iidq_queue_count, public.iidq_queue_control, public.queue_health,
  public.iidq_idempotency_key, public.iidq_webhook_delivery, public.iidq_rate_count,
  public.iidq_ended_jobs_of('') AS ended,
  public.iidq_new_jobs('[]') AS new LIMIT 0;

-- name: is_read_only
-- The cheapest statement that distinguishes a server that takes writes from one that does not. Reads no table.
SELECT current_setting('transaction_read_only')::boolean;

-- name: confirm
-- The smallest durable write, without a table. Its commit is confirmed after every commit before it, by the disk and by
-- synchronous standbys.
SELECT pg_logical_emit_message(true, 'iidq', '');
