INSERT INTO floor_job (payload) VALUES ('{"n": 1}') RETURNING id;
