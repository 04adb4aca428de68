-- The key that signs entries in Redis, table iidq_accelerator_key.

-- name: accelerator_key
-- The one row of iidq_accelerator_key by its primary key, made if missing. gen_random_uuid() takes 122 bits from the
-- system's generator for secrets; three of them fill the 256 bits of the hash.
WITH made AS (
  INSERT INTO public.iidq_accelerator_key (key)
  VALUES (sha256(convert_to(concat(gen_random_uuid(), gen_random_uuid(), gen_random_uuid()), 'UTF8')))
  ON CONFLICT (only_one) DO NOTHING
  RETURNING key
)
SELECT key FROM made UNION ALL SELECT key FROM public.iidq_accelerator_key LIMIT 1;
