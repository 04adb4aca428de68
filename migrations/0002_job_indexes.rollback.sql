DROP INDEX public."VerificationJob_content", public."VerificationJob_failed_cause", public."VerificationJob_cancelled",
  public."VerificationJob_failed", public."VerificationJob_newest", public."VerificationJob_running",
  public."VerificationJob_delayed", public."VerificationJob_line";
DROP FUNCTION public.iidq_ended_jobs_of, public.iidq_content_span, public.iidq_claim_order;
