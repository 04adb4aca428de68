-- Pause and resume, cancel and retry, and the live workers.
-- depends: 0004_enqueue

CREATE TABLE public.iidq_queue_control (
  only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
  "pausedAt" timestamptz, "pauseReason" text, "upkeepAt" timestamptz, "countedAt" timestamptz,
  CONSTRAINT iidq_queue_control_reason_needs_pause CHECK ("pausedAt" IS NOT NULL OR "pauseReason" IS NULL),
  CONSTRAINT iidq_queue_control_time_range CHECK (least("pausedAt", "upkeepAt", "countedAt") >= '0002-01-01 00:00:00Z'
    AND greatest("pausedAt", "upkeepAt", "countedAt") < '9999-01-01 00:00:00Z')
) WITH (fillfactor = 50);
INSERT INTO public.iidq_queue_control DEFAULT VALUES;
COMMENT ON TABLE public.iidq_queue_control IS 'One row: whether the queue is paused, and when upkeep was last done.';
COMMENT ON COLUMN public.iidq_queue_control.only_row IS 'always true: there is one queue';
COMMENT ON COLUMN public.iidq_queue_control."pausedAt" IS 'since when no job is claimed; null while the queue runs';
COMMENT ON COLUMN public.iidq_queue_control."pauseReason" IS 'the reason given to pause_queue';
COMMENT ON COLUMN public.iidq_queue_control."upkeepAt" IS 'when a worker last swept: expired leases, due retries, counts';
COMMENT ON COLUMN public.iidq_queue_control."countedAt" IS 'when all jobs were last counted; null: upkeep or `iidq migrate` has to do it';

-- Merge the row of another database, from a dump or a subscription, with the present row. All jobs are counted again,
-- because triggers may have counted them on top of the imported counts.
CREATE FUNCTION public.iidq_take_control() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
  UPDATE public.iidq_queue_control
  SET "countedAt" = NULL, "pausedAt" = coalesce("pausedAt", NEW."pausedAt"),
      "pauseReason" = CASE WHEN "pausedAt" IS NULL THEN NEW."pauseReason" ELSE "pauseReason" END;
  IF FOUND THEN RETURN NULL; END IF;
  NEW."countedAt" := NULL;
  RETURN NEW;
END $$;
CREATE TRIGGER iidq_taken BEFORE INSERT ON public.iidq_queue_control FOR EACH ROW EXECUTE FUNCTION public.iidq_take_control();
ALTER TABLE public.iidq_queue_control ENABLE ALWAYS TRIGGER iidq_taken;
REVOKE EXECUTE ON FUNCTION public.iidq_take_control() FROM PUBLIC; -- as in 0003_counts

-- Add the difference in one statement, which sees jobs and counts of one moment: no writer waits. The lock keeps two
-- recounts from adding twice.
CREATE FUNCTION public.iidq_recount_queue() RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
  PERFORM pg_advisory_xact_lock(hashtext('iidq.recount public'));
  -- Jobs before counts, as in every transaction.
  LOCK TABLE public."VerificationJob" IN ACCESS SHARE MODE;
  INSERT INTO public.iidq_queue_count (at, waiting, delayed, active, completed, failed, cancelled)
  SELECT '-infinity', jobs.waiting - coalesce(sum(counts.waiting), 0), jobs.delayed - coalesce(sum(counts.delayed), 0),
    jobs.active - coalesce(sum(counts.active), 0), jobs.completed - coalesce(sum(counts.completed), 0),
    jobs.failed - coalesce(sum(counts.failed), 0), jobs.cancelled - coalesce(sum(counts.cancelled), 0)
  FROM (
    SELECT count(*) FILTER (WHERE status = 'queued' AND ready) AS waiting,
      count(*) FILTER (WHERE status = 'queued' AND NOT ready) AS delayed,
      count(*) FILTER (WHERE status = 'processing') AS active, count(*) FILTER (WHERE status = 'completed') AS completed,
      count(*) FILTER (WHERE status = 'failed') AS failed, count(*) FILTER (WHERE status = 'cancelled') AS cancelled
    FROM public."VerificationJob"
  ) AS jobs LEFT JOIN public.iidq_queue_count AS counts ON true
  GROUP BY jobs.waiting, jobs.delayed, jobs.active, jobs.completed, jobs.failed, jobs.cancelled;
  -- While a pause is not committed, the row is locked, and upkeep counts once more.
  UPDATE public.iidq_queue_control SET "countedAt" = now() WHERE only_row = ANY (ARRAY (
    SELECT only_row FROM public.iidq_queue_control FOR UPDATE SKIP LOCKED));
END $$;
COMMENT ON FUNCTION public.iidq_recount_queue() IS 'Counts all jobs: after a load without triggers, or with triggers on top of imported counts.';

CREATE TABLE public.iidq_queue_worker (
  "workerId" text PRIMARY KEY,
  host text NOT NULL, pid integer NOT NULL, version text NOT NULL,
  concurrency integer NOT NULL, running integer NOT NULL, listening boolean NOT NULL,
  "startedAt" timestamptz NOT NULL DEFAULT now(), "seenAt" timestamptz NOT NULL DEFAULT now(),
  "aliveUntil" timestamptz NOT NULL,
  faults text[] NOT NULL DEFAULT '{}',
  CONSTRAINT iidq_queue_worker_time_range CHECK (least("startedAt", "seenAt", "aliveUntil") >= '0002-01-01 00:00:00Z'
    AND greatest("startedAt", "seenAt", "aliveUntil") < '9999-01-01 00:00:00Z')
) WITH (fillfactor = 50, autovacuum_vacuum_threshold = 200, autovacuum_vacuum_scale_factor = 0);
COMMENT ON TABLE public.iidq_queue_worker IS 'One row per worker process; updated at every poll.';
COMMENT ON COLUMN public.iidq_queue_worker."workerId" IS 'host:pid:random, new at every start, as in "VerificationJob"."workerId"';
COMMENT ON COLUMN public.iidq_queue_worker.host IS 'where it runs';
COMMENT ON COLUMN public.iidq_queue_worker.pid IS 'its process id there';
COMMENT ON COLUMN public.iidq_queue_worker.version IS 'of iidq';
COMMENT ON COLUMN public.iidq_queue_worker.concurrency IS 'jobs it runs at a time';
COMMENT ON COLUMN public.iidq_queue_worker.running IS 'jobs it ran when it was last seen';
COMMENT ON COLUMN public.iidq_queue_worker.listening IS 'whether inserts wake it; false: it polls';
COMMENT ON COLUMN public.iidq_queue_worker."startedAt" IS 'when it started';
COMMENT ON COLUMN public.iidq_queue_worker."seenAt" IS 'its last sign of life';
COMMENT ON COLUMN public.iidq_queue_worker."aliveUntil" IS 'counts as live until then: three of its polls';
COMMENT ON COLUMN public.iidq_queue_worker.faults IS 'obstacles that an operator has to remove: rights, settings';

-- Stop all claims; running jobs go on.
CREATE FUNCTION public.pause_queue(reason text DEFAULT NULL) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
  IF NOT EXISTS (SELECT FROM public.iidq_queue_control) THEN
    INSERT INTO public.iidq_queue_control DEFAULT VALUES ON CONFLICT DO NOTHING;
  END IF;
  UPDATE public.iidq_queue_control SET "pausedAt" = coalesce("pausedAt", now()), "pauseReason" = reason;
END $$;

CREATE FUNCTION public.resume_queue() RETURNS void LANGUAGE sql SET search_path = pg_catalog, public, pg_temp AS $$
  UPDATE public.iidq_queue_control SET "pausedAt" = NULL, "pauseReason" = NULL;
  SELECT pg_notify('iidq_jobs', 'rest');
$$;

-- End a job; a running attempt is interrupted. Return false for an ended job; raise P0002 for an unknown id.
CREATE FUNCTION public.cancel_job(job_id uuid) RETURNS boolean LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE was text;
BEGIN
  SELECT status INTO was FROM public."VerificationJob" WHERE id = job_id FOR UPDATE;
  IF NOT FOUND THEN RAISE EXCEPTION 'there is no job %', job_id USING ERRCODE = 'no_data_found';
  ELSIF was NOT IN ('queued', 'processing') THEN RETURN false;
  END IF;
  UPDATE public."VerificationJob"
  SET status = 'cancelled', ready = false, "completedAt" = now(), "updatedAt" = now(), error = NULL,
      "leaseUntil" = NULL, "workerId" = NULL
  WHERE id = job_id;
  IF was = 'processing' THEN PERFORM pg_notify('iidq_cancelled', job_id::text); END IF;
  RETURN true;
END $$;

-- Put an ended job back in line; attempt number and errors stay. Return false unless ended; raise P0002 for an unknown id.
CREATE FUNCTION public.retry_job(job_id uuid) RETURNS boolean LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE was text;
BEGIN
  SELECT status INTO was FROM public."VerificationJob" WHERE id = job_id FOR UPDATE;
  IF NOT FOUND THEN RAISE EXCEPTION 'there is no job %', job_id USING ERRCODE = 'no_data_found';
  ELSIF was NOT IN ('completed', 'failed', 'cancelled') THEN RETURN false;
  END IF;
  UPDATE public."VerificationJob"
  SET status = 'queued', ready = true, "runAt" = now(), progress = 0, "retryCount" = 0, result = NULL, error = NULL,
      "completedAt" = NULL, "startedAt" = NULL, "updatedAt" = now()
  WHERE id = job_id;
  PERFORM pg_notify('iidq_jobs', '');
  RETURN true;
END $$;
