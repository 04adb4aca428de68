ALTER TABLE "VerificationJob" DROP COLUMN "traceContext";
