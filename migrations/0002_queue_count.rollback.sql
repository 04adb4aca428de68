DROP TRIGGER verification_job_counted_insert ON "VerificationJob";
DROP TRIGGER verification_job_counted_update ON "VerificationJob";
DROP TRIGGER verification_job_counted_delete ON "VerificationJob";
DROP TRIGGER verification_job_truncated ON "VerificationJob";
DROP FUNCTION verification_job_truncated();
DROP FUNCTION verification_job_count();
DROP FUNCTION recount_queue();
DROP FUNCTION queue_state(text, boolean);
DROP TABLE queue_count;
DROP TRIGGER verification_job_inserted ON "VerificationJob";
CREATE TRIGGER verification_job_inserted AFTER INSERT ON "VerificationJob"
  FOR EACH STATEMENT WHEN (current_setting('iidq.announce', true) IS DISTINCT FROM 'off')
  EXECUTE FUNCTION verification_job_announce();
