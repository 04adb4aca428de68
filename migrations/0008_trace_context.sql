-- Where traces are on, a job carries its request's trace to the worker.
-- depends: 0005_idempotency

-- Not validated: the column is new and null in every row there is, and a scan of the history would lock it meanwhile.
ALTER TABLE "VerificationJob"
  ADD COLUMN "traceContext" text,
  ADD CONSTRAINT "VerificationJob_traceContext_form"
    CHECK ("traceContext" ~ '^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$') NOT VALID;

COMMENT ON COLUMN "VerificationJob"."traceContext" IS 'traceparent (W3C Trace Context) of the request that asked for the job; null where traces were off';
