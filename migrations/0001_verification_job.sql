-- "VerificationJob": the table that is the queue, its history, and the API for people who work in SQL.
-- depends:

-- Ids are UUID version 7 (RFC 9562): 48 bits of milliseconds, then random. PostgreSQL 18 has them built in.
DO $$
BEGIN
  IF current_setting('server_version_num')::int >= 180000 THEN
    CREATE FUNCTION new_job_id() RETURNS uuid LANGUAGE sql VOLATILE PARALLEL SAFE AS 'SELECT uuidv7()';
  ELSE
    CREATE FUNCTION new_job_id() RETURNS uuid LANGUAGE sql VOLATILE PARALLEL SAFE AS $body$
      SELECT encode(
        set_bit(set_bit(
          overlay(uuid_send(gen_random_uuid())
                  PLACING substring(int8send((extract(epoch FROM clock_timestamp()) * 1000)::bigint) FROM 3)
                  FROM 1 FOR 6),
          52, 1), 53, 1),
        'hex')::uuid
    $body$;
  END IF;
END $$;

-- What never changes after the insert is checked there, by its domain: table constraints are evaluated anew at each
-- update, and these two patterns alone cost a third of the drain. The length is tested apart, because a pattern with
-- {64} builds 64 states at each match (10 µs a row instead of 3).
CREATE DOMAIN job_type AS text
  CONSTRAINT "VerificationJob_type_known" CHECK (VALUE IN ('verify', 'proof'));
CREATE DOMAIN content_hash AS text
  CONSTRAINT "VerificationJob_contentHash_form" CHECK (length(VALUE) = 66 AND VALUE ~ '^0x[0-9a-f]*$');
CREATE DOMAIN contract_address AS text
  CONSTRAINT "VerificationJob_address_form" CHECK (length(VALUE) = 42 AND VALUE ~ '^0x[0-9a-fA-F]*$');
CREATE DOMAIN chain_id AS bigint
  CONSTRAINT "VerificationJob_chainId_range" CHECK (VALUE > 0);
CREATE DOMAIN attempt_limit AS integer
  CONSTRAINT "VerificationJob_attempts_range" CHECK (VALUE BETWEEN 1 AND 100);
CREATE DOMAIN percent AS smallint
  CONSTRAINT "VerificationJob_progress_range" CHECK (VALUE BETWEEN 0 AND 100);
-- The bounds below keep one row from failing statements that read or change many. Each is checked only where its column
-- is assigned. Times: those that every client can hold, in any time zone; arithmetic with 'infinity' fails in Postgres 15.
CREATE DOMAIN public.iidq_time AS timestamptz
  CONSTRAINT iidq_time_range CHECK (VALUE >= '0002-01-01 00:00:00Z' AND VALUE < '9999-01-01 00:00:00Z');
-- Far enough from the end of integer for every "+ 1".
CREATE DOMAIN public.iidq_counter AS integer
  CONSTRAINT iidq_counter_range CHECK (VALUE BETWEEN 0 AND 1000000000);
-- 20 entries are kept; each is an object. Strict: a lax path would look into arrays within the array.
CREATE DOMAIN public.iidq_errors AS jsonb
  CONSTRAINT iidq_errors_form CHECK (CASE WHEN VALUE = '[]' THEN true WHEN jsonb_typeof(VALUE) <> 'array' THEN false
    ELSE jsonb_array_length(VALUE) <= 20 AND pg_column_size(VALUE) <= 2097152
      AND NOT jsonb_path_exists(VALUE, 'strict $[*] ? (@.type() != "object")') END);
CREATE DOMAIN public.iidq_result AS jsonb
  CONSTRAINT iidq_result_size CHECK (pg_column_size(VALUE) <= 1048576);

CREATE TABLE "VerificationJob" (
  -- Fixed-width columns first: no padding between them.
  id                uuid        PRIMARY KEY DEFAULT new_job_id(),
  "createdAt"       public.iidq_time NOT NULL DEFAULT now(),
  "updatedAt"       public.iidq_time NOT NULL DEFAULT now(),
  "runAt"           public.iidq_time NOT NULL DEFAULT now(),
  "startedAt"       public.iidq_time,
  "completedAt"     public.iidq_time,
  "leaseUntil"      public.iidq_time,
  -- A proof stands in line as if it had come 30 s later, and each step of priority is worth 30 s: verifies
  -- go first, and no proof is overtaken by a verify that came more than 30 s after it.
  "claimOrder"      timestamp   GENERATED ALWAYS AS (
    ("runAt" AT TIME ZONE 'UTC') + (CASE type WHEN 'proof' THEN 1 ELSE 0 END - priority) * interval '30 seconds'
  ) STORED,
  "chainId"         chain_id,
  attempt           public.iidq_counter NOT NULL DEFAULT 0,
  "maxAttempts"     attempt_limit NOT NULL DEFAULT 3,
  "retryCount"      public.iidq_counter NOT NULL DEFAULT 0,
  priority          smallint    NOT NULL DEFAULT 0,
  progress          percent     NOT NULL DEFAULT 0,
  ready             boolean     NOT NULL DEFAULT true,
  type              job_type    NOT NULL,
  status            text        NOT NULL DEFAULT 'queued',
  "contentHash"     content_hash NOT NULL,
  "manifestUri"     text        NOT NULL,
  "registryAddress" contract_address NOT NULL,
  "rpcUrl"          text,
  "rpcEndpointId"   text,
  "fileName"        text,
  "workerId"        text,
  error             text,
  errors            public.iidq_errors NOT NULL DEFAULT '[]',
  result            public.iidq_result,

  -- The whole life of a job in one constraint; as five they cost a tenth of the drain.
  CONSTRAINT "VerificationJob_state_is_whole" CHECK (CASE status
    WHEN 'queued'     THEN "completedAt" IS NULL     AND "leaseUntil" IS NULL     AND "workerId" IS NULL
    WHEN 'processing' THEN "completedAt" IS NULL     AND "leaseUntil" IS NOT NULL AND "workerId" IS NOT NULL
    WHEN 'completed'  THEN "completedAt" IS NOT NULL AND "leaseUntil" IS NULL     AND "workerId" IS NULL
                           AND result IS NOT NULL
    WHEN 'failed'     THEN "completedAt" IS NOT NULL AND "leaseUntil" IS NULL     AND "workerId" IS NULL
                           AND error IS NOT NULL
    WHEN 'cancelled'  THEN "completedAt" IS NOT NULL AND "leaseUntil" IS NULL     AND "workerId" IS NULL
    ELSE false END)
) WITH (
  -- A tenth of each page is kept free so that renewals and progress stay on their page (HOT).
  fillfactor = 90,
  -- A queue makes dead rows at the pace of its work: vacuum by count, not by a share of the history.
  autovacuum_vacuum_scale_factor = 0.01,
  autovacuum_vacuum_threshold = 2000,
  autovacuum_analyze_scale_factor = 0.02,
  autovacuum_vacuum_insert_scale_factor = 0.05,
  autovacuum_vacuum_cost_delay = 0
);

-- Results are some 1.5 kB of hex that hardly compresses fast: lz4 costs a third of pglz. Kept where built in.
DO $$
BEGIN
  ALTER TABLE "VerificationJob" ALTER COLUMN result SET COMPRESSION lz4;
EXCEPTION WHEN feature_not_supported THEN NULL;
END $$;

-- The claim: ready rows alone, in the order of the claim. Future and backoff rows are not in it.
CREATE INDEX "VerificationJob_claim" ON "VerificationJob" ("claimOrder", id) WHERE ready AND status = 'queued';
-- Due retries and future jobs, moved to ready when their time has come.
CREATE INDEX "VerificationJob_delayed" ON "VerificationJob" ("runAt") WHERE status = 'queued' AND NOT ready;
-- Expired leases and the list of running jobs. On "workerId", not on "leaseUntil": renewals stay HOT.
CREATE INDEX "VerificationJob_running" ON "VerificationJob" (id) WHERE "workerId" IS NOT NULL;
-- The newest jobs (HTTP list, the operators' first query) and, from the other end, retention.
CREATE INDEX "VerificationJob_newest" ON "VerificationJob" ("createdAt", id);
-- The operators' query for failed jobs, and ?status=failed.
CREATE INDEX "VerificationJob_failed" ON "VerificationJob" ("createdAt", id) WHERE status = 'failed';
-- ?status=cancelled.
CREATE INDEX "VerificationJob_cancelled" ON "VerificationJob" ("createdAt", id) WHERE status = 'cancelled';
-- ?contentHash=. Finished rows alone, so that a job is entered once and not at each of its three versions
-- (13 % of the drain); unfinished ones are found through the three small indexes above.
CREATE INDEX "VerificationJob_finished_content" ON "VerificationJob" USING hash ("contentHash")
  WHERE "completedAt" IS NOT NULL;

-- A row whose time lies in the future leaves the claim's index, also when someone sets "runAt" in psql.
-- The WHEN clauses keep the functions off the hot path.
CREATE FUNCTION verification_job_set_ready() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
  NEW.ready := NEW."runAt" <= now();
  RETURN NEW;
END $$;

CREATE TRIGGER verification_job_inserted_for_later BEFORE INSERT ON "VerificationJob"
  FOR EACH ROW WHEN (NEW.ready AND NEW."runAt" > now()) EXECUTE FUNCTION verification_job_set_ready();
CREATE TRIGGER verification_job_moved_in_time BEFORE UPDATE OF "runAt" ON "VerificationJob"
  FOR EACH ROW WHEN (NEW.ready AND NEW.status = 'queued' AND NEW."runAt" > now())
  EXECUTE FUNCTION verification_job_set_ready();

-- Plain SQL inserts wake a worker. iidq's own inserts set iidq.announce to 'off' and notify after their commit:
-- a commit that notifies takes a lock on the whole database (24,000 inserts/s become 5,000).
CREATE FUNCTION verification_job_announce() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM pg_notify('iidq_jobs', '');
  RETURN NULL;
END $$;

CREATE TRIGGER verification_job_inserted AFTER INSERT ON "VerificationJob"
  FOR EACH STATEMENT WHEN (current_setting('iidq.announce', true) IS DISTINCT FROM 'off')
  EXECUTE FUNCTION verification_job_announce();

COMMENT ON TABLE "VerificationJob" IS 'One row per verification or proof: the queue and its history. INSERT to ask, SELECT to see.';
COMMENT ON COLUMN "VerificationJob".id IS 'UUID version 7; made by the database unless given';
COMMENT ON COLUMN "VerificationJob".type IS 'verify: a verdict; proof: a verdict with a portable proof';
COMMENT ON COLUMN "VerificationJob".status IS 'queued, processing, completed, failed or cancelled';
COMMENT ON COLUMN "VerificationJob".progress IS '0 to 100: 10 hash known, 30 manifest fetched, 50 signer recovered, 70 registry read, 85 transaction searched (proofs), 90 result built, 100 stored';
COMMENT ON COLUMN "VerificationJob"."contentHash" IS 'SHA-256 of the file: 0x and 64 lower-case hex digits';
COMMENT ON COLUMN "VerificationJob"."manifestUri" IS 'where the manifest is: ipfs://CID[/path], http:// or https://';
COMMENT ON COLUMN "VerificationJob"."registryAddress" IS 'the ContentRegistry contract: 0x and 40 hex digits';
COMMENT ON COLUMN "VerificationJob"."rpcUrl" IS 'JSON-RPC endpoint named by the caller, credentials redacted; null: the configured one';
COMMENT ON COLUMN "VerificationJob"."rpcEndpointId" IS 'which endpoint "rpcUrl" is, as a digest: endpoints that differ in their credentials are shown alike; null: the only one shown so';
COMMENT ON COLUMN "VerificationJob"."chainId" IS 'chain named by the caller; null: the default chain';
COMMENT ON COLUMN "VerificationJob"."fileName" IS 'name of the uploaded file; the file itself is never stored';
COMMENT ON COLUMN "VerificationJob".result IS 'the verdict (verify) or the proof (proof), as HTTP clients see it';
COMMENT ON COLUMN "VerificationJob".error IS 'why it failed, "code: sentence"; set only at the end';
COMMENT ON COLUMN "VerificationJob".errors IS 'what earlier attempts met: [{attempt, at, error}], the last 20';
COMMENT ON COLUMN "VerificationJob".attempt IS 'grows with every claim; an outcome is stored only by the attempt that holds the lease';
COMMENT ON COLUMN "VerificationJob"."maxAttempts" IS 'failures and lost leases after which the job fails';
COMMENT ON COLUMN "VerificationJob"."retryCount" IS 'retries so far; a drained worker''s job is not one';
COMMENT ON COLUMN "VerificationJob".priority IS 'each step up is worth 30 s in line, each step down costs 30 s';
COMMENT ON COLUMN "VerificationJob".ready IS 'in line now (in the claim index); false for future and backoff rows until they are due';
COMMENT ON COLUMN "VerificationJob"."claimOrder" IS 'place in line: "runAt", 30 s later for proofs, 30 s earlier per step of priority';
COMMENT ON COLUMN "VerificationJob"."runAt" IS 'earliest time of the next claim';
COMMENT ON COLUMN "VerificationJob"."leaseUntil" IS 'while processing: renewed by the worker; after this another may take the job';
COMMENT ON COLUMN "VerificationJob"."workerId" IS 'while processing: who holds the lease';
COMMENT ON COLUMN "VerificationJob"."createdAt" IS 'when it was asked';
COMMENT ON COLUMN "VerificationJob"."startedAt" IS 'when the latest attempt was claimed';
COMMENT ON COLUMN "VerificationJob"."completedAt" IS 'when it ended, in whichever way';
COMMENT ON COLUMN "VerificationJob"."updatedAt" IS 'when iidq last changed the row';
