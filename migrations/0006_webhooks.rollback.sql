DROP FUNCTION callback_state(uuid);
DROP TRIGGER verification_job_callback_update ON "VerificationJob";
DROP TRIGGER verification_job_callback_delete ON "VerificationJob";
DROP TRIGGER verification_job_callback_truncate ON "VerificationJob";
DROP FUNCTION webhook_delivery_follow();
DROP TABLE webhook_delivery;
ALTER TABLE "VerificationJob" DROP COLUMN "hasCallback";
