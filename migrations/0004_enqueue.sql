-- iidq's own inserts, and idempotency keys.
-- depends: 0003_counts

-- Inlined by the planner. One document, because psycopg takes longer for an array per column.
CREATE FUNCTION public.iidq_new_jobs(jobs json)
RETURNS TABLE (id uuid, type text, content_hash text, manifest_uri text, registry_address text, rpc_url text,
    chain_id bigint, file_name text, trace_context text, has_callback boolean, rpc_endpoint_id text)
LANGUAGE sql STABLE AS $$
  SELECT * FROM json_to_recordset(jobs) AS new(id uuid, type text, content_hash text, manifest_uri text, registry_address text,
    rpc_url text, chain_id bigint, file_name text, trace_context text, has_callback boolean, endpoint_id text);
$$;
COMMENT ON FUNCTION public.iidq_new_jobs(json) IS 'The rows that iidq_enqueue inserts.';

-- Without COMMIT, which under statement_timeout ends the wait for a synchronous standby and reports success. With ON
-- CONFLICT, which costs a tenth, only for a repeated try ("again") and a call within a transaction.
CREATE PROCEDURE public.iidq_enqueue(jobs json, max_attempts integer, again boolean DEFAULT true, expected integer DEFAULT NULL)
LANGUAGE plpgsql AS $$
DECLARE inserted bigint;
BEGIN
  PERFORM set_config('iidq.writer', 'on', true);
  IF again THEN
    INSERT INTO public."VerificationJob" (id, type, "contentHash", "manifestUri", "registryAddress", "rpcUrl", "chainId",
      "fileName", "traceContext", "hasCallback", "rpcEndpointId", "maxAttempts")
    SELECT new.*, max_attempts FROM public.iidq_new_jobs(jobs) AS new ON CONFLICT (id) DO NOTHING;
  ELSE
    INSERT INTO public."VerificationJob" (id, type, "contentHash", "manifestUri", "registryAddress", "rpcUrl", "chainId",
      "fileName", "traceContext", "hasCallback", "rpcEndpointId", "maxAttempts")
    SELECT new.*, max_attempts FROM public.iidq_new_jobs(jobs) AS new;
  END IF;
  GET DIAGNOSTICS inserted = ROW_COUNT;
  -- A BEFORE trigger that returns null drops a row without an error, and the client would get the id of no job. The
  -- caller gives "expected", because counting the document is as slow as the second condition.
  IF inserted < expected THEN
    IF EXISTS (SELECT FROM public.iidq_new_jobs(jobs) AS new
        WHERE NOT EXISTS (SELECT FROM public."VerificationJob" AS job WHERE job.id = new.id)) THEN
      RAISE triggered_data_change_violation USING MESSAGE = 'a trigger drops the row';
    END IF;
  END IF;
  INSERT INTO public.iidq_queue_count (waiting, enqueued) VALUES (inserted, inserted);
END $$;
COMMENT ON PROCEDURE public.iidq_enqueue IS 'Inserts and counts checked jobs, all or none. again: jobs whose id exists stay; expected: the number of jobs.';

CREATE TABLE public.iidq_idempotency_key (
  scope text NOT NULL, key text NOT NULL, fingerprint bytea NOT NULL, "jobId" uuid NOT NULL,
  "expiresAt" timestamptz NOT NULL CONSTRAINT iidq_idempotency_key_time_range
    CHECK ("expiresAt" >= '0002-01-01 00:00:00Z' AND "expiresAt" < '9999-01-01 00:00:00Z'),
  PRIMARY KEY (scope, key)
);
-- Expired keys, for upkeep.
CREATE INDEX iidq_idempotency_key_expiry ON public.iidq_idempotency_key ("expiresAt");
COMMENT ON TABLE public.iidq_idempotency_key IS 'The job of a caller''s key, until the key expires; for shared requests, the job under way.';
COMMENT ON COLUMN public.iidq_idempotency_key.scope IS 'user of the key (a digest), or ''shared'' for single-flight requests';
COMMENT ON COLUMN public.iidq_idempotency_key.key IS 'the Idempotency-Key header, or the digest of a shared request';
COMMENT ON COLUMN public.iidq_idempotency_key.fingerprint IS 'SHA-256 of the request''s fields; another request under the same key is refused';
COMMENT ON COLUMN public.iidq_idempotency_key."jobId" IS 'the job made for the first request; for a batch, the source of its jobs'' ids';
COMMENT ON COLUMN public.iidq_idempotency_key."expiresAt" IS 'from then on the key is free again';
