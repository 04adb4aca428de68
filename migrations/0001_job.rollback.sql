DROP TABLE public."VerificationJob";
DROP FUNCTION public.iidq_new_job_id(), public.iidq_imported_id(text);
