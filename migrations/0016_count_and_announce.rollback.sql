CREATE OR REPLACE FUNCTION verification_job_count() RETURNS trigger LANGUAGE plpgsql AS $$
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

ALTER FUNCTION verification_job_count() SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp;

CREATE FUNCTION verification_job_announce() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM pg_notify('iidq_jobs', '');
  RETURN NULL;
END $$;

CREATE TRIGGER verification_job_inserted AFTER INSERT ON "VerificationJob"
  FOR EACH STATEMENT WHEN (current_setting('iidq.writer', true) IS DISTINCT FROM 'on')
  EXECUTE FUNCTION verification_job_announce();

COMMENT ON FUNCTION verification_job_count() IS NULL;
