-- Statements of webhook deliveries, table iidq_webhook_delivery.

-- name: poll_deliveries
-- Seconds until the next delivery is due (zero or less: now), by "iidq_webhook_delivery_due", and whether an unfinished
-- job has a callback, by "iidq_webhook_delivery_waiting".
SELECT (SELECT extract(epoch FROM min("nextAt") - now())::float8 FROM public.iidq_webhook_delivery
  WHERE state = 'pending'),
  EXISTS (SELECT FROM public.iidq_webhook_delivery WHERE state = 'waiting');

-- name: claim_deliveries
-- Due deliveries, the host with the oldest one first, and at most "per_host" running ones of each host, so that a host
-- that hangs cannot take all slots. By "iidq_webhook_delivery_due_by_host". The lease is "nextAt": after a crash of the
-- worker the delivery is due again then. "only": null, or the jobs to which the claim is restricted.
WITH hosts AS MATERIALIZED (
  SELECT host, %(per_host)s - coalesce((%(running)s::jsonb ->> host)::int, 0) AS room
  FROM public.iidq_webhook_delivery
  WHERE state = 'pending' AND "nextAt" <= now()
    AND (%(only)b::uuid[] IS NULL OR "jobId" = ANY (%(only)b::uuid[]))
  GROUP BY host
  HAVING coalesce((%(running)s::jsonb ->> host)::int, 0) < %(per_host)s
  ORDER BY min("nextAt")
  LIMIT %(slots)s
), due AS MATERIALIZED (
  SELECT of_host."jobId"
  FROM hosts CROSS JOIN LATERAL (
    SELECT "jobId" FROM public.iidq_webhook_delivery AS delivery
    WHERE delivery.state = 'pending' AND delivery.host = hosts.host AND delivery."nextAt" <= now()
      AND (%(only)b::uuid[] IS NULL OR delivery."jobId" = ANY (%(only)b::uuid[]))
    ORDER BY delivery."nextAt"
    LIMIT hosts.room FOR UPDATE SKIP LOCKED
  ) AS of_host
  LIMIT %(slots)s
)
UPDATE public.iidq_webhook_delivery AS delivery
SET attempts = least(attempts, 999999999) + 1, "nextAt" = now() + make_interval(secs => %(lease_seconds)s)
FROM due
WHERE delivery."jobId" = due."jobId"
RETURNING delivery."jobId", delivery."eventId", delivery.attempts, delivery.url, delivery.host;

-- name: due_deliveries
-- The deliveries that a claim would take, by "iidq_webhook_delivery_due".
SELECT "jobId" FROM public.iidq_webhook_delivery WHERE state = 'pending' AND "nextAt" <= now()
  ORDER BY "nextAt" LIMIT %(limit)s;

-- name: refuse_delivery
-- Give up a delivery that no claim can take, by "iidq_webhook_delivery_pkey".
UPDATE public.iidq_webhook_delivery SET state = 'gave_up', "nextAt" = NULL, "lastError" = %(error)s
WHERE "jobId" = %(job_id)s AND state = 'pending';

-- name: settle_delivery
-- The result of an attempt, by "iidq_webhook_delivery_pkey". The fence: still the latest attempt of the same event. A
-- repeated write of the same result writes again, and so waits for the same standby as the first.
UPDATE public.iidq_webhook_delivery
SET state = %(state)s,
    "nextAt" = CASE WHEN %(state)s = 'pending' THEN now() + make_interval(secs => %(delay_seconds)s::float8) END,
    "deliveredAt" = CASE WHEN %(state)s = 'delivered' THEN now() END,
    "lastStatus" = %(status)s::int, "lastError" = %(error)s
WHERE "jobId" = %(job_id)s AND "eventId" = %(event_id)s AND attempts = %(attempt)s
  AND state IN ('pending', %(state)s);

-- name: release_deliveries
-- Attempts that a stopping worker did not finish: due at once, not counted. By "iidq_webhook_delivery_pkey".
UPDATE public.iidq_webhook_delivery AS delivery
SET "nextAt" = now(), attempts = delivery.attempts - 1
FROM jsonb_to_recordset(%(unfinished)s::jsonb) AS mine(job_id uuid, event_id uuid, attempt int)
WHERE delivery."jobId" = mine.job_id AND delivery."eventId" = mine.event_id AND delivery.attempts = mine.attempt
  AND delivery.state = 'pending';
