INSERT INTO public.floor_job (payload) VALUES ('{"n": 1}') RETURNING id;
