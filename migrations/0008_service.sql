-- What the processes of the service share beside the queue: rate limits, and the key of what they keep in Redis.
-- depends: 0007_webhooks

-- Unlogged: these counts matter for a minute, and starting again from zero after a crash or on a standby harms nobody.
CREATE UNLOGGED TABLE public.iidq_rate_count (
  key      bytea   NOT NULL,
  step     integer NOT NULL,
  requests integer NOT NULL,
  PRIMARY KEY (key, step)
) WITH (fillfactor = 50, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0.1);
-- Old counts, for their removal.
CREATE INDEX iidq_rate_count_step ON public.iidq_rate_count (step);

COMMENT ON TABLE public.iidq_rate_count IS 'Requests per client that the API processes admitted in the last minutes; theirs alone.';
COMMENT ON COLUMN public.iidq_rate_count.key IS 'which limit and which client: a digest, so no address is stored';
COMMENT ON COLUMN public.iidq_rate_count.step IS 'ten seconds, counted from 1970';
COMMENT ON COLUMN public.iidq_rate_count.requests IS 'admitted in that step by all processes together';

-- What is kept in Redis is signed, so that whoever writes there cannot lie to the service.
CREATE TABLE public.iidq_accelerator_key (
  only_one boolean PRIMARY KEY DEFAULT true CHECK (only_one),
  key      bytea NOT NULL CHECK (octet_length(key) = 32)
);

COMMENT ON TABLE public.iidq_accelerator_key IS 'One row, made at first use: the secret with which API and workers sign what they keep in Redis. Delete it for a new one, and restart them.';
COMMENT ON COLUMN public.iidq_accelerator_key.only_one IS 'always true: there is one row';
COMMENT ON COLUMN public.iidq_accelerator_key.key IS '32 random bytes; whoever knows them and writes to Redis can forge cached verdicts';

-- A dump of the data alone, and a subscription, bring rows that a migrated database has by itself: the migrations that
-- were applied, and the key. They would end in a duplicate key; the row that is there stays. Always: in a subscriber
-- other triggers are silent.
CREATE FUNCTION public.iidq_keep_present() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
  present boolean;
BEGIN
  EXECUTE format('SELECT EXISTS (SELECT FROM %I.%I WHERE %3$I = ($1).%3$I)', TG_TABLE_SCHEMA, TG_TABLE_NAME, TG_ARGV[0])
    INTO present USING NEW;
  IF present THEN
    RETURN NULL;
  END IF;
  RETURN NEW;
END $$;

CREATE TRIGGER iidq_kept BEFORE INSERT ON public.iidq_accelerator_key
  FOR EACH ROW EXECUTE FUNCTION public.iidq_keep_present('only_one');
CREATE TRIGGER iidq_kept BEFORE INSERT ON public._yoyo_migration
  FOR EACH ROW EXECUTE FUNCTION public.iidq_keep_present('migration_hash');
CREATE TRIGGER iidq_kept BEFORE INSERT ON public._yoyo_log
  FOR EACH ROW EXECUTE FUNCTION public.iidq_keep_present('id');
CREATE TRIGGER iidq_kept BEFORE INSERT ON public._yoyo_version
  FOR EACH ROW EXECUTE FUNCTION public.iidq_keep_present('version');
ALTER TABLE public.iidq_accelerator_key ENABLE ALWAYS TRIGGER iidq_kept;
ALTER TABLE public._yoyo_migration ENABLE ALWAYS TRIGGER iidq_kept;
ALTER TABLE public._yoyo_log ENABLE ALWAYS TRIGGER iidq_kept;
ALTER TABLE public._yoyo_version ENABLE ALWAYS TRIGGER iidq_kept;
