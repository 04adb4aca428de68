-- Every statement of the benchmarks but pgbench's scripts. Loaded by name; parameters are psycopg's %(name)s.

-- name: describe_server
SELECT name, current_setting(name)
FROM unnest(ARRAY['server_version', 'shared_buffers', 'fsync', 'synchronous_commit']) AS name;

-- name: analyze
ANALYZE;

-- name: vacuum
VACUUM ANALYZE public."VerificationJob";

-- name: checkpoint
CHECKPOINT;

-- name: without_triggers
SET session_replication_role = replica;

-- name: keeps_counts
SELECT to_regprocedure('public.iidq_recount_queue()') IS NOT NULL;

-- name: recount
SELECT public.iidq_recount_queue();

-- name: seed_waiting
-- Verifications to be finished by the queue, spread evenly over the last six days, within the default retention.
INSERT INTO public."VerificationJob"
  (type, "contentHash", "manifestUri", "registryAddress", "createdAt", "runAt", "updatedAt")
SELECT 'verify', hash, 'ipfs://bafkrei' || substr(hash, 3, 52), '0x' || substr(hash, 10, 40), at, at, at
FROM generate_series(%(first)s::int, %(last)s::int) AS number,
  LATERAL (SELECT '0x' || encode(sha256(number::text::bytea), 'hex') AS hash,
                  now() - interval '6 days' * (1 - number / (%(rows)s + 1.0)) AS at) AS made;

-- name: seed_claimed
UPDATE public."VerificationJob"
SET status = 'processing', ready = false, attempt = 1, "workerId" = 'seed', "leaseUntil" = now(),
    "startedAt" = "createdAt"
WHERE status = 'queued' AND ready;

-- name: seed_completed
UPDATE public."VerificationJob"
SET status = 'completed', progress = 100, "workerId" = NULL, "leaseUntil" = NULL,
    "completedAt" = "createdAt" + interval '40 ms', "updatedAt" = "createdAt" + interval '40 ms',
    result = jsonb_build_object('status', 'OK', 'fileHash', "contentHash",
      'recovered', '0x' || substr("contentHash", 12, 40),
      'onchain', jsonb_build_object('creator', '0x' || substr("contentHash", 12, 40), 'contentHash', "contentHash",
        'manifestURI', "manifestUri", 'timestamp', 1700000000),
      'checks', jsonb_build_object('manifestHashOk', true, 'creatorOk', true, 'manifestOk', true))
WHERE "workerId" = 'seed';

-- name: seed_imported
-- The same rows as from an import: inserted as finished.
INSERT INTO public."VerificationJob"
  (type, status, progress, ready, attempt, "contentHash", "manifestUri", "registryAddress", "createdAt", "runAt",
   "startedAt", "completedAt", "updatedAt", result)
SELECT 'verify', 'completed', 100, false, 1, hash, 'ipfs://bafkrei' || substr(hash, 3, 52),
  '0x' || substr(hash, 10, 40), at, at, at, at + interval '40 ms', at + interval '40 ms',
  jsonb_build_object('status', 'OK', 'fileHash', hash, 'recovered', '0x' || substr(hash, 12, 40),
    'onchain', jsonb_build_object('creator', '0x' || substr(hash, 12, 40), 'contentHash', hash,
      'manifestURI', 'ipfs://bafkrei' || substr(hash, 3, 52), 'timestamp', 1700000000 + number),
    'checks', jsonb_build_object('manifestHashOk', true, 'creatorOk', true, 'manifestOk', true))
FROM generate_series(1, %(rows)s) AS number,
  LATERAL (SELECT '0x' || encode(sha256(number::text::bytea), 'hex') AS hash,
                  now() - interval '6 days' * (1 - number / (%(rows)s + 1.0)) AS at) AS made;

-- name: seed_delayed
-- Retries in their backoff, due long after the run.
INSERT INTO public."VerificationJob"
  (type, status, ready, attempt, "retryCount", "contentHash", "manifestUri", "registryAddress", "runAt")
SELECT 'verify', 'queued', false, 1, 1, hash, 'ipfs://bafkrei' || substr(hash, 3, 52), '0x' || substr(hash, 10, 40),
  now() + interval '1 hour' + number * interval '1 ms'
FROM generate_series(1, %(rows)s) AS number,
  LATERAL (SELECT '0x' || encode(sha256(number::text::bytea), 'hex') AS hash) AS made;

-- name: seed_proofs
-- Waiting proofs behind every verify.
INSERT INTO public."VerificationJob" (type, "contentHash", "manifestUri", "registryAddress")
SELECT 'proof', hash, 'ipfs://bafkrei' || substr(hash, 3, 52), '0x' || substr(hash, 10, 40)
FROM generate_series(1, %(rows)s) AS number,
  LATERAL (SELECT '0x' || encode(sha256(number::text::bytea), 'hex') AS hash) AS made;

-- name: verifies_left
-- Whether a due verify has not ended, by "VerificationJob_line" and "VerificationJob_running".
SELECT coalesce((
    SELECT type FROM public."VerificationJob" WHERE ready AND status = 'queued'
    ORDER BY public.iidq_claim_order("runAt", type, priority), id LIMIT 1
  ) = 'verify', false)
  OR EXISTS (SELECT FROM public."VerificationJob" WHERE "workerId" IS NOT NULL AND type = 'verify');

-- name: ended
-- Numbers of completed and of failed verifies.
SELECT count(*) FILTER (WHERE status = 'completed' AND result IS NOT NULL), count(*) FILTER (WHERE status = 'failed')
FROM public."VerificationJob" WHERE type = 'verify' AND "completedAt" > %(since)s;

-- name: clock
SELECT clock_timestamp();

-- name: hold_snapshot
SELECT count(*) FROM pg_class;

-- name: transactions
-- Transactions of a database; sessions report their counts when idle.
SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = %(database)s;

-- name: status_of
SELECT status FROM public."VerificationJob" WHERE id = %(id)s;

-- name: row_at
-- The last row of page number `skip` / `page size` of the newest jobs.
SELECT "createdAt", id FROM public."VerificationJob" ORDER BY "createdAt" DESC, id DESC LIMIT 1 OFFSET %(skip)s;

-- name: fill_floor
INSERT INTO public.floor_job (payload) SELECT '{"n": 1}' FROM generate_series(1, %(rows)s);

-- name: vacuum_floor
VACUUM ANALYZE public.floor_job;

-- name: held_by
-- The jobs of a worker, by "VerificationJob_running", with the outcomes to store.
SELECT array_agg(id) AS ids,
  '[' || string_agg(format('{"id": "%%s", "attempt": %%s, "status": "completed", "result": %%s}', id, attempt, %(result)s::text), ',') || ']'
    AS outcomes
FROM public."VerificationJob" WHERE "workerId" IS NOT NULL AND "workerId" = %(worker_id)s;

-- name: ended_ok
SELECT count(*) FROM public."VerificationJob"
WHERE "completedAt" > %(since)s AND status = 'completed' AND result ->> 'status' = 'OK';

-- name: ended_and_attempts
-- Numbers of all jobs, of completed jobs, and of all attempts.
SELECT count(*), count(*) FILTER (WHERE status = 'completed'), coalesce(sum(attempt), 0)::bigint
FROM public."VerificationJob";
