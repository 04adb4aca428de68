DROP TABLE "VerificationJob";
DROP DOMAIN job_type;
DROP DOMAIN content_hash;
DROP DOMAIN contract_address;
DROP DOMAIN chain_id;
DROP FUNCTION verification_job_set_ready();
DROP FUNCTION verification_job_announce();
DROP FUNCTION new_job_id();
