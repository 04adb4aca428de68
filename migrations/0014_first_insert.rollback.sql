DROP PROCEDURE iidq_enqueue(json, integer, boolean);
CREATE PROCEDURE iidq_enqueue(jobs json, max_attempts integer)
LANGUAGE plpgsql AS $$
DECLARE
  inserted bigint;
BEGIN
  PERFORM set_config('iidq.writer', 'on', true);
  INSERT INTO "VerificationJob"
    (id, type, "contentHash", "manifestUri", "registryAddress", "rpcUrl", "chainId", "fileName", "traceContext",
     "hasCallback", "maxAttempts")
  SELECT new.*, max_attempts
  FROM json_to_recordset(jobs) AS new(id uuid, type text, content_hash text, manifest_uri text,
         registry_address text, rpc_url text, chain_id bigint, file_name text, trace_context text,
         has_callback boolean)
  ON CONFLICT (id) DO NOTHING;
  GET DIAGNOSTICS inserted = ROW_COUNT;
  INSERT INTO queue_count (waiting, enqueued) VALUES (inserted, inserted);
END
$$;

COMMENT ON PROCEDURE iidq_enqueue(json, integer) IS 'How iidq inserts jobs: all or none, counted.';
DROP FUNCTION iidq_new_jobs(json);
