-- A job's first insert does not look whether the job is there already; only a repeated one does.
-- depends: 0013_enqueue_count

-- The rows that a JSON document of new jobs stands for. The planner puts its body where it is called.
CREATE FUNCTION iidq_new_jobs(jobs json)
RETURNS TABLE (id uuid, type text, content_hash text, manifest_uri text, registry_address text, rpc_url text,
               chain_id bigint, file_name text, trace_context text, has_callback boolean, rpc_endpoint_id text)
LANGUAGE sql STABLE AS $$
  SELECT * FROM json_to_recordset(jobs) AS new(id uuid, type text, content_hash text, manifest_uri text,
         registry_address text, rpc_url text, chain_id bigint, file_name text, trace_context text,
         has_callback boolean, endpoint_id text);
$$;

COMMENT ON FUNCTION iidq_new_jobs(json) IS 'The rows that iidq_enqueue inserts.';

-- See 0011_enqueue. ON CONFLICT looks each id up beforehand, takes a lock for each row and logs it twice: 35 µs of 260,
-- for 16 rows. So the first try goes without; where its fate was unknown, a repeated one meets "VerificationJob_pkey",
-- and its caller comes back with ``again``. Within a transaction, which that would end, ``again`` is right at once.
DROP PROCEDURE iidq_enqueue(json, integer);
CREATE PROCEDURE iidq_enqueue(jobs json, max_attempts integer, again boolean DEFAULT true)
LANGUAGE plpgsql AS $$
DECLARE
  inserted bigint;
BEGIN
  PERFORM set_config('iidq.writer', 'on', true);
  IF again THEN
    INSERT INTO public."VerificationJob"
      (id, type, "contentHash", "manifestUri", "registryAddress", "rpcUrl", "chainId", "fileName", "traceContext",
       "hasCallback", "rpcEndpointId", "maxAttempts")
    SELECT new.*, max_attempts FROM public.iidq_new_jobs(jobs) AS new
    ON CONFLICT (id) DO NOTHING;
  ELSE
    INSERT INTO public."VerificationJob"
      (id, type, "contentHash", "manifestUri", "registryAddress", "rpcUrl", "chainId", "fileName", "traceContext",
       "hasCallback", "rpcEndpointId", "maxAttempts")
    SELECT new.*, max_attempts FROM public.iidq_new_jobs(jobs) AS new;
  END IF;
  GET DIAGNOSTICS inserted = ROW_COUNT;
  INSERT INTO public.queue_count (waiting, enqueued) VALUES (inserted, inserted);
END
$$;

COMMENT ON PROCEDURE iidq_enqueue(json, integer, boolean) IS
  'How iidq inserts jobs: all or none, counted; again: jobs whose id is there stay as they are.';
