-- The indexes of "VerificationJob", and the expressions that they are made of.
-- depends: 0001_job

-- A proof stands in line as if it had come 30 s later, and each step of priority is worth 30 s: verifies go first, and
-- no proof is overtaken by a verify that came more than 30 s after it. Plain SQL with nothing set, so that the planner
-- puts its body where it is called. Stored in the index alone: as a column it cost an insert an eighth.
CREATE FUNCTION public.iidq_claim_order(run_at timestamptz, type text, priority smallint) RETURNS timestamp
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT run_at AT TIME ZONE 'UTC' + (CASE type WHEN 'proof' THEN 1 ELSE 0 END - priority) * interval '30 seconds'
$$;
COMMENT ON FUNCTION public.iidq_claim_order(timestamptz, text, smallint) IS
  'A job''s place in line: "runAt", 30 s later for proofs, 30 s earlier per step of priority; UTC.';

-- The claim: ready rows alone, in the order of the claim. Future and backoff rows are not in it.
CREATE INDEX "VerificationJob_line" ON public."VerificationJob" (public.iidq_claim_order("runAt", type, priority), id)
  WHERE ready AND status = 'queued';
-- Due retries and future jobs, moved to ready when their time has come.
CREATE INDEX "VerificationJob_delayed" ON public."VerificationJob" ("runAt") WHERE status = 'queued' AND NOT ready;
-- Expired leases and the list of running jobs. On "workerId", not on "leaseUntil": renewals stay HOT.
CREATE INDEX "VerificationJob_running" ON public."VerificationJob" (id) WHERE "workerId" IS NOT NULL;

-- Waiting, running, ended: each version of a job is entered in the next two indexes anew, beside the one before. In
-- pages that the first versions had filled, each later one set Postgres off to look for dead ones among scattered rows,
-- and at last split the page: 17 % of what claim and outcome cost in a table that has been used. With a third of each
-- page the drain gains 5 % in a new table, 8 % in a used one (45: 5 and 1). After vacuum a row takes 93 and 120 bytes
-- here; by those splits it was 60 and 77.
ALTER INDEX public."VerificationJob_pkey" SET (fillfactor = 30);
-- The newest jobs (HTTP list, the operators' first query) and, from the other end, retention.
CREATE INDEX "VerificationJob_newest" ON public."VerificationJob" ("createdAt", id) WITH (fillfactor = 30);

-- The operators' query for failed jobs, and ?status=failed.
CREATE INDEX "VerificationJob_failed" ON public."VerificationJob" ("createdAt", id) WHERE status = 'failed';
-- ?status=cancelled.
CREATE INDEX "VerificationJob_cancelled" ON public."VerificationJob" ("createdAt", id) WHERE status = 'cancelled';
-- Failures by cause: the operations page groups them, lists one group, and retries it. The cause is the code before the
-- colon, as in queue_errors; cut, because an index takes no long text and an error written by hand may have no colon.
CREATE INDEX "VerificationJob_failed_cause"
  ON public."VerificationJob" ((left(split_part(error, ':', 1), 100)), "completedAt", id) WHERE status = 'failed';

-- Jobs of one content. Content hashes are random: in an index by hash alone every job that ends changes a page of its
-- own, and after a checkpoint each such page goes whole into the log. Behind 5 million rows these were half of 28,000
-- pages for 20,000 jobs, and a quarter of the drain. Where the hashes of six hours lie together only their pages
-- change; a search looks twice per six hours of history: 0.6 ms at 5 million rows of a week.
CREATE FUNCTION public.iidq_content_span(at timestamptz) RETURNS timestamptz LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT date_bin('6 hours', at, '2000-01-01 00:00:00Z')
$$;

-- 60 bits of the hash find the row, which tells whether it is the one. Ended rows alone, so that a job is entered once
-- and not at each of its three versions (13 % of the drain); unfinished ones are found through the small indexes above.
-- The expression names "completedAt", which changes when a job ends: it says that the entry is new. Otherwise Postgres
-- takes it for another version of one that is there, and looks for dead ones in each full page before it splits it.
CREATE INDEX "VerificationJob_content" ON public."VerificationJob"
  (public.iidq_content_span("createdAt"),
   (CASE WHEN "completedAt" IS NOT NULL THEN substr("contentHash", 3, 15) END COLLATE "C"))
  WHERE "completedAt" IS NOT NULL;

-- Newest first: spans from the latest to the earliest, each found from the one before it. Plain SQL with nothing set,
-- so that it becomes part of the query around it, whose LIMIT then ends the search. The order is that of a nested loop,
-- which LATERAL allows nothing but: it must neither be marked as parallel-safe nor lose its inner ORDER BY.
CREATE FUNCTION public.iidq_ended_jobs_of(content_hash text, until timestamptz DEFAULT 'infinity')
RETURNS SETOF public."VerificationJob" LANGUAGE sql STABLE AS $$
  WITH RECURSIVE span AS (
    (SELECT public.iidq_content_span("createdAt") AS began FROM public."VerificationJob"
     WHERE "completedAt" IS NOT NULL AND public.iidq_content_span("createdAt") <= public.iidq_content_span(until)
     ORDER BY public.iidq_content_span("createdAt") DESC LIMIT 1)
    UNION ALL
    SELECT (
      SELECT public.iidq_content_span("createdAt") FROM public."VerificationJob"
      WHERE "completedAt" IS NOT NULL AND public.iidq_content_span("createdAt") < span.began
      ORDER BY public.iidq_content_span("createdAt") DESC LIMIT 1
    ) FROM span WHERE span.began IS NOT NULL
  )
  SELECT job.* FROM span CROSS JOIN LATERAL (
    SELECT * FROM public."VerificationJob"
    WHERE "completedAt" IS NOT NULL AND public.iidq_content_span("createdAt") = span.began
      AND CASE WHEN "completedAt" IS NOT NULL THEN substr("contentHash", 3, 15) END COLLATE "C"
        = substr(content_hash, 3, 15)
      AND "contentHash" = content_hash
      AND "createdAt" <= until
    ORDER BY "createdAt" DESC, id DESC
  ) AS job
$$;
COMMENT ON FUNCTION public.iidq_ended_jobs_of(text, timestamptz) IS
  'The jobs of one content that have ended, newest first, and were asked for no later than "until".';
