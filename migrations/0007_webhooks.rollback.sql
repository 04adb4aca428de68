DROP FUNCTION public.iidq_callback_state(uuid);
DROP FUNCTION public.iidq_follow_callback() CASCADE;
DROP TABLE public.iidq_webhook_delivery;
