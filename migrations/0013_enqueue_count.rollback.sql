CREATE OR REPLACE PROCEDURE iidq_enqueue(jobs json, max_attempts integer)
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
