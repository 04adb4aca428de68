"""Commands for operators: jobs, stats, pause, resume, doctor."""
