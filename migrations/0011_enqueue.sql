-- iidq's own inserts.
-- depends: 0010_accelerator_key

-- Many jobs in one statement; "VerificationJob_pkey" makes a repeated insert (commit unknown) harmless.
-- One JSON document: psycopg takes 200 µs for eight arrays, however short, and 25 for this.
-- It does not commit: a COMMIT within a CALL runs under statement_timeout, which ends the wait for a synchronous standby
-- and leaves the caller with a success that no standby has.
CREATE PROCEDURE iidq_enqueue(jobs json, max_attempts integer)
LANGUAGE plpgsql AS $$
BEGIN
  PERFORM set_config('iidq.writer', 'on', true);
  WITH inserted AS (
    INSERT INTO "VerificationJob"
      (id, type, "contentHash", "manifestUri", "registryAddress", "rpcUrl", "chainId", "fileName", "traceContext",
       "hasCallback", "maxAttempts")
    SELECT new.*, max_attempts
    FROM json_to_recordset(jobs) AS new(id uuid, type text, content_hash text, manifest_uri text,
           registry_address text, rpc_url text, chain_id bigint, file_name text, trace_context text,
           has_callback boolean)
    ON CONFLICT (id) DO NOTHING
    RETURNING id
  )
  INSERT INTO queue_count (waiting, enqueued) SELECT count(*), count(*) FROM inserted;
END
$$;

COMMENT ON PROCEDURE iidq_enqueue(json, integer) IS 'How iidq inserts jobs: all or none, counted.';
