DROP TRIGGER iidq_inserted ON public."VerificationJob";
DROP TRIGGER iidq_updated ON public."VerificationJob";
DROP TRIGGER iidq_deleted ON public."VerificationJob";
DROP TRIGGER iidq_truncated ON public."VerificationJob";
DROP FUNCTION public.iidq_note_truncate();
DROP FUNCTION public.iidq_note_change();
DROP FUNCTION public.iidq_broken_rules(public."VerificationJob");
DROP FUNCTION public.iidq_queue_state(text, boolean);
DROP TABLE public.iidq_queue_count;
