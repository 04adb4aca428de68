-- Statements about sessions, the schema and its migrations.

-- name: prefer_lz4
-- If built in: results are some 1.5 kB of hex that hardly compresses, and lz4 costs a third of pglz. Set per session,
-- because a table that names lz4 cannot be restored on a server without it.
SELECT set_config('default_toast_compression', 'lz4', false) FROM pg_settings
WHERE name = 'default_toast_compression' AND 'lz4' = ANY (enumvals);

-- name: obstacles
-- Everything that keeps the present role from iidq's work: missing objects, missing rights, row-level security without
-- a policy for the role or with policies that can hide rows, columns that no insert of iidq fills, and published tables
-- without a replica identity. The owners of security definer functions need rights and policies too. Reads the catalogs
-- alone. An object is found by name even if the role may not use its schema.
WITH needed(kind, name, privileges) AS (VALUES
  ('table', 'VerificationJob', 'SELECT,INSERT,UPDATE,DELETE'), ('table', 'iidq_queue_count', 'SELECT,INSERT,DELETE'),
  ('table', 'iidq_queue_control', 'SELECT,INSERT,UPDATE'),
  ('table', 'iidq_queue_worker', 'SELECT,INSERT,UPDATE,DELETE'),
  ('table', 'iidq_idempotency_key', 'SELECT,INSERT,UPDATE,DELETE'),
  ('table', 'iidq_webhook_delivery', 'SELECT,INSERT,UPDATE,DELETE'),
  ('table', 'iidq_rate_count', 'SELECT,INSERT,UPDATE,DELETE'),
  ('table', 'iidq_accelerator_key', 'SELECT,INSERT'), ('view', 'queue_health', 'SELECT'),
  ('view', 'queue_workers', 'SELECT'),
  ('procedure', 'iidq_enqueue', 'EXECUTE'), ('function', 'iidq_new_jobs', 'EXECUTE'),
  ('function', 'iidq_new_job_id', 'EXECUTE'), ('function', 'iidq_claim_order', 'EXECUTE'),
  ('function', 'iidq_queue_state', 'EXECUTE'), ('function', 'iidq_callback_state', 'EXECUTE'),
  ('function', 'iidq_ended_jobs_of', 'EXECUTE'), ('function', 'iidq_content_span', 'EXECUTE'),
  ('view', 'queue_throughput', 'SELECT'), ('function', 'cancel_job', 'EXECUTE'),
  ('function', 'retry_job', 'EXECUTE'), ('function', 'pause_queue', 'EXECUTE'),
  ('function', 'resume_queue', 'EXECUTE'), ('index', 'VerificationJob_line', '')
), found AS MATERIALIZED (
  SELECT needed.*, relation.oid AS relation, routine.oid AS routine, space.oid AS space, space.nspname
  FROM needed
  LEFT JOIN LATERAL (
    SELECT oid, relnamespace FROM pg_class
    WHERE relname = name AND relkind IN ('r', 'p', 'v', 'i') AND relnamespace = to_regnamespace('public')
  ) AS relation ON kind IN ('table', 'view', 'index')
  LEFT JOIN LATERAL (
    SELECT oid, pronamespace FROM pg_proc WHERE proname = name AND pronamespace = to_regnamespace('public')
    LIMIT 1) AS routine ON kind IN ('function', 'procedure')
  LEFT JOIN pg_namespace AS space ON space.oid IN (relation.relnamespace, routine.pronamespace)
), used AS MATERIALIZED (
  SELECT kind, name, relation, privilege, place, pg_roles.oid AS role, rolname, rolsuper OR rolbypassrls AS sees_all
  FROM found CROSS JOIN string_to_table(privileges, ',') WITH ORDINALITY AS each_one(privilege, place)
  JOIN pg_roles ON rolname = current_user
  WHERE relation IS NOT NULL
  UNION
  SELECT 'table', relname, pg_class.oid, privilege, place, pg_roles.oid, rolname, rolsuper OR rolbypassrls
  FROM (VALUES ('iidq_note_change', 'VerificationJob', 'SELECT,UPDATE'),
      ('iidq_note_change', 'iidq_queue_count', 'INSERT'),
      ('iidq_follow_callback', 'iidq_webhook_delivery', 'SELECT,UPDATE,DELETE'),
      ('queue_health', 'VerificationJob', 'SELECT'), ('queue_health', 'iidq_queue_count', 'SELECT'),
      ('queue_health', 'iidq_queue_control', 'SELECT'), ('queue_workers', 'iidq_queue_worker', 'SELECT')
    ) AS by_owner(code, relname, privileges)
  CROSS JOIN string_to_table(privileges, ',') WITH ORDINALITY AS each_one(privilege, place)
  JOIN (SELECT proname, pronamespace, proowner FROM pg_proc WHERE prosecdef
    UNION ALL SELECT relname, relnamespace, relowner FROM pg_class WHERE relkind = 'v') AS owned(code, space, owner)
    USING (code)
  JOIN pg_class USING (relname) JOIN pg_roles ON pg_roles.oid = owner
  WHERE space = to_regnamespace('public') AND relnamespace = space
), guarded AS MATERIALIZED (
  -- "lets_in": the tables' permissive policies for the role and the privilege, each with its condition.
  SELECT used.*, policies.* FROM used JOIN pg_class AS guarded_table ON guarded_table.oid = relation
  CROSS JOIN LATERAL (
    SELECT count(*) FILTER (WHERE polpermissive) AS lets_in,
      bool_or(polpermissive AND polqual IS NOT NULL AND pg_get_expr(polqual, polrelid) = 'true')
        AND coalesce(bool_and(pg_get_expr(polqual, polrelid) = 'true')
          FILTER (WHERE NOT polpermissive AND polqual IS NOT NULL), true) AS shows_all,
      string_agg(polname::text, ', ' ORDER BY polname) AS names
    FROM pg_policy
    WHERE polrelid = relation AND polcmd IN ('*', CASE privilege WHEN 'SELECT' THEN 'r' WHEN 'INSERT' THEN 'a'
        WHEN 'UPDATE' THEN 'w' ELSE 'd' END)
      AND EXISTS (SELECT FROM unnest(polroles) AS allowed(oid)
        WHERE CASE allowed.oid WHEN 0 THEN true ELSE pg_has_role(role, allowed.oid, 'USAGE') END)
  ) AS policies
  WHERE kind = 'table' AND relrowsecurity AND NOT sees_all
    AND (relforcerowsecurity OR NOT pg_has_role(role, relowner, 'USAGE'))
)
SELECT 'missing' AS problem, kind, name, '' AS detail, current_user::text AS role FROM found WHERE space IS NULL
UNION ALL
-- Columns that databases of earlier, unreleased versions lack.
SELECT 'missing', 'column', name || '.' || column_name, '', current_user::text
FROM found JOIN (VALUES ('VerificationJob', 'jobId')) AS newest(name, column_name)
  USING (name)
WHERE relation IS NOT NULL AND NOT EXISTS (SELECT FROM pg_attribute WHERE attrelid = relation AND attname = column_name)
UNION ALL
SELECT DISTINCT 'right', 'schema', nspname::text, 'USAGE', current_user::text
FROM found WHERE space IS NOT NULL AND NOT has_schema_privilege(space, 'USAGE')
UNION ALL
SELECT 'right', kind, name, string_agg(privilege, ', ' ORDER BY place), rolname::text
FROM used WHERE NOT has_table_privilege(role, relation, privilege)
GROUP BY kind, name, rolname
UNION ALL
SELECT 'right', kind, name, privileges, current_user::text
FROM found WHERE routine IS NOT NULL AND NOT has_function_privilege(routine, privileges)
UNION ALL
SELECT 'policy', kind, name, string_agg(privilege, ', ' ORDER BY place), rolname::text
FROM guarded WHERE lets_in = 0
GROUP BY kind, name, rolname
UNION ALL
SELECT 'hidden', kind, name, min(names), rolname::text
FROM guarded WHERE lets_in > 0 AND NOT coalesce(shows_all, false) AND privilege <> 'INSERT'
GROUP BY kind, name, rolname
UNION ALL
-- A trigger before the insert may fill it.
SELECT 'default', kind, name, attname::text, current_user::text
FROM found JOIN pg_attribute ON attrelid = relation
WHERE name = 'VerificationJob' AND attnum > 0 AND attnotnull AND NOT atthasdef AND attidentity = '' AND NOT attisdropped
  AND attname NOT IN ('type', 'contentHash', 'manifestUri', 'registryAddress', 'rpcUrl', 'chainId', 'fileName',
    'traceContext', 'hasCallback', 'rpcEndpointId')
  AND NOT EXISTS (SELECT FROM pg_trigger WHERE tgrelid = relation AND tgtype & 7 = 7 AND tgenabled <> 'D')
UNION ALL
SELECT 'identity', kind, name, string_agg(DISTINCT pubname::text, ', '), current_user::text
FROM found
JOIN pg_class AS relation ON relation.oid = found.relation
JOIN pg_publication_tables AS published ON schemaname = nspname AND tablename = name
JOIN pg_publication USING (pubname)
WHERE kind = 'table' AND (pubupdate OR pubdelete)
  AND (relreplident = 'n'
    OR relreplident = 'd' AND NOT EXISTS (SELECT FROM pg_index WHERE indrelid = relation.oid AND indisprimary)
    OR relreplident = 'i' AND NOT EXISTS (SELECT FROM pg_index WHERE indrelid = relation.oid AND indisreplident))
GROUP BY kind, name;

-- name: lock_migrations
-- One lock name for all hosts: the holder migrates, the others retry and then find nothing to do. Not waiting, because
-- a waiting statement keeps a snapshot open, and CREATE INDEX CONCURRENTLY waits for the end of every older snapshot.
SELECT pg_try_advisory_lock(hashtext('iidq.migrate public'));

-- name: applied_migrations
-- The migrations that yoyo has recorded.
SELECT migration_id FROM public._yoyo_migration;

-- name: migration_site
-- The state before a migration, for obstacles.py: the role's rights, and tables of earlier installations. Reads the
-- catalogs alone, in which an object is found also without a right to its schema.
SELECT current_user::text AS role, space.oid IS NOT NULL AS has_schema,
  has_database_privilege(current_database(), 'CREATE') AS may_create_schema,
  space.oid IS NOT NULL AND has_schema_privilege(space.oid, 'USAGE') AS may_use,
  space.oid IS NOT NULL AND has_schema_privilege(space.oid, 'CREATE') AS may_create,
  jobs.oid IS NOT NULL AS has_jobs, pg_get_userbyid(coalesce(history.relowner, jobs.relowner))::text AS owner,
  history.oid IS NOT NULL AS has_history,
  (SELECT count(*) = 2 FROM pg_attribute
   WHERE attrelid = history.oid AND attname IN ('migration_id', 'migration_hash')) AS has_known_history,
  history.oid IS NOT NULL AND has_table_privilege(history.oid, 'SELECT') AS may_read_history
FROM (SELECT to_regnamespace('public') AS oid) AS space
LEFT JOIN pg_class AS jobs ON jobs.relnamespace = space.oid AND jobs.relname = 'VerificationJob'
LEFT JOIN pg_class AS history ON history.relnamespace = space.oid AND history.relname = '_yoyo_migration';

-- name: create_schema
-- If migration_site found none. IF NOT EXISTS would demand the right also from a role that need not create it.
CREATE SCHEMA public;

-- name: limit_lock_waits
-- Until the end of the transaction: a statement that waits for a lock makes all later ones wait behind it.
SELECT set_config('lock_timeout', %(milliseconds)s, true);

-- name: lock_holders
-- Transactions that have held a lock in our schema for so long: process, application name, and begin. Times of other
-- roles are hidden from a role without pg_read_all_stats. A prepared transaction has no process.
SELECT DISTINCT ON (since, lock.pid, gid) lock.pid, gid,
  coalesce(nullif(application_name, ''), backend_type, '') AS application,
  to_char(since AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') AS since
FROM pg_locks AS lock
JOIN pg_class AS relation ON relation.oid = lock.relation AND relation.relnamespace = to_regnamespace('public')
LEFT JOIN pg_stat_activity AS activity ON activity.pid = lock.pid
LEFT JOIN pg_prepared_xacts ON lock.pid IS NULL AND lock.virtualtransaction = '-1/' || transaction
CROSS JOIN LATERAL (SELECT coalesce(xact_start, prepared) AS since) AS began
WHERE lock.granted AND lock.database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND coalesce(since, '-infinity') < now() - make_interval(secs => %(seconds)s)
ORDER BY since, lock.pid, gid
LIMIT 3;

-- name: recount_if_due
-- As upkeep does, after a migration. A database without jobs needs no counts.
SELECT public.iidq_recount_queue()
WHERE EXISTS (SELECT FROM public."VerificationJob")
  AND NOT EXISTS (SELECT FROM public.iidq_queue_control WHERE "countedAt" IS NOT NULL);
