-- Statements of the rate limits that API processes share, table iidq_rate_count.

-- name: share_rates
-- Rate limits: add what one API process admitted, and read what all of them did, for these clients. Both by
-- "iidq_rate_count_pkey"; keys in order, so that two processes cannot deadlock. The table is unlogged: nothing is
-- awaited. A count that was added to comes twice, as it was and as it is.
WITH counted AS (
  INSERT INTO public.iidq_rate_count AS known (key, step, requests)
  SELECT key, step, requests
  FROM unnest(%(keys)b::bytea[], %(steps)b::int[], %(requests)b::int[]) AS told(key, step, requests)
  ORDER BY key, step
  ON CONFLICT (key, step) DO UPDATE SET requests = known.requests + excluded.requests
  RETURNING key, step, requests
)
SELECT key, step, requests, extract(epoch FROM clock_timestamp())::float8 AS now FROM counted
UNION ALL
SELECT key, step, requests, NULL FROM public.iidq_rate_count WHERE key = ANY (%(keys)b::bytea[])
  AND step > %(since_step)s;

-- name: purge_rates
-- Counts of minutes gone by, in bounded batches, by "iidq_rate_count_step".
DELETE FROM public.iidq_rate_count WHERE ctid = ANY (ARRAY (
  SELECT ctid FROM public.iidq_rate_count WHERE step < %(before_step)s LIMIT %(batch)s FOR UPDATE SKIP LOCKED));
