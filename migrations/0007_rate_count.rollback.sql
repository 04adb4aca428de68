DROP TABLE rate_count;
