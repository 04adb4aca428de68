-- transactional: false
DROP INDEX CONCURRENTLY IF EXISTS "VerificationJob_ended_content";
CREATE INDEX CONCURRENTLY "VerificationJob_ended_content" ON "VerificationJob"
  (content_span("createdAt"), (substr("contentHash", 3, 15) COLLATE "C")) WHERE "completedAt" IS NOT NULL;

CREATE OR REPLACE FUNCTION ended_jobs_of(content_hash text, until timestamptz DEFAULT 'infinity')
RETURNS SETOF "VerificationJob" LANGUAGE sql STABLE AS $$
  WITH RECURSIVE span AS (
    (SELECT content_span("createdAt") AS began FROM "VerificationJob"
     WHERE "completedAt" IS NOT NULL AND content_span("createdAt") <= content_span(until)
     ORDER BY content_span("createdAt") DESC LIMIT 1)
    UNION ALL
    SELECT (
      SELECT content_span("createdAt") FROM "VerificationJob"
      WHERE "completedAt" IS NOT NULL AND content_span("createdAt") < span.began
      ORDER BY content_span("createdAt") DESC LIMIT 1
    ) FROM span WHERE span.began IS NOT NULL
  )
  SELECT job.* FROM span CROSS JOIN LATERAL (
    SELECT * FROM "VerificationJob"
    WHERE "completedAt" IS NOT NULL AND content_span("createdAt") = span.began
      AND substr("contentHash", 3, 15) COLLATE "C" = substr(content_hash, 3, 15) AND "contentHash" = content_hash
      AND "createdAt" <= until
    ORDER BY "createdAt" DESC, id DESC
  ) AS job
$$;

DROP INDEX CONCURRENTLY IF EXISTS "VerificationJob_content";
