DROP VIEW public.queue_throughput, public.queue_errors, public.queue_health, public.queue_workers;
