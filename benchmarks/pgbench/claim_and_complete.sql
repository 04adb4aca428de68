WITH taken AS (
  UPDATE public.floor_job SET state = 1, changed = now()
  WHERE id = ANY (ARRAY (SELECT id FROM public.floor_job WHERE state = 0 ORDER BY id LIMIT 100 FOR UPDATE SKIP LOCKED))
  RETURNING id, payload
) SELECT array_agg(id) AS ids, count(payload) AS payloads FROM taken \gset
UPDATE public.floor_job SET state = 2, changed = now() WHERE id = ANY (:ids::bigint[]);
