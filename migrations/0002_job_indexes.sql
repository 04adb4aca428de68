-- The indexes of "VerificationJob" and their expressions.
-- depends: 0001_job

-- Without SET, so that the planner inlines the body. Not a stored column, which makes inserts slower.
CREATE FUNCTION public.iidq_claim_order(run_at timestamptz, type text, priority smallint) RETURNS timestamp
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT run_at AT TIME ZONE 'UTC' + (CASE type WHEN 'proof' THEN 1 ELSE 0 END - priority) * interval '30 seconds'
$$;
COMMENT ON FUNCTION public.iidq_claim_order(timestamptz, text, smallint) IS 'A job''s place in line: "runAt", 30 s later for proofs, 30 s earlier per step of priority; UTC.';

-- The claim: ready rows in their order.
CREATE INDEX "VerificationJob_line" ON public."VerificationJob" (public.iidq_claim_order("runAt", type, priority), id)
  WHERE ready AND status = 'queued';
-- Delayed jobs, moved to ready when due.
CREATE INDEX "VerificationJob_delayed" ON public."VerificationJob" ("runAt") WHERE status = 'queued' AND NOT ready;
-- Expired leases and running jobs. Without "leaseUntil", so that renewals stay HOT.
CREATE INDEX "VerificationJob_running" ON public."VerificationJob" (id) WHERE "workerId" IS NOT NULL;

-- Each version of a job gets an entry in the next two indexes: room on their pages avoids splits, for a faster drain.
ALTER INDEX public."VerificationJob_pkey" SET (fillfactor = 30);
-- The newest jobs, and retention from the other end.
CREATE INDEX "VerificationJob_newest" ON public."VerificationJob" ("createdAt", id) WITH (fillfactor = 30);

-- ?status=failed and queue_errors; ?status=cancelled.
CREATE INDEX "VerificationJob_failed" ON public."VerificationJob" ("createdAt", id) WHERE status = 'failed';
CREATE INDEX "VerificationJob_cancelled" ON public."VerificationJob" ("createdAt", id) WHERE status = 'cancelled';
-- Failures by cause, for the operations page: the code before the colon, cut because an index takes no long text.
CREATE INDEX "VerificationJob_failed_cause" ON public."VerificationJob"
  ((left(split_part(error, ':', 1), 100)), "completedAt", id) WHERE status = 'failed';

-- The span of a job in the next index. Hashes of a span share pages, so that an ended job seldom touches a new one.
CREATE FUNCTION public.iidq_content_span(at timestamptz) RETURNS timestamptz LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT date_bin('6 hours', at, '2000-01-01 00:00:00Z')
$$;

-- Jobs of one content, by the hash's first digits. Ended rows alone: one entry per job. The CASE marks the entry as
-- new; otherwise Postgres looks for dead versions in each full page before the split.
CREATE INDEX "VerificationJob_content" ON public."VerificationJob" (public.iidq_content_span("createdAt"),
    (CASE WHEN "completedAt" IS NOT NULL THEN substr("contentHash", 3, 15) END COLLATE "C"))
  WHERE "completedAt" IS NOT NULL;

-- Search span by span. Without SET, so that the caller's LIMIT ends the search early. Not PARALLEL SAFE and with the
-- inner ORDER BY, because LATERAL must keep the order.
CREATE FUNCTION public.iidq_ended_jobs_of(content_hash text, until timestamptz DEFAULT 'infinity')
RETURNS SETOF public."VerificationJob" LANGUAGE sql STABLE AS $$
  WITH RECURSIVE span AS (
    (SELECT public.iidq_content_span("createdAt") AS began FROM public."VerificationJob"
     WHERE "completedAt" IS NOT NULL AND public.iidq_content_span("createdAt") <= public.iidq_content_span(until)
     ORDER BY public.iidq_content_span("createdAt") DESC LIMIT 1)
    UNION ALL
    SELECT (SELECT public.iidq_content_span("createdAt") FROM public."VerificationJob"
            WHERE "completedAt" IS NOT NULL AND public.iidq_content_span("createdAt") < span.began
            ORDER BY public.iidq_content_span("createdAt") DESC LIMIT 1) FROM span WHERE span.began IS NOT NULL
  )
  SELECT job.* FROM span CROSS JOIN LATERAL (
    SELECT * FROM public."VerificationJob"
    WHERE "completedAt" IS NOT NULL AND public.iidq_content_span("createdAt") = span.began
      AND CASE WHEN "completedAt" IS NOT NULL THEN substr("contentHash", 3, 15) END COLLATE "C" = substr(content_hash, 3, 15)
      AND "contentHash" = content_hash AND "createdAt" <= until
    ORDER BY "createdAt" DESC, id DESC
  ) AS job
$$;
COMMENT ON FUNCTION public.iidq_ended_jobs_of(text, timestamptz) IS 'The jobs of one content that have ended, newest first, and were asked for no later than "until".';
