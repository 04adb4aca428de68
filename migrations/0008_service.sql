-- Shared by the processes of the service: rate limits, and the key that signs entries in Redis.
-- depends: 0007_webhooks

-- Unlogged, because counts matter for a minute, and a crash may reset them.
CREATE UNLOGGED TABLE public.iidq_rate_count (
  key bytea NOT NULL, step integer NOT NULL, requests integer NOT NULL, PRIMARY KEY (key, step)
) WITH (fillfactor = 50, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0.1);
-- Old counts, for removal.
CREATE INDEX iidq_rate_count_step ON public.iidq_rate_count (step);
COMMENT ON TABLE public.iidq_rate_count IS 'Requests per client that the API processes admitted in the last minutes; theirs alone.';
COMMENT ON COLUMN public.iidq_rate_count.key IS 'which limit and which client: a digest, so no address is stored';
COMMENT ON COLUMN public.iidq_rate_count.step IS 'ten seconds, counted from 1970';
COMMENT ON COLUMN public.iidq_rate_count.requests IS 'requests admitted in that step by all processes';

-- The key with which entries in Redis are signed, so that a writer to Redis cannot forge them.
CREATE TABLE public.iidq_accelerator_key (
  only_one boolean PRIMARY KEY DEFAULT true CHECK (only_one),
  key      bytea NOT NULL CHECK (octet_length(key) = 32)
);
COMMENT ON TABLE public.iidq_accelerator_key IS 'One row, made at first use: the secret with which API and workers sign entries in Redis. Delete it for a new one, and restart them.';
COMMENT ON COLUMN public.iidq_accelerator_key.only_one IS 'always true: there is one row';
COMMENT ON COLUMN public.iidq_accelerator_key.key IS '32 random bytes; with these, a writer to Redis can forge cached verdicts';

-- Keep the present row of the key and of applied migrations when a dump of the data or a subscription brings it again.
-- ALWAYS, because a subscriber silences other triggers.
CREATE FUNCTION public.iidq_keep_present() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE present boolean;
BEGIN
  EXECUTE format('SELECT EXISTS (SELECT FROM %I.%I WHERE %3$I = ($1).%3$I)', TG_TABLE_SCHEMA, TG_TABLE_NAME, TG_ARGV[0])
    INTO present USING NEW;
  IF present THEN RETURN NULL; END IF;
  RETURN NEW;
END $$;

CREATE TRIGGER iidq_kept BEFORE INSERT ON public.iidq_accelerator_key FOR EACH ROW EXECUTE FUNCTION public.iidq_keep_present('only_one');
CREATE TRIGGER iidq_kept BEFORE INSERT ON public._yoyo_migration FOR EACH ROW EXECUTE FUNCTION public.iidq_keep_present('migration_hash');
CREATE TRIGGER iidq_kept BEFORE INSERT ON public._yoyo_log FOR EACH ROW EXECUTE FUNCTION public.iidq_keep_present('id');
CREATE TRIGGER iidq_kept BEFORE INSERT ON public._yoyo_version FOR EACH ROW EXECUTE FUNCTION public.iidq_keep_present('version');
ALTER TABLE public.iidq_accelerator_key ENABLE ALWAYS TRIGGER iidq_kept;
ALTER TABLE public._yoyo_migration ENABLE ALWAYS TRIGGER iidq_kept;
ALTER TABLE public._yoyo_log ENABLE ALWAYS TRIGGER iidq_kept;
ALTER TABLE public._yoyo_version ENABLE ALWAYS TRIGGER iidq_kept;
