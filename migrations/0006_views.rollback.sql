DROP VIEW public.queue_throughput;
DROP VIEW public.queue_errors;
DROP VIEW public.queue_health;
DROP VIEW public.queue_workers;
