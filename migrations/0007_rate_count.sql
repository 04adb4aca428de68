-- Rate limits of the API, shared by its processes.
-- depends: 0005_idempotency

-- Unlogged: these counts matter for a minute, and starting again from zero after a crash or on a standby harms nobody.
CREATE UNLOGGED TABLE rate_count (
  key      bytea   NOT NULL,
  step     integer NOT NULL,
  requests integer NOT NULL,
  PRIMARY KEY (key, step)
) WITH (fillfactor = 50, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0.1);
-- Old counts, for their removal.
CREATE INDEX rate_count_step ON rate_count (step);

COMMENT ON TABLE rate_count IS 'Requests per client that the API processes admitted in the last minutes; theirs alone.';
COMMENT ON COLUMN rate_count.key IS 'which limit and which client: a digest, so no address is stored';
COMMENT ON COLUMN rate_count.step IS 'ten seconds, counted from 1970';
COMMENT ON COLUMN rate_count.requests IS 'admitted in that step by all processes together';
