-- transactional: false
DROP INDEX CONCURRENTLY IF EXISTS "VerificationJob_finished_content";
CREATE INDEX CONCURRENTLY "VerificationJob_finished_content" ON "VerificationJob" USING hash ("contentHash")
  WHERE "completedAt" IS NOT NULL;
DROP FUNCTION IF EXISTS ended_jobs_of(text, timestamptz);
DROP INDEX CONCURRENTLY IF EXISTS "VerificationJob_ended_content";
DROP FUNCTION IF EXISTS content_span(timestamptz);
