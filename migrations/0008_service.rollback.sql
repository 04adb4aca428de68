DROP TRIGGER iidq_kept ON public._yoyo_migration;
DROP TRIGGER iidq_kept ON public._yoyo_log;
DROP TRIGGER iidq_kept ON public._yoyo_version;
DROP TABLE public.iidq_accelerator_key;
DROP FUNCTION public.iidq_keep_present();
DROP TABLE public.iidq_rate_count;
