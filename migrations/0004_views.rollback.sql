DROP VIEW queue_throughput;
DROP VIEW queue_errors;
DROP VIEW queue_health;
DROP VIEW queue_workers;
