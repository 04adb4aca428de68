-- Jobs of one content, by an index whose upkeep costs the same at any length of the history.
-- depends: 0011_enqueue
-- transactional: false

-- Content hashes are random: in an index by hash alone every job that ends changes a page of its own, and after a
-- checkpoint each such page goes whole into the log. Behind 5 million rows these were half of 28,000 pages for 20,000
-- jobs, and a quarter of the drain. Where the hashes of six hours lie together only their pages change; a search looks
-- twice per six hours of history: 0.6 ms at 5 million rows of a week. Each statement bears repetition, should a build be
-- broken off. Nothing has been released that needs the old index.
CREATE OR REPLACE FUNCTION content_span(at timestamptz) RETURNS timestamptz LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT date_bin('6 hours', at, '2000-01-01 00:00:00Z')
$$;

-- What a build that was broken off has left behind.
DROP INDEX CONCURRENTLY IF EXISTS "VerificationJob_ended_content";

-- 60 bits of the hash find the row, which tells whether it is the one. Ended rows alone, so that a job is entered once
-- and not at each of its three versions (13 % of the drain); unfinished ones have small indexes of their own.
CREATE INDEX CONCURRENTLY "VerificationJob_ended_content" ON "VerificationJob"
  (content_span("createdAt"), (substr("contentHash", 3, 15) COLLATE "C")) WHERE "completedAt" IS NOT NULL;
DROP INDEX CONCURRENTLY IF EXISTS "VerificationJob_finished_content";

-- Newest first: spans from the latest to the earliest, each found from the one before it. Plain SQL with nothing set,
-- so that it becomes part of the query around it, whose LIMIT then ends the search. The order is that of a nested loop,
-- which LATERAL allows nothing but: it must neither be marked as parallel-safe nor lose its inner ORDER BY.
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

COMMENT ON FUNCTION ended_jobs_of(text, timestamptz) IS
  'The jobs of one content that have ended, newest first, and were asked for no later than "until".';
