-- iidq's own inserts, and the wake-up that follows them, in one round trip.
-- depends: 0010_accelerator_key

-- Many jobs in one statement; "VerificationJob_pkey" makes a repeated insert (commit unknown) harmless.
-- One JSON document: psycopg takes 200 µs for eight arrays, however short, and 25 for this.
-- NOTIFY takes a database-wide lock until its transaction has been flushed, so it has a transaction of its own, which
-- need not be durable. Here it follows at once: asked for by the client after the reply, it came 0.4 ms later.
-- Only a procedure may commit, and only one that is called outside a transaction and without settings of its own.
CREATE PROCEDURE iidq_enqueue(jobs json, max_attempts integer, announce boolean)
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
  IF announce THEN
    COMMIT;
    PERFORM set_config('synchronous_commit', 'off', true), pg_notify('iidq_jobs', '');
  END IF;
END
$$;

COMMENT ON PROCEDURE iidq_enqueue(json, integer, boolean) IS
  'How iidq inserts jobs: durably, all or none, counted; announce: then wake a worker (not within a transaction).';
