DROP TABLE public.iidq_idempotency_key;
DROP PROCEDURE public.iidq_enqueue(json, integer, boolean, integer);
DROP FUNCTION public.iidq_new_jobs(json);
