-- How many jobs stand in each state, kept by the database and read in a millisecond at any size of the history.
-- depends: 0001_verification_job

-- Append-only: writers add a row of changes and never wait for one another, as they would on a shared counter.
-- A count is the sum over all rows; upkeep folds them, one row per minute of the last hour and one for all before.
CREATE TABLE queue_count (
  at        timestamptz NOT NULL DEFAULT now(),
  waiting   bigint NOT NULL DEFAULT 0,
  delayed   bigint NOT NULL DEFAULT 0,
  active    bigint NOT NULL DEFAULT 0,
  completed bigint NOT NULL DEFAULT 0,
  failed    bigint NOT NULL DEFAULT 0,
  cancelled bigint NOT NULL DEFAULT 0,
  -- Events, for the throughput: these only grow.
  enqueued  bigint NOT NULL DEFAULT 0,
  succeeded bigint NOT NULL DEFAULT 0,
  gave_up   bigint NOT NULL DEFAULT 0
) WITH (autovacuum_vacuum_threshold = 500, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_cost_delay = 0);

-- A publication refuses to delete from a table whose rows nothing tells apart. Whole rows do, and only where changes are
-- published does that cost anything; a key would cost each enqueue, claim and outcome an entry of its index.
ALTER TABLE queue_count REPLICA IDENTITY FULL;

COMMENT ON TABLE queue_count IS 'Changes of the number of jobs per state; the sum over all rows is the present number. Kept by iidq and, for other writers, by triggers.';
COMMENT ON COLUMN queue_count.at IS 'when; folded to the minute, and to -infinity after an hour';
COMMENT ON COLUMN queue_count.waiting IS 'change of: queued and due';
COMMENT ON COLUMN queue_count.delayed IS 'change of: queued for later (backoff, future)';
COMMENT ON COLUMN queue_count.active IS 'change of: processing';
COMMENT ON COLUMN queue_count.completed IS 'change of: completed';
COMMENT ON COLUMN queue_count.failed IS 'change of: failed';
COMMENT ON COLUMN queue_count.cancelled IS 'change of: cancelled';
COMMENT ON COLUMN queue_count.enqueued IS 'jobs asked for';
COMMENT ON COLUMN queue_count.succeeded IS 'jobs completed';
COMMENT ON COLUMN queue_count.gave_up IS 'jobs failed';

-- What one row counts as.
CREATE FUNCTION queue_state(status text, ready boolean) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT CASE status WHEN 'queued' THEN CASE WHEN ready THEN 'waiting' ELSE 'delayed' END
                     WHEN 'processing' THEN 'active' ELSE status END
$$;

-- iidq's own statements count for themselves (one row per batch) and say so with the transaction-local setting
-- iidq.writer; for everybody else these triggers count row by row. The WHEN clauses keep them off the hot path.
CREATE FUNCTION verification_job_count() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  was text := CASE TG_OP WHEN 'INSERT' THEN '' ELSE queue_state(OLD.status, OLD.ready) END;
  is_now text := CASE TG_OP WHEN 'DELETE' THEN '' ELSE queue_state(NEW.status, NEW.ready) END;
BEGIN
  IF was = is_now THEN
    RETURN NULL;
  END IF;
  INSERT INTO queue_count (waiting, delayed, active, completed, failed, cancelled, enqueued, succeeded, gave_up)
  VALUES (
    (is_now = 'waiting')::int - (was = 'waiting')::int, (is_now = 'delayed')::int - (was = 'delayed')::int,
    (is_now = 'active')::int - (was = 'active')::int, (is_now = 'completed')::int - (was = 'completed')::int,
    (is_now = 'failed')::int - (was = 'failed')::int, (is_now = 'cancelled')::int - (was = 'cancelled')::int,
    -- A row that is inserted as finished is history, not an event of now.
    (was = '' AND is_now IN ('waiting', 'delayed'))::int,
    (is_now = 'completed' AND was <> '')::int, (is_now = 'failed' AND was <> '')::int);
  RETURN NULL;
END $$;

DROP TRIGGER verification_job_inserted ON "VerificationJob";
CREATE TRIGGER verification_job_inserted AFTER INSERT ON "VerificationJob"
  FOR EACH STATEMENT WHEN (current_setting('iidq.writer', true) IS DISTINCT FROM 'on')
  EXECUTE FUNCTION verification_job_announce();
CREATE TRIGGER verification_job_counted_insert AFTER INSERT ON "VerificationJob"
  FOR EACH ROW WHEN (current_setting('iidq.writer', true) IS DISTINCT FROM 'on')
  EXECUTE FUNCTION verification_job_count();
CREATE TRIGGER verification_job_counted_update AFTER UPDATE OF status, ready, "runAt" ON "VerificationJob"
  FOR EACH ROW WHEN (current_setting('iidq.writer', true) IS DISTINCT FROM 'on')
  EXECUTE FUNCTION verification_job_count();
CREATE TRIGGER verification_job_counted_delete AFTER DELETE ON "VerificationJob"
  FOR EACH ROW WHEN (current_setting('iidq.writer', true) IS DISTINCT FROM 'on')
  EXECUTE FUNCTION verification_job_count();

-- Counts anew, for after a bulk load that went round the triggers. Writers wait meanwhile.
CREATE FUNCTION recount_queue() RETURNS void LANGUAGE sql SET search_path = pg_catalog, public, pg_temp AS $$
  LOCK TABLE "VerificationJob" IN SHARE MODE;
  DELETE FROM queue_count;
  INSERT INTO queue_count (at, waiting, delayed, active, completed, failed, cancelled)
  SELECT '-infinity',
    count(*) FILTER (WHERE status = 'queued' AND ready), count(*) FILTER (WHERE status = 'queued' AND NOT ready),
    count(*) FILTER (WHERE status = 'processing'), count(*) FILTER (WHERE status = 'completed'),
    count(*) FILTER (WHERE status = 'failed'), count(*) FILTER (WHERE status = 'cancelled')
  FROM "VerificationJob";
$$;

CREATE FUNCTION verification_job_truncated() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  -- As the jobs' own TRUNCATE it removes every row, also those that this transaction's snapshot does not show.
  TRUNCATE queue_count;
  RETURN NULL;
EXCEPTION WHEN object_in_use THEN
  -- The same TRUNCATE names queue_count, too, and has emptied it.
  DELETE FROM queue_count;
  RETURN NULL;
END $$;
CREATE TRIGGER verification_job_truncated AFTER TRUNCATE ON "VerificationJob"
  FOR EACH STATEMENT EXECUTE FUNCTION verification_job_truncated();

-- Counting is done with the owner's rights: whoever may change jobs need not be let at the counts. The path is fixed,
-- lest a caller's temporary table of the same name be written with those rights.
ALTER FUNCTION verification_job_count() SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp;
ALTER FUNCTION verification_job_truncated() SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp;
DO $$
BEGIN
  PERFORM recount_queue();
END $$;
