-- Statements of the rate limits that API processes share, table iidq_rate_count.

-- name: share_rates
-- Rate limits: add the counts of one API process, and read the counts of all, for these clients. Both by
-- "iidq_rate_count_pkey"; keys in order, so that two processes cannot deadlock. The table is unlogged, so no commit is
-- awaited. A count that was added to comes twice, old and new.
WITH counted AS (
  INSERT INTO public.iidq_rate_count AS known (key, step, requests)
  SELECT key, step, requests
  FROM unnest(%(keys)b::bytea[], %(steps)b::int[], %(requests)b::int[]) AS given(key, step, requests)
  ORDER BY key, step
  ON CONFLICT (key, step) DO UPDATE SET requests = known.requests + excluded.requests
  RETURNING key, step, requests
)
SELECT key, step, requests, extract(epoch FROM clock_timestamp())::float8 AS now FROM counted
UNION ALL
SELECT key, step, requests, NULL FROM public.iidq_rate_count WHERE key = ANY (%(keys)b::bytea[])
  AND step > %(since_step)s;

-- name: purge_rates
-- Counts of past minutes, in bounded batches, by "iidq_rate_count_step".
DELETE FROM public.iidq_rate_count WHERE ctid = ANY (ARRAY (
  SELECT ctid FROM public.iidq_rate_count WHERE step < %(before_step)s LIMIT %(batch)s FOR UPDATE SKIP LOCKED));
