-- The index of contents is told that each of its entries is the first.
-- depends: 0017_room_in_indexes
-- transactional: false

-- See 0012_ended_content. Where an UPDATE leaves an index' columns as they were, Postgres takes a new entry for another
-- version of one that is there, and looks for dead ones in each full page before it splits it: in vain here, where a
-- job is entered once, when it ends. Of 20,000 jobs 500 to 850 set off such a search, which reads rows all over the
-- table (4 % of the drain behind 300,000 rows). An expression that names "completedAt", which changes then, says that
-- it is new.
DROP INDEX CONCURRENTLY IF EXISTS "VerificationJob_content";
CREATE INDEX CONCURRENTLY "VerificationJob_content" ON "VerificationJob"
  (content_span("createdAt"), (CASE WHEN "completedAt" IS NOT NULL THEN substr("contentHash", 3, 15) END COLLATE "C"))
  WHERE "completedAt" IS NOT NULL;

CREATE OR REPLACE FUNCTION public.ended_jobs_of(content_hash text, until timestamptz DEFAULT 'infinity')
RETURNS SETOF public."VerificationJob" LANGUAGE sql STABLE AS $$
  WITH RECURSIVE span AS (
    (SELECT public.content_span("createdAt") AS began FROM public."VerificationJob"
     WHERE "completedAt" IS NOT NULL AND public.content_span("createdAt") <= public.content_span(until)
     ORDER BY public.content_span("createdAt") DESC LIMIT 1)
    UNION ALL
    SELECT (
      SELECT public.content_span("createdAt") FROM public."VerificationJob"
      WHERE "completedAt" IS NOT NULL AND public.content_span("createdAt") < span.began
      ORDER BY public.content_span("createdAt") DESC LIMIT 1
    ) FROM span WHERE span.began IS NOT NULL
  )
  SELECT job.* FROM span CROSS JOIN LATERAL (
    SELECT * FROM public."VerificationJob"
    WHERE "completedAt" IS NOT NULL AND public.content_span("createdAt") = span.began
      AND CASE WHEN "completedAt" IS NOT NULL THEN substr("contentHash", 3, 15) END COLLATE "C"
        = substr(content_hash, 3, 15)
      AND "contentHash" = content_hash
      AND "createdAt" <= until
    ORDER BY "createdAt" DESC, id DESC
  ) AS job
$$;

DROP INDEX CONCURRENTLY IF EXISTS "VerificationJob_ended_content";
