DROP TABLE public.iidq_accelerator_key;
DROP TABLE public.iidq_rate_count;
