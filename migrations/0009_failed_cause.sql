-- Failures by cause: the operations page groups them, lists one group, and retries it.
-- depends: 0006_webhooks
-- transactional: false

-- What a build that was broken off has left behind.
DROP INDEX CONCURRENTLY IF EXISTS "VerificationJob_failed_cause";

-- Of failed rows alone, so no other write pays for it. The cause is the code before the colon, as in queue_errors; cut,
-- because an index takes no long text and an error written by hand may have no colon.
CREATE INDEX CONCURRENTLY "VerificationJob_failed_cause"
  ON "VerificationJob" ((left(split_part(error, ':', 1), 100)), "completedAt", id) WHERE status = 'failed';
