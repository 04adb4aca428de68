DROP TABLE public.iidq_idempotency_key;
DROP ROUTINE public.iidq_enqueue, public.iidq_new_jobs;
