-- Webhooks: the end of a job with a callbackUrl is an event, stored until delivered or given up.
-- depends: 0006_views

-- Triggers replace a foreign key, which would cost each update of a job a look-up and forbid TRUNCATE.
CREATE TABLE public.iidq_webhook_delivery (
  "jobId" uuid PRIMARY KEY,
  "eventId" uuid NOT NULL DEFAULT public.iidq_new_job_id(),
  "createdAt" timestamptz NOT NULL DEFAULT now(), "nextAt" timestamptz, "deliveredAt" timestamptz,
  attempts integer NOT NULL DEFAULT 0 CHECK (attempts BETWEEN 0 AND 1000000000), "lastStatus" integer,
  state text NOT NULL DEFAULT 'waiting',
  url text NOT NULL, host text NOT NULL GENERATED ALWAYS AS (lower(substring(url FROM '^[^:]+://([^/?#]*)'))) STORED,
  "lastError" text,
  CONSTRAINT iidq_webhook_delivery_state_known CHECK (state IN ('waiting', 'pending', 'delivered', 'gave_up')),
  CONSTRAINT iidq_webhook_delivery_next_is_for_pending CHECK ((state = 'pending') = ("nextAt" IS NOT NULL)),
  CONSTRAINT iidq_webhook_delivery_time_is_for_delivered CHECK ((state = 'delivered') = ("deliveredAt" IS NOT NULL)),
  CONSTRAINT iidq_webhook_delivery_time_range CHECK (least("createdAt", "nextAt", "deliveredAt") >= '0002-01-01 00:00:00Z'
    AND greatest("createdAt", "nextAt", "deliveredAt") < '9999-01-01 00:00:00Z')
) WITH (fillfactor = 80, autovacuum_vacuum_threshold = 500, autovacuum_vacuum_scale_factor = 0.01);

-- Due and next deliveries, also per host, so that one that hangs does not hide the others.
CREATE INDEX iidq_webhook_delivery_due ON public.iidq_webhook_delivery ("nextAt", host) WHERE state = 'pending';
CREATE INDEX iidq_webhook_delivery_due_by_host ON public.iidq_webhook_delivery (host, "nextAt") WHERE state = 'pending';
-- Jobs with a callback that have yet to end.
CREATE INDEX iidq_webhook_delivery_waiting ON public.iidq_webhook_delivery ("jobId") WHERE state = 'waiting';
COMMENT ON TABLE public.iidq_webhook_delivery IS 'One row per job that named a callbackUrl: the receiver of its end and the state of the delivery.';
COMMENT ON COLUMN public.iidq_webhook_delivery."jobId" IS 'the job; the row goes with it';
COMMENT ON COLUMN public.iidq_webhook_delivery."eventId" IS 'the header webhook-id: the same at every attempt, new at every end of the job';
COMMENT ON COLUMN public.iidq_webhook_delivery."createdAt" IS 'when the job was asked for';
COMMENT ON COLUMN public.iidq_webhook_delivery."nextAt" IS 'pending: the next attempt; while one runs, when another worker may try';
COMMENT ON COLUMN public.iidq_webhook_delivery."deliveredAt" IS 'when the receiver answered 2xx';
COMMENT ON COLUMN public.iidq_webhook_delivery.attempts IS 'begun so far, for this end of the job';
COMMENT ON COLUMN public.iidq_webhook_delivery."lastStatus" IS 'HTTP status of the last answer; null where there was none';
COMMENT ON COLUMN public.iidq_webhook_delivery.state IS 'waiting (the job has not ended), pending, delivered, gave_up';
COMMENT ON COLUMN public.iidq_webhook_delivery.url IS 'URL of the receiver, with its query, which can be a secret';
COMMENT ON COLUMN public.iidq_webhook_delivery.host IS 'host and port of the url';
COMMENT ON COLUMN public.iidq_webhook_delivery."lastError" IS 'why the last attempt failed; null after a success';

-- Each end of a job is an event, also by UPDATE and after a retry.
CREATE FUNCTION public.iidq_follow_callback() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
  CASE TG_OP
    WHEN 'UPDATE' THEN
      UPDATE public.iidq_webhook_delivery
      SET state = CASE WHEN NEW."completedAt" IS NULL THEN 'waiting' ELSE 'pending' END,
          "nextAt" = CASE WHEN NEW."completedAt" IS NOT NULL THEN now() END,
          "eventId" = public.iidq_new_job_id(), attempts = 0, "lastStatus" = NULL, "lastError" = NULL, "deliveredAt" = NULL
      WHERE "jobId" = NEW.id;
    WHEN 'DELETE' THEN DELETE FROM public.iidq_webhook_delivery WHERE "jobId" = OLD.id;
    WHEN 'TRUNCATE' THEN -- as in iidq_note_truncate
      BEGIN TRUNCATE public.iidq_webhook_delivery;
      EXCEPTION WHEN object_in_use THEN DELETE FROM public.iidq_webhook_delivery;
      END;
  END CASE;
  RETURN NULL;
END $$;
REVOKE EXECUTE ON FUNCTION public.iidq_follow_callback() FROM PUBLIC; -- as in 0003_counts
CREATE TRIGGER iidq_callback_update AFTER UPDATE OF "completedAt" ON public."VerificationJob"
  FOR EACH ROW WHEN (NEW."hasCallback" AND (OLD."completedAt" IS NULL) <> (NEW."completedAt" IS NULL))
  EXECUTE FUNCTION public.iidq_follow_callback();
CREATE TRIGGER iidq_callback_delete AFTER DELETE ON public."VerificationJob"
  FOR EACH ROW WHEN (OLD."hasCallback") EXECUTE FUNCTION public.iidq_follow_callback();
CREATE TRIGGER iidq_callback_truncate AFTER TRUNCATE ON public."VerificationJob"
  FOR EACH STATEMENT EXECUTE FUNCTION public.iidq_follow_callback();

-- The member "callback" of a job for clients, without the secret query of the URL.
CREATE FUNCTION public.iidq_callback_state(job_id uuid) RETURNS jsonb LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT jsonb_build_object(
    'url', regexp_replace(url, '[?].*', '?***'), 'state', state, 'attempts', attempts,
    'nextAt', to_char("nextAt" AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'),
    'lastStatus', "lastStatus", 'lastError', "lastError",
    'deliveredAt', to_char("deliveredAt" AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'))
  FROM public.iidq_webhook_delivery WHERE "jobId" = job_id
$$;
