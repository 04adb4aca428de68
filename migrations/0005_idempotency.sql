-- Requests that name a key get the first job made under it; requests that ask to share get a job already under way.
-- depends: 0004_views

CREATE TABLE idempotency_key (
  scope       text        NOT NULL,
  key         text        NOT NULL,
  fingerprint bytea       NOT NULL,
  "jobId"     uuid        NOT NULL,
  "expiresAt" public.iidq_time NOT NULL,
  PRIMARY KEY (scope, key)
);
-- Expired keys, for upkeep.
CREATE INDEX idempotency_key_expiry ON idempotency_key ("expiresAt");

COMMENT ON TABLE idempotency_key IS 'Which job a caller''s key stands for, until the key expires.';
COMMENT ON COLUMN idempotency_key.scope IS 'who uses the key (a digest), or ''shared'' for single-flight requests';
COMMENT ON COLUMN idempotency_key.key IS 'the Idempotency-Key header, or the digest of a shared request';
COMMENT ON COLUMN idempotency_key.fingerprint IS 'SHA-256 of the request''s fields; another request under the same key is refused';
COMMENT ON COLUMN idempotency_key."jobId" IS 'the job made for the first request; for a batch, what its jobs'' ids are derived from';
COMMENT ON COLUMN idempotency_key."expiresAt" IS 'after this the key is free again';
