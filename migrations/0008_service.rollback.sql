DROP FUNCTION public.iidq_keep_present CASCADE;
DROP TABLE public.iidq_accelerator_key, public.iidq_rate_count;
