-- Room for a job's three versions in the indexes that all of them enter, and no statistics that no plan reads.
-- depends: 0016_count_and_announce

-- Waiting, running, ended: each version is entered here anew, beside the one before. In pages that the first versions
-- had filled, each later one set Postgres off to look for dead ones among scattered rows, and at last split the page:
-- 17 % of what claim and outcome cost in a table that has been used. With a third of each page the drain gains 5 % in a
-- new table, 8 % in a used one (45: 5 and 1). After vacuum a row takes 93 and 120 bytes here; by those splits it was 60
-- and 77. Pages that are there stay as they are.
ALTER INDEX "VerificationJob_pkey" SET (fillfactor = 30);
ALTER INDEX "VerificationJob_newest" SET (fillfactor = 30);

-- Each ANALYZE sorted the results of 30,000 rows: 0.2 s of a core, some once a minute.
ALTER TABLE "VerificationJob"
  ALTER result SET STATISTICS 0, ALTER errors SET STATISTICS 0, ALTER "manifestUri" SET STATISTICS 0,
  ALTER "rpcUrl" SET STATISTICS 0, ALTER "fileName" SET STATISTICS 0, ALTER "traceContext" SET STATISTICS 0;
