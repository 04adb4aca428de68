-- transactional: false
DROP INDEX "VerificationJob_failed_cause";
