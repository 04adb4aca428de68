DROP FUNCTION retry_job(uuid);
DROP FUNCTION cancel_job(uuid);
DROP FUNCTION resume_queue();
DROP FUNCTION pause_queue(text);
DROP TABLE queue_worker;
DROP TABLE queue_control;
