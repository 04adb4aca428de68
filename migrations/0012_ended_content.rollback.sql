DROP FUNCTION ended_jobs_of(text, timestamptz);
DROP INDEX "VerificationJob_ended_content";
DROP FUNCTION content_span(timestamptz);
CREATE INDEX "VerificationJob_finished_content" ON "VerificationJob" USING hash ("contentHash")
  WHERE "completedAt" IS NOT NULL;
