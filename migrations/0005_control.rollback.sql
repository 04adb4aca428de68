DROP TABLE public.iidq_queue_worker, public.iidq_queue_control;
DROP FUNCTION public.retry_job(uuid), public.cancel_job(uuid), public.resume_queue(), public.pause_queue(text),
  public.iidq_recount_queue(), public.iidq_take_control();
