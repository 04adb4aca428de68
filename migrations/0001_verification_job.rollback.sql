DROP TABLE "VerificationJob";
DROP FUNCTION verification_job_set_ready();
DROP FUNCTION verification_job_announce();
DROP FUNCTION new_job_id();
