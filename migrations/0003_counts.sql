-- Counts of jobs per state, fast at any size; checks and counts of rows that plain SQL writes.
-- depends: 0002_job_indexes

-- Append-only, so that no writer waits for a shared counter. Upkeep folds the rows to one per minute and a total.
CREATE TABLE public.iidq_queue_count (
  at timestamptz NOT NULL DEFAULT now(),
  -- Numbers of jobs in a state.
  waiting bigint NOT NULL DEFAULT 0, delayed bigint NOT NULL DEFAULT 0, active bigint NOT NULL DEFAULT 0,
  completed bigint NOT NULL DEFAULT 0, failed bigint NOT NULL DEFAULT 0, cancelled bigint NOT NULL DEFAULT 0,
  -- Events, for the throughput.
  enqueued bigint NOT NULL DEFAULT 0, succeeded bigint NOT NULL DEFAULT 0, gave_up bigint NOT NULL DEFAULT 0
) WITH (autovacuum_vacuum_threshold = 500, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_cost_delay = 0);
-- For publications, which refuse to delete from a table without identity. A key would cost every write an index entry.
ALTER TABLE public.iidq_queue_count REPLICA IDENTITY FULL;
COMMENT ON TABLE public.iidq_queue_count IS 'Changes of the number of jobs per state; the sum over all rows is the present number. Kept by iidq and, for other writers, by triggers.';
COMMENT ON COLUMN public.iidq_queue_count.at IS 'when; folded to the minute, and to -infinity after an hour';
COMMENT ON COLUMN public.iidq_queue_count.waiting IS 'change of: queued and due';
COMMENT ON COLUMN public.iidq_queue_count.delayed IS 'change of: queued for later (backoff, future)';
COMMENT ON COLUMN public.iidq_queue_count.active IS 'change of: processing';
COMMENT ON COLUMN public.iidq_queue_count.completed IS 'change of: completed';
COMMENT ON COLUMN public.iidq_queue_count.failed IS 'change of: failed';
COMMENT ON COLUMN public.iidq_queue_count.cancelled IS 'change of: cancelled';
COMMENT ON COLUMN public.iidq_queue_count.enqueued IS 'jobs asked for';
COMMENT ON COLUMN public.iidq_queue_count.succeeded IS 'jobs completed';
COMMENT ON COLUMN public.iidq_queue_count.gave_up IS 'jobs failed';

CREATE FUNCTION public.iidq_queue_state(status text, ready boolean) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT CASE status WHEN 'queued' THEN CASE WHEN ready THEN 'waiting' ELSE 'delayed' END
                     WHEN 'processing' THEN 'active' ELSE status END
$$;

-- The rules that a row breaks, each "name: rule". Every client can hold these times, and counters leave room for "+ 1".
-- A test of the length is cheaper than {64} in a pattern. Documents are measured as text, as clients get them.
CREATE FUNCTION public.iidq_broken_rules(job public."VerificationJob") RETURNS text[] LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
  RETURN array_remove(ARRAY[
    CASE WHEN job.type NOT IN ('verify', 'proof') THEN 'VerificationJob_type_known: type is verify or proof' END,
    CASE WHEN length(job."contentHash") <> 66 OR job."contentHash" !~ '^0x[0-9a-f]*$'
      THEN 'VerificationJob_contentHash_form: "contentHash" is 0x and 64 lower-case hex digits' END,
    CASE WHEN length(job."registryAddress") <> 42 OR job."registryAddress" !~ '^0x[0-9a-fA-F]*$'
      THEN 'VerificationJob_address_form: "registryAddress" is 0x and 40 hex digits' END,
    CASE WHEN job."chainId" <= 0 THEN 'VerificationJob_chainId_range: "chainId" is above 0' END,
    CASE WHEN job."maxAttempts" NOT BETWEEN 1 AND 100 THEN 'VerificationJob_attempts_range: "maxAttempts" is 1 to 100' END,
    CASE WHEN job.progress NOT BETWEEN 0 AND 100 THEN 'VerificationJob_progress_range: progress is 0 to 100' END,
    CASE WHEN job."traceContext" !~ '^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$'
      THEN 'VerificationJob_traceContext_form: "traceContext" is a traceparent of W3C Trace Context' END,
    CASE WHEN least(job."createdAt", job."updatedAt", job."runAt", job."startedAt", job."completedAt", job."leaseUntil")
          < '0002-01-01 00:00:00Z'
        OR greatest(job."createdAt", job."updatedAt", job."runAt", job."startedAt", job."completedAt", job."leaseUntil")
          >= '9999-01-01 00:00:00Z'
      THEN 'VerificationJob_time_range: times are of the years 2 to 9998' END,
    CASE WHEN job.attempt NOT BETWEEN 0 AND 1000000000 OR job."retryCount" NOT BETWEEN 0 AND 1000000000
      THEN 'VerificationJob_counter_range: attempt and "retryCount" are 0 to a billion' END,
    CASE WHEN octet_length(job.result::text) > 2097152 THEN 'VerificationJob_result_size: result takes at most 2 MiB' END,
    CASE WHEN job.errors = '[]' THEN NULL
      WHEN jsonb_typeof(job.errors) <> 'array' THEN 'VerificationJob_errors_form: errors is an array'
      -- Strict, because a lax path looks into arrays within the array.
      WHEN jsonb_array_length(job.errors) > 20 OR octet_length(job.errors::text) > 2097152
          OR jsonb_path_exists(job.errors, 'strict $[*] ? (@.type() != "object")')
        THEN 'VerificationJob_errors_form: errors is an array of at most 20 objects, 2 MiB in all' END
  ], NULL);
END $$;

-- iidq's own statements check and count for themselves, and set iidq.writer for the transaction. The WHEN clauses read
-- no row, to stay off the hot path. One trigger, because each costs an insert even unfired. AFTER, because a BEFORE
-- UPDATE trigger locks and logs each row by itself.
CREATE FUNCTION public.iidq_note_change() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
  broken text[];
  was text := CASE TG_OP WHEN 'INSERT' THEN '' ELSE public.iidq_queue_state(OLD.status, OLD.ready) END;
  is_now text := CASE TG_OP WHEN 'DELETE' THEN '' ELSE public.iidq_queue_state(NEW.status, NEW.ready) END;
BEGIN
  IF current_setting('iidq.writer', true) = 'on' THEN
    -- A row of iidq, delayed by a default or trigger of the operator.
    UPDATE public."VerificationJob" SET ready = false WHERE id = NEW.id;
    INSERT INTO public.iidq_queue_count (waiting, delayed) VALUES (-1, 1);
    RETURN NULL;
  END IF;
  IF TG_OP <> 'DELETE' THEN broken := public.iidq_broken_rules(NEW); END IF;
  IF broken <> '{}' AND TG_OP = 'UPDATE' THEN
    -- A row loaded without triggers may break rules, and its job must still be able to end.
    broken := ARRAY (SELECT unnest(broken) EXCEPT SELECT unnest(public.iidq_broken_rules(OLD)));
  END IF;
  IF broken <> '{}' THEN
    RAISE check_violation USING MESSAGE = split_part(broken[1], ': ', 2), CONSTRAINT = split_part(broken[1], ': ', 1),
      SCHEMA = TG_TABLE_SCHEMA, TABLE = TG_TABLE_NAME;
  END IF;
  IF was <> is_now THEN
    INSERT INTO public.iidq_queue_count (waiting, delayed, active, completed, failed, cancelled, enqueued, succeeded, gave_up)
    VALUES (
      (is_now = 'waiting')::int - (was = 'waiting')::int, (is_now = 'delayed')::int - (was = 'delayed')::int,
      (is_now = 'active')::int - (was = 'active')::int, (is_now = 'completed')::int - (was = 'completed')::int,
      (is_now = 'failed')::int - (was = 'failed')::int, (is_now = 'cancelled')::int - (was = 'cancelled')::int,
      -- A row inserted as finished is history and no event.
      (was = '' AND is_now IN ('waiting', 'delayed'))::int,
      (is_now = 'completed' AND was <> '')::int, (is_now = 'failed' AND was <> '')::int);
  END IF;
  IF was <> is_now AND is_now IN ('waiting', 'delayed') THEN PERFORM pg_notify('iidq_jobs', ''); END IF;
  -- A row with a future time leaves the claim's index. The trigger counts this update, too.
  IF is_now = 'waiting' AND NEW."runAt" > now() THEN
    UPDATE public."VerificationJob" SET ready = false WHERE id = NEW.id AND ready AND "runAt" > now();
  END IF;
  RETURN NULL;
END $$;
COMMENT ON FUNCTION public.iidq_note_change() IS 'For rows that plain SQL changes: checks and counts them, and wakes a worker for those that come in line.';

CREATE TRIGGER iidq_inserted AFTER INSERT ON public."VerificationJob"
  FOR EACH ROW WHEN (current_setting('iidq.writer', true) IS DISTINCT FROM 'on' OR NEW.ready AND NEW."runAt" > now())
  EXECUTE FUNCTION public.iidq_note_change();
CREATE TRIGGER iidq_updated AFTER UPDATE OF status, ready, type, "contentHash", "registryAddress", "chainId", "maxAttempts",
    progress, "traceContext", "createdAt", "updatedAt", "runAt", "startedAt", "completedAt", "leaseUntil", attempt,
    "retryCount", result, errors ON public."VerificationJob"
  FOR EACH ROW WHEN (current_setting('iidq.writer', true) IS DISTINCT FROM 'on') EXECUTE FUNCTION public.iidq_note_change();
CREATE TRIGGER iidq_deleted AFTER DELETE ON public."VerificationJob"
  FOR EACH ROW WHEN (current_setting('iidq.writer', true) IS DISTINCT FROM 'on') EXECUTE FUNCTION public.iidq_note_change();

-- SECURITY DEFINER, because a role may have TRUNCATE on the jobs and no right to the counts. The fixed path keeps out a
-- caller's temporary table of the same name.
CREATE FUNCTION public.iidq_note_truncate() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
  TRUNCATE public.iidq_queue_count; -- also the rows that the transaction's snapshot does not show
  RETURN NULL;
EXCEPTION WHEN object_in_use THEN -- the same TRUNCATE names iidq_queue_count and has emptied it
  DELETE FROM public.iidq_queue_count;
  RETURN NULL;
END $$;
CREATE TRIGGER iidq_truncated AFTER TRUNCATE ON public."VerificationJob"
  FOR EACH STATEMENT EXECUTE FUNCTION public.iidq_note_truncate();

-- So that no role can put these functions on a table of its own.
REVOKE EXECUTE ON FUNCTION public.iidq_note_change(), public.iidq_note_truncate() FROM PUBLIC;
