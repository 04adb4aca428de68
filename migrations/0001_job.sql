-- "VerificationJob": the queue, its history, and the interface for SQL users.
-- depends:

-- UUID version 7 (RFC 9562). Not uuidv7(), because dumps must restore on every version of Postgres.
CREATE FUNCTION public.iidq_new_job_id() RETURNS uuid LANGUAGE sql VOLATILE PARALLEL SAFE AS $$
  SELECT encode(set_bit(set_bit(overlay(uuid_send(gen_random_uuid())
      PLACING substring(int8send((extract(epoch FROM clock_timestamp()) * 1000)::bigint) FROM 3) FROM 1 FOR 6),
    52, 1), 53, 1), 'hex')::uuid
$$;

-- The import of docs/migration.md uses this id, because clients of the replaced system have a "jobId".
CREATE FUNCTION public.iidq_imported_id(job_id text) RETURNS uuid LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT CASE WHEN lower(job_id) ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' THEN job_id::uuid ELSE md5(job_id)::uuid END
$$;
COMMENT ON FUNCTION public.iidq_imported_id(text) IS 'The id under which a job of the replaced system is kept and found, by its old "jobId".';

CREATE TABLE public."VerificationJob" (
  -- Fixed-width columns first, which need no padding.
  id uuid PRIMARY KEY DEFAULT public.iidq_new_job_id(),
  "createdAt" timestamptz NOT NULL DEFAULT now(), "updatedAt" timestamptz NOT NULL DEFAULT now(),
  "runAt" timestamptz NOT NULL DEFAULT now(),
  "startedAt" timestamptz, "completedAt" timestamptz, "leaseUntil" timestamptz,
  "chainId" bigint,
  attempt integer NOT NULL DEFAULT 0, "maxAttempts" integer NOT NULL DEFAULT 3, "retryCount" integer NOT NULL DEFAULT 0,
  priority smallint NOT NULL DEFAULT 0, progress smallint NOT NULL DEFAULT 0,
  ready boolean NOT NULL DEFAULT true,
  -- A flag in place of the URL, which may carry secrets. Null, which takes no byte, without a callback.
  "hasCallback" boolean,
  type text NOT NULL, status text NOT NULL DEFAULT 'queued',
  "contentHash" text NOT NULL, "manifestUri" text NOT NULL, "registryAddress" text NOT NULL,
  "rpcUrl" text, "rpcEndpointId" text, "fileName" text, "traceContext" text, "workerId" text,
  error text, errors jsonb NOT NULL DEFAULT '[]', result jsonb,
  "jobId" text NOT NULL GENERATED ALWAYS AS (id::text) STORED,
  -- The rules of a state, checked at every update. Rules of single values are in iidq_broken_rules.
  CONSTRAINT "VerificationJob_state_is_whole" CHECK (CASE status
    WHEN 'queued'     THEN "completedAt" IS NULL     AND "leaseUntil" IS NULL     AND "workerId" IS NULL
    WHEN 'processing' THEN "completedAt" IS NULL     AND "leaseUntil" IS NOT NULL AND "workerId" IS NOT NULL
    WHEN 'completed'  THEN "completedAt" IS NOT NULL AND "leaseUntil" IS NULL     AND "workerId" IS NULL AND result IS NOT NULL
    WHEN 'failed'     THEN "completedAt" IS NOT NULL AND "leaseUntil" IS NULL     AND "workerId" IS NULL AND error IS NOT NULL
    WHEN 'cancelled'  THEN "completedAt" IS NOT NULL AND "leaseUntil" IS NULL     AND "workerId" IS NULL
    ELSE false END)
) WITH (
  -- Free room, in which renewals and progress stay on their page (HOT).
  fillfactor = 90,
  -- Vacuum by count: dead rows come with the work, at any size of the history.
  autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 2000, autovacuum_analyze_scale_factor = 0.02,
  autovacuum_vacuum_insert_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0
);
-- No plan reads these statistics, and ANALYZE would sort whole results.
ALTER TABLE public."VerificationJob"
  ALTER result SET STATISTICS 0, ALTER errors SET STATISTICS 0, ALTER "manifestUri" SET STATISTICS 0,
  ALTER "rpcUrl" SET STATISTICS 0, ALTER "fileName" SET STATISTICS 0, ALTER "traceContext" SET STATISTICS 0,
  ALTER "jobId" SET STATISTICS 0;
COMMENT ON TABLE public."VerificationJob" IS 'One row per verification or proof: the queue and its history. INSERT to ask, SELECT to see.';
COMMENT ON COLUMN public."VerificationJob".id IS 'UUID version 7; made by the database unless given';
COMMENT ON COLUMN public."VerificationJob"."jobId" IS 'id as text, for clients of the replaced system';
COMMENT ON COLUMN public."VerificationJob".type IS 'verify: a verdict; proof: a verdict with a portable proof';
COMMENT ON COLUMN public."VerificationJob".status IS 'queued, processing, completed, failed or cancelled';
COMMENT ON COLUMN public."VerificationJob".progress IS '0 to 100: 10 hash known, 30 manifest fetched, 50 signer recovered, 70 registry read, 85 transaction searched (proofs), 90 result built, 100 stored';
COMMENT ON COLUMN public."VerificationJob"."contentHash" IS 'SHA-256 of the file: 0x and 64 lower-case hex digits';
COMMENT ON COLUMN public."VerificationJob"."manifestUri" IS 'where the manifest is: ipfs://CID[/path], http:// or https://';
COMMENT ON COLUMN public."VerificationJob"."registryAddress" IS 'the ContentRegistry contract: 0x and 40 hex digits';
COMMENT ON COLUMN public."VerificationJob"."rpcUrl" IS 'JSON-RPC endpoint named by the caller, credentials redacted; null: the configured one';
COMMENT ON COLUMN public."VerificationJob"."rpcEndpointId" IS 'digest that tells apart endpoints with the same redacted "rpcUrl"; null: there is only one';
COMMENT ON COLUMN public."VerificationJob"."chainId" IS 'chain named by the caller; null: the default chain';
COMMENT ON COLUMN public."VerificationJob"."fileName" IS 'name of the uploaded file; the file itself is never stored';
COMMENT ON COLUMN public."VerificationJob"."traceContext" IS 'traceparent (W3C Trace Context) of the request that asked for the job; null where traces were off';
COMMENT ON COLUMN public."VerificationJob"."hasCallback" IS 'whether iidq_webhook_delivery has a row for this job; null: no';
COMMENT ON COLUMN public."VerificationJob".result IS 'the verdict (verify) or the proof (proof), as HTTP clients see it';
COMMENT ON COLUMN public."VerificationJob".error IS 'why the job failed, "code: sentence"; set only at the end';
COMMENT ON COLUMN public."VerificationJob".errors IS 'errors of earlier attempts: [{attempt, at, error}], the last 20';
COMMENT ON COLUMN public."VerificationJob".attempt IS 'grows with every claim; an outcome is stored only by the attempt that holds the lease';
COMMENT ON COLUMN public."VerificationJob"."maxAttempts" IS 'failures and lost leases after which the job fails';
COMMENT ON COLUMN public."VerificationJob"."retryCount" IS 'retries so far; a drained worker''s job is not one';
COMMENT ON COLUMN public."VerificationJob".priority IS 'each step up is worth 30 s in line, each step down costs 30 s';
COMMENT ON COLUMN public."VerificationJob".ready IS 'in line now (in the claim index); false for future and backoff rows until they are due';
COMMENT ON COLUMN public."VerificationJob"."runAt" IS 'earliest time of the next claim';
COMMENT ON COLUMN public."VerificationJob"."leaseUntil" IS 'while processing: renewed by the worker; later another worker may take the job';
COMMENT ON COLUMN public."VerificationJob"."workerId" IS 'while processing: the worker that holds the lease';
COMMENT ON COLUMN public."VerificationJob"."createdAt" IS 'when the job was requested';
COMMENT ON COLUMN public."VerificationJob"."startedAt" IS 'when the latest attempt was claimed';
COMMENT ON COLUMN public."VerificationJob"."completedAt" IS 'when the job ended, in any way';
COMMENT ON COLUMN public."VerificationJob"."updatedAt" IS 'when iidq last changed the row';
