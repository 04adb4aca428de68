-- The least table that can be a queue, for the floor of iidq's figures.
CREATE TABLE public.floor_job (
  id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  state   smallint    NOT NULL DEFAULT 0,
  asked   timestamptz NOT NULL DEFAULT now(),
  changed timestamptz NOT NULL DEFAULT now(),
  payload jsonb       NOT NULL
);
CREATE INDEX floor_job_waiting ON public.floor_job (id) WHERE state = 0;
