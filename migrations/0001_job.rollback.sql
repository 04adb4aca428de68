DROP TABLE public."VerificationJob";
DROP FUNCTION public.iidq_new_job_id();
