DROP FUNCTION public.iidq_callback_state(uuid);
DROP TRIGGER iidq_callback_update ON public."VerificationJob";
DROP TRIGGER iidq_callback_delete ON public."VerificationJob";
DROP TRIGGER iidq_callback_truncate ON public."VerificationJob";
DROP FUNCTION public.iidq_follow_callback();
DROP TABLE public.iidq_webhook_delivery;
