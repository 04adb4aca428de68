-- What is kept in Redis is signed, so that whoever writes there cannot lie to the service.
-- depends: 0005_idempotency

CREATE TABLE accelerator_key (
  only_one boolean PRIMARY KEY DEFAULT true CHECK (only_one),
  key      bytea NOT NULL CHECK (octet_length(key) = 32)
);

COMMENT ON TABLE accelerator_key IS 'One row, made at first use: the secret with which API and workers sign what they keep in Redis. Delete it for a new one, and restart them.';
COMMENT ON COLUMN accelerator_key.only_one IS 'always true: there is one row';
COMMENT ON COLUMN accelerator_key.key IS '32 random bytes; whoever knows them and writes to Redis can forge cached verdicts';
