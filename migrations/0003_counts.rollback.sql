DROP FUNCTION public.iidq_note_truncate(), public.iidq_note_change() CASCADE;
DROP FUNCTION public.iidq_broken_rules(public."VerificationJob"), public.iidq_queue_state(text, boolean);
DROP TABLE public.iidq_queue_count;
