-- The queue's state as the BullMQ mirror reads it.

-- name: outline
-- For mirror.py: the jobs of each state, ids and versions as text that Python splits at once; bounded, and in one
-- snapshot. In line by "VerificationJob_line", running by "VerificationJob_running", delayed by
-- "VerificationJob_delayed". Of the ended jobs: the newest along "VerificationJob_newest", and without "since" the
-- newest failed ones along "VerificationJob_failed". Each inner LIMIT keeps its search from walking through the
-- history.
SELECT now() AS at,
  EXISTS (SELECT FROM public.iidq_queue_control WHERE "pausedAt" IS NOT NULL) AS paused,
  (SELECT string_agg(id::text, ',') FROM (
    SELECT id FROM public."VerificationJob" WHERE ready AND status = 'queued'
    ORDER BY public.iidq_claim_order("runAt", type, priority), id LIMIT %(most)s) AS line) AS waiting,
  (SELECT string_agg(id || ' ' || version, ',') FROM (
    (SELECT id, xmin AS version FROM public."VerificationJob" WHERE ready AND status = 'queued'
     ORDER BY public.iidq_claim_order("runAt", type, priority), id LIMIT %(most_whole)s)
    UNION ALL
    (SELECT id, xmin FROM public."VerificationJob" WHERE ready AND status = 'queued'
     ORDER BY public.iidq_claim_order("runAt", type, priority) DESC, id DESC LIMIT %(most_whole)s)) AS both_ends)
       AS line_ends,
  (SELECT string_agg(id || ' ' || version, ',') FROM (
    SELECT id, xmin AS version FROM public."VerificationJob" WHERE "workerId" IS NOT NULL
    ORDER BY "startedAt", id LIMIT %(most)s) AS running) AS active,
  (SELECT string_agg(id || ' ' || version || ' ' || due_ms, ',') FROM (
    SELECT id, xmin AS version, round(extract(epoch FROM "runAt") * 1000)::bigint AS due_ms
    FROM public."VerificationJob" WHERE status = 'queued' AND NOT ready
    ORDER BY "runAt" LIMIT %(most)s) AS later) AS delayed,
  (SELECT string_agg(id || ' ' || version || ' ' || status || ' ' || at_ms, ',') FROM (
    SELECT id, version, status, round(extract(epoch FROM "completedAt") * 1000)::bigint AS at_ms FROM (
      SELECT id, xmin AS version, status, "completedAt" FROM public."VerificationJob"
      ORDER BY "createdAt" DESC, id DESC LIMIT %(newest)s) AS newest
    WHERE status IN ('completed', 'failed')
      AND "completedAt" >= coalesce(%(since)s::timestamptz - make_interval(secs => %(overlap_seconds)s), '-infinity')
    UNION
    SELECT id, version, status, round(extract(epoch FROM "completedAt") * 1000)::bigint FROM (
      SELECT id, xmin AS version, status, "completedAt" FROM public."VerificationJob" WHERE status = 'failed'
      ORDER BY "createdAt" DESC, id DESC
      LIMIT CASE WHEN %(since)s::timestamptz IS NULL THEN %(most_failed)s ELSE 0 END) AS failed
  ) AS ended) AS ended;
