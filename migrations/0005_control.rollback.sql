DROP FUNCTION public.retry_job(uuid);
DROP FUNCTION public.cancel_job(uuid);
DROP FUNCTION public.resume_queue();
DROP FUNCTION public.pause_queue(text);
DROP FUNCTION public.iidq_recount_queue();
DROP TABLE public.iidq_queue_worker;
DROP TABLE public.iidq_queue_control;
DROP FUNCTION public.iidq_take_control();
