DROP PROCEDURE iidq_enqueue(json, integer);
