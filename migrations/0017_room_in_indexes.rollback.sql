ALTER TABLE "VerificationJob"
  ALTER result SET STATISTICS -1, ALTER errors SET STATISTICS -1, ALTER "manifestUri" SET STATISTICS -1,
  ALTER "rpcUrl" SET STATISTICS -1, ALTER "fileName" SET STATISTICS -1, ALTER "traceContext" SET STATISTICS -1;
ALTER INDEX "VerificationJob_newest" RESET (fillfactor);
ALTER INDEX "VerificationJob_pkey" RESET (fillfactor);
